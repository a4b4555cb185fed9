"""Our annotations: by which pods and namespaces ask for addresses, and policies for an audit.

`mistake` returns None when a text is fine, else the end of a sentence that begins with the text in
quotes, as `deltaplane.model.names` does.
"""

from deltaplane.model.addresses import parse_address
from deltaplane.model.names import dns_label_mistake

PREFIX = "deltaplane.dev/"
"""Annotations with other prefixes are somebody else's."""

IPV4_POOL = PREFIX + "ipv4-pool"
IPV6_POOL = PREFIX + "ipv6-pool"
"""Value: the name of the pool that the address of that family comes from."""
IP_ADDRESSES = PREFIX + "ip-addresses"
"""Value: one IPv4 address, one IPv6 address, or one of each with a comma between them."""

AUDIT = PREFIX + "audit"
"""Value: "true": the policy denies nothing, what it would deny is counted; "false": the default."""

_VALID = "one IPv4 address, one IPv6 address, or one of each, as in 10.244.0.9,fd00:244::9"


def mistake(key: str, text: str, *, of_namespace: bool = False) -> str | None:
    """Checks the value of an annotation; one that is not about addresses is fine.

    Args:
        key: the annotation.
        text: its value.
        of_namespace: it stands on a namespace, where all pods would ask for the same address.
    """
    if key in (IPV4_POOL, IPV6_POOL):
        return dns_label_mistake(text)
    if key != IP_ADDRESSES:
        return None
    if of_namespace:
        return (
            "is not possible for a namespace, whose pods would all ask for the same; give each "
            f"pod its own, or the namespace a pool with {IPV4_POOL} or {IPV6_POOL}"
        )
    try:
        fixed_addresses(text)
    except ValueError as error:
        return str(error)
    return None


def audit_mistake(text: str) -> str | None:
    """Checks the value of AUDIT."""
    return None if text in ("true", "false") else 'must be "true" or "false"'


def fixed_addresses(text: str) -> tuple[bytes, ...]:
    """The addresses that IP_ADDRESSES asks for, IPv4 first.

    Raises:
        ValueError: the text is something else; the message is the end of a sentence.
    """
    found: dict[int, bytes] = {}
    for part in text.split(","):
        try:
            address = parse_address(part.strip())
        except ValueError:
            message = f"is not valid at {part.strip()!r}: {_VALID}"
            raise ValueError(message) from None
        if len(address) in found:
            message = f"has two IPv{4 if len(address) == 4 else 6} addresses: {_VALID}"
            raise ValueError(message)
        found[len(address)] = address
    return tuple(found[size] for size in sorted(found))
