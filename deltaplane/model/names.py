"""Syntax of Kubernetes names, labels and port names.

Every function returns None when the text is fine, else what would be valid, as the end of a
sentence that begins with the text in quotes. The rules are those of the Kubernetes documentation
("Object Names and IDs", "Labels and Selectors"), of RFC 1123 and of RFC 6335.
"""

import re
from collections.abc import Callable

Check = Callable[[str], str | None]
"""The form of these functions."""

MAX_LABEL = 63
"""Characters of a DNS label, of a label value and of the name part of a label key."""
MAX_SUBDOMAIN = 253
MAX_PORT_NAME = 15

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_SERVICE = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")


def dns_label_mistake(text: str) -> str | None:
    """Checks the name of a namespace."""
    if len(text) <= MAX_LABEL and _DNS_LABEL.fullmatch(text):
        return None
    return f"is no DNS label: 1 to {MAX_LABEL} of a-z, 0-9 and '-', no '-' at either end"


def dns_subdomain_mistake(text: str) -> str | None:
    """Checks the name of a pod, deployment, node or policy."""
    if len(text) <= MAX_SUBDOMAIN and _DNS_SUBDOMAIN.fullmatch(text):
        return None
    return (
        f"is no DNS subdomain: at most {MAX_SUBDOMAIN} of a-z, 0-9, '-' and '.', "
        "each part beginning and ending with a letter or digit"
    )


def service_name_mistake(text: str) -> str | None:
    """Checks the name of a service (RFC 1035)."""
    if len(text) <= MAX_LABEL and _SERVICE.fullmatch(text):
        return None
    return (
        f"is no name of a service: 1 to {MAX_LABEL} of a-z, 0-9 and '-', the first a letter, "
        "no '-' at the end"
    )


def label_key_mistake(text: str) -> str | None:
    """Checks a label key: [DNS subdomain '/'] name."""
    prefix, slash, name = text.rpartition("/")
    if (slash and dns_subdomain_mistake(prefix)) or not _is_qualified(name):
        return (
            f"is no label key: an optional DNS subdomain and '/', then 1 to {MAX_LABEL} letters, "
            "digits, '-', '_' and '.', beginning and ending with a letter or digit"
        )
    return None


def label_value_mistake(text: str) -> str | None:
    """Checks a label value; the empty one is fine."""
    if not text or _is_qualified(text):
        return None
    return (
        f"is no label value: at most {MAX_LABEL} letters, digits, '-', '_' and '.', "
        "beginning and ending with a letter or digit"
    )


def port_name_mistake(text: str) -> str | None:
    """Checks the name of a port (RFC 6335, lower case)."""
    if len(text) <= MAX_PORT_NAME and _PORT_NAME.fullmatch(text):
        return None
    return (
        f"is no port name: 1 to {MAX_PORT_NAME} of a-z, 0-9 and single '-' between them, "
        "with at least one letter"
    )


def _is_qualified(text: str) -> bool:
    return len(text) <= MAX_LABEL and _QUALIFIED.fullmatch(text) is not None
