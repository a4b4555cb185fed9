"""Mutual TLS 1.3: a folder with three files, and what gRPC and asyncio make of them.

    DIR/ca.crt   the certificates that are believed in, PEM
    DIR/tls.crt  our own, and what lies between it and the CA
    DIR/tls.key  its key

That is how a Secret of cert-manager looks. The files may be replaced at any time: servers look at
them at each handshake, clients at each call. What does not fit together, has run out or does not
come from the CA is not taken: the former certificate stays in use, and the log says why.

gRPC has no switch for "TLS 1.3 only". It has one for the ciphers of TLS 1.2, which `deltaplane`
sets before gRPC is loaded: to one that needs an RSA key, while our keys are ECDSA. Those of TLS 1.3
are not touched by it. A server looks at the version of each connection besides.
"""

import os
import ssl
import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import grpc

import deltaplane
from deltaplane.errors import Forbidden, Internal, Refused
from deltaplane.runtime import log, metrics, roles
from deltaplane.runtime.roles import Peer, Role

CA, CERTIFICATE, KEY = "ca.crt", "tls.crt", "tls.key"

VERSION = "TLSv1.3"

_ALPN = ["h2"]

_EXPIRES = metrics.gauge(
    "certificate_expiry_timestamp_seconds", "When our certificate runs out, Unix time"
)


@dataclass(frozen=True, slots=True)
class Tls:
    """How to reach a server: with which certificate, and as what it has to show itself.

    Attributes:
        folder: with our certificate.
        server: role of the server.
    """

    folder: Path
    server: Role

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        """Channel arguments: which name the server's certificate must have."""
        return (("grpc.ssl_target_name_override", self.server.server_name),)

    def stamp(self) -> object:
        """Changes when there is another certificate to connect with."""
        return read(self.folder)

    def credentials(self) -> grpc.ChannelCredentials:
        """Of a channel. Raises Refused: the files are not usable."""
        pem = read(self.folder)
        return grpc.ssl_channel_credentials(pem.ca, pem.key, pem.certificate)

    def context(self) -> ssl.SSLContext:
        """Of a connection without gRPC, for HTTP/2. Raises Refused: the files are not usable."""
        return read(self.folder).client


@dataclass(frozen=True, slots=True, eq=False)
class Pem:
    """The files at one moment, found to fit together. Two of them are equal if they are the same.

    Attributes:
        peer: who we are by it.
        expires: Unix time, seconds.
        client: for connections without gRPC.
    """

    ca: bytes
    certificate: bytes
    key: bytes = field(repr=False)
    peer: Peer
    expires: float
    client: ssl.SSLContext


class _Folder:
    """The files of a folder, read again when they have changed."""

    def __init__(self, path: Path) -> None:
        self._paths = tuple(str(path / name) for name in (CA, CERTIFICATE, KEY))
        self._seen: object = None
        self._pem: Pem | None = None

    def read(self) -> Pem:
        seen = self._signature()
        if self._pem is not None and seen == self._seen:
            return self._pem
        try:
            pem = self.load()
        except (OSError, Refused) as error:
            if self._pem is None:
                raise Refused(f"{self._paths[1]} cannot be used: {error}") from error
            if seen != self._seen:
                log.get().warning("certificate_not_taken", file=self._paths[1], reason=str(error))
            self._seen = seen
            return self._pem
        if self._pem is not None:
            log.get().info("certificate_renewed", peer=str(pem.peer), expires=_date(pem.expires))
        if self._signature() == seen:
            self._seen = seen  # else it changed while we read, and is looked at again
        self._pem = pem
        _EXPIRES.set(pem.expires)
        return pem

    def load(self) -> Pem:
        """The files as they are. Raises OSError or Refused."""
        ca, certificate, key = (Path(path).read_bytes() for path in self._paths)
        contexts = [
            _context(protocol, self._paths)
            for protocol in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER)
        ]
        described = _handshake(*contexts)
        uris = [value for kind, value in described.get("subjectAltName", ()) if kind == "URI"]
        peer = roles.parse(uris[0]) if len(uris) == 1 else None
        if peer is None:
            raise Refused(f"it names no role: one URI like {Peer(Role.IPAM).uri} is needed")
        return Pem(
            ca=ca,
            certificate=certificate,
            key=key,
            peer=peer,
            expires=ssl.cert_time_to_seconds(described["notAfter"]),
            client=contexts[0],
        )

    def _signature(self) -> object:
        try:
            found = [os.stat(path) for path in self._paths]  # noqa: PTH116 - asked at each call
        except OSError as error:
            return error.errno, error.filename
        return [(item.st_mtime_ns, item.st_ino, item.st_size) for item in found]


_folders: dict[Path, _Folder] = {}


def read(folder: Path) -> Pem:
    """The files of a folder as they are now, or as they were when they last fitted together.

    Raises:
        Refused: they are not usable and never were.
    """
    known = _folders.get(folder)
    if known is None:
        _check_grpc()
        known = _folders.setdefault(folder, _Folder(folder))
    return known.read()


def check(folder: Path) -> Pem:
    """The files of a folder, looked at now and not kept.

    Raises:
        OSError: one of them cannot be read.
        Refused: they are not usable.
    """
    return _Folder(folder).load()


def server_credentials(folder: Path) -> grpc.ServerCredentials:
    """Of a server that wants to see a certificate, and looks at its own at each handshake.

    Raises:
        Refused: the files are not usable.
    """
    given = read(folder)

    def configuration(pem: Pem) -> Any:  # noqa: ANN401 - grpc does not name the type
        return grpc.ssl_server_certificate_configuration([(pem.key, pem.certificate)], pem.ca)

    def changed() -> Any:  # noqa: ANN401 - as above
        nonlocal given
        now = read(folder)
        if now is given:
            return None
        given = now
        return configuration(now)

    return grpc.dynamic_ssl_server_credentials(
        configuration(given), changed, require_client_authentication=True
    )


def peer_of(context: Any) -> Peer:  # noqa: ANN401 - any ServicerContext
    """Who calls.

    Raises:
        Forbidden: its certificate names no role, or one that its CA may not give, or the connection
            is older than TLS 1.3.
    """
    found = context.auth_context()
    if found.get("ssl_tls_version") != [VERSION.encode()]:
        raise Forbidden(f"{VERSION} is needed")
    uris = found.get("peer_uri", ())
    peer = roles.parse(uris[0].decode("utf-8", "replace")) if len(uris) == 1 else None
    if peer is None:
        raise Forbidden("the certificate names no role")
    # Of an agent it makes no difference, and agents call often.
    if peer.role is not Role.NODE and _is_from_node_authority(found["x509_pem_cert"][0]):
        raise Forbidden(f"a CA for nodes has made this certificate of {peer}")
    return peer


@lru_cache(maxsize=256)
def _is_from_node_authority(pem: bytes) -> bool:
    """Whether a verified certificate was made by a CA for nodes."""
    # Few agents are ever called by somebody else: the others do without it.
    from cryptography import x509  # noqa: PLC0415

    try:
        issuer = x509.load_pem_x509_certificate(pem).issuer
        return any(roles.is_node_authority(str(attribute.value)) for attribute in issuer)
    except ValueError as error:
        raise Forbidden(f"the certificate cannot be read: {error}") from error


def _context(protocol: int, paths: tuple[str, ...]) -> ssl.SSLContext:
    ca, certificate, key = paths
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(_ALPN)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise Refused(f"{error.reason or error}") from error
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _no_password() -> str:
    raise Refused("the key is encrypted")


def _handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> dict[str, Any]:
    """Shows our certificate to ourselves, as both sides will to others; what it says.

    Raises:
        Refused: it is not from our CA, has run out, or is not for clients or not for servers.
    """
    client.check_hostname = False
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [ours, theirs]
    try:
        while waiting:
            waiting = [side for side in waiting if not _is_done(side)]
    except ssl.SSLCertVerificationError as error:
        raise Refused(error.verify_message) from error
    except ssl.SSLError as error:
        raise Refused(f"{error.reason or error}") from error
    finally:
        client.check_hostname = True
    return dict(theirs.getpeercert() or {})


def _is_done(side: ssl.SSLObject) -> bool:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _check_grpc() -> None:
    """Raises Internal: gRPC would take part in TLS 1.2."""
    if deltaplane.GRPC_CAME_FIRST:
        raise Internal("import deltaplane before grpc: else it takes part in TLS 1.2")


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
