"""Where the API server is and who we are: from the pod we run in, or from a kubeconfig file.

Refused: `insecure-skip-tls-verify`, plain http to another machine, commands that print credentials
(`exec`) and passwords. A bridge runs unattended with a service account or a client certificate.
"""

import base64
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec
import yaml

from deltaplane.errors import Invalid

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Mounted into every pod that has a service account."""

T = TypeVar("T")

_SHOWN = 200
"""Characters of a URL that is none."""

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How to reach an API server.

    Attributes:
        server: URL without a path at its end.
        namespace: that we run in, or that the kubeconfig says.
        authorities: PEM of the authorities that its certificate may come from; None: the machine's.
        certificate: PEM files of our certificate and key; None without.
        token: sent with each request; None without.
        token_file: holds the token; it is replaced every hour or so, and read again.
        server_name: expected in the certificate; None: the host of the URL.
    """

    server: str
    namespace: str = "default"
    authorities: str | None = None
    certificate: tuple[bytes, bytes] | None = None
    token: str | None = None
    token_file: Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        """Raises Invalid: no request could be made with it."""
        if mistake := _server_mistake(self.server):
            raise Invalid("server", f"{self.server[:_SHOWN]!r} {mistake}")
        if self.token is not None and not is_token(self.token):
            raise Invalid("token", "has characters that no token has")

    def tls(self) -> ssl.SSLContext:
        """A context that verifies the server, and shows our certificate if there is one.

        Raises:
            Invalid: a certificate or a key is not what it should be.
        """
        if self.server.startswith("http:"):
            # Never asked for anything; reading the machine's authorities costs 20 ms.
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.authorities is not None and not self.authorities.isascii():
            raise Invalid("certificate", "is of no use: the authorities are no PEM")
        try:
            context = ssl.create_default_context(cadata=self.authorities)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.certificate is not None:
                _show(context, *self.certificate)
        except OSError as error:
            # As OpenSSL's own errors are, and those that it makes of the system's.
            raise Invalid("certificate", f"is of no use: {error}") from error
        return context


def is_token(text: str) -> bool:
    """Whether it can be sent in a header."""
    return text.isascii() and text.isprintable()


def _server_mistake(server: str) -> str:
    """What is wrong with a URL; "": nothing."""
    try:
        url = urlsplit(server)
        is_url = bool(url.hostname) and url.port != 0
    except ValueError:
        return "is no URL"
    if not is_url or not server.isascii() or not server.isprintable() or " " in server:
        return "is no URL"
    if url.scheme != "https" and not (url.scheme == "http" and url.hostname in _LOOPBACK):
        return "must be https: a token travels with requests"
    return ""


def _no_passphrase() -> str:
    # Without this OpenSSL asks whoever sits at the terminal, and waits.
    raise Invalid("certificate", "is of no use: its key is encrypted")


def _show(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    # OpenSSL's way into a context is a file. It lives for two system calls, readable by us alone.
    with tempfile.NamedTemporaryFile(prefix="deltaplane-") as file:
        file.write(certificate + b"\n" + key)
        file.flush()
        context.load_cert_chain(file.name, password=_no_passphrase)


def find(environment: Mapping[str, str], *, account: Path = SERVICE_ACCOUNT) -> Connection:
    """KUBECONFIG if it is set, else the pod's service account, else ~/.kube/config.

    Raises:
        Invalid: none of them is there, or what is there is of no use.
    """
    if named := environment.get("KUBECONFIG"):
        return from_file(Path(named))
    if environment.get("KUBERNETES_SERVICE_HOST"):
        return from_pod(environment, account=account)
    if (default := Path(environment.get("HOME", "/"), ".kube", "config")).exists():
        return from_file(default)
    raise Invalid("KUBECONFIG", "is not set, and this is not a pod; name a kubeconfig file")


def from_pod(environment: Mapping[str, str], *, account: Path = SERVICE_ACCOUNT) -> Connection:
    """What kubelet tells a pod.

    Raises:
        Invalid: the service account is not mounted.
    """
    host = environment["KUBERNETES_SERVICE_HOST"]
    port = environment.get("KUBERNETES_SERVICE_PORT", "443")
    return with_account(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", account)


def with_account(target: str, account: Path = SERVICE_ACCOUNT) -> Connection:
    """A server, host:port, reached with the service account of a pod.

    Raises:
        Invalid: the service account is not mounted.
    """
    try:
        return Connection(
            server=f"https://{target}",
            namespace=(account / "namespace").read_text().strip(),
            authorities=(account / "ca.crt").read_text(),
            token_file=account / "token",
        )
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid("service account", f"must be mounted: {error}") from error


class _Struct(msgspec.Struct, frozen=True, rename="kebab"):
    """Base of the parts of a kubeconfig; unknown fields are fine."""


class _Cluster(_Struct, frozen=True):
    server: str
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    insecure_skip_tls_verify: bool = False
    tls_server_name: str | None = None


class _User(_Struct, frozen=True):
    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    token: str | None = None
    token_file: str | None = msgspec.field(name="tokenFile", default=None)
    username: str | None = None
    exec: dict[str, object] | None = None
    auth_provider: dict[str, object] | None = None


class _Context(_Struct, frozen=True):
    cluster: str
    user: str = ""
    namespace: str = "default"


class _NamedCluster(_Struct, frozen=True):
    name: str
    cluster: _Cluster


class _NamedUser(_Struct, frozen=True):
    name: str
    user: _User


class _NamedContext(_Struct, frozen=True):
    name: str
    context: _Context


class _Config(_Struct, frozen=True):
    current_context: str = ""
    clusters: list[_NamedCluster] = []
    users: list[_NamedUser] = []
    contexts: list[_NamedContext] = []


def from_file(path: Path) -> Connection:
    """The current context of a kubeconfig file; paths in it are relative to it.

    Raises:
        Invalid: it cannot be read, or asks for what we refuse.
    """
    try:
        config = msgspec.convert(yaml.safe_load(path.read_text()), _Config)
    except (OSError, ValueError, LookupError, RecursionError, yaml.YAMLError) as error:
        # ValueError: no UTF-8, no kubeconfig, dates and numbers that Python does not know.
        # LookupError: a number without a digit, which PyYAML takes for one.
        raise Invalid(str(path), f"cannot be read as a kubeconfig: {error}") from error
    contexts = {it.name: it.context for it in config.contexts}
    context = _named(contexts, config.current_context, f"{path}: current-context")
    clusters = {it.name: it.cluster for it in config.clusters}
    cluster = _named(clusters, context.cluster, f"{path}: cluster")
    users = {it.name: it.user for it in config.users}
    user = _named(users, context.user, f"{path}: user") if context.user else _User()
    if cluster.insecure_skip_tls_verify:
        raise Invalid(f"{path}: insecure-skip-tls-verify", "is not supported; name the authority")
    if user.exec or user.auth_provider or user.username:
        raise Invalid(f"{path}: user", "must have a token or a client certificate")
    files = _Files(path)
    authorities = files.bytes_of(cluster.certificate_authority_data, cluster.certificate_authority)
    certificate = files.bytes_of(user.client_certificate_data, user.client_certificate)
    key = files.bytes_of(user.client_key_data, user.client_key)
    return Connection(
        server=cluster.server.rstrip("/"),
        namespace=context.namespace,
        authorities=authorities.decode(errors="replace") if authorities else None,
        certificate=(certificate, key) if certificate and key else None,
        token=user.token,
        token_file=path.parent / user.token_file if user.token_file else None,
        server_name=cluster.tls_server_name,
    )


def _named(choices: Mapping[str, T], name: str, field: str) -> T:
    if name not in choices:
        raise Invalid(field, f"{name!r} is not in the file")
    return choices[name]


@dataclass(frozen=True, slots=True)
class _Files:
    """What a kubeconfig names, in itself or beside it."""

    config: Path

    def bytes_of(self, data: str | None, name: str | None) -> bytes | None:
        """The data if there is some, else what is in the file; None without both."""
        try:
            if data:
                return base64.b64decode(data, validate=True)
            return (self.config.parent / name).read_bytes() if name else None
        except (OSError, ValueError) as error:
            raise Invalid(str(self.config), f"names what cannot be read: {error}") from error
