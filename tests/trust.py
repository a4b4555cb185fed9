"""Certificates for tests: a CA of a test's own, and what it signs."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from deltaplane.certs import files, issuing
from deltaplane.certs.issuing import Wanted
from deltaplane.runtime import tls
from deltaplane.runtime.roles import Role, parse
from deltaplane.runtime.tls import Tls


@dataclass(frozen=True)
class Trust:
    """A CA in a folder."""

    folder: Path

    def issue(self, peer: str, *, days: int = 1) -> Path:
        """The folder of a certificate, made anew each time. peer: "slicer", "node/n1"."""
        found = parse(f"spiffe://deltaplane/{peer}")
        assert found, peer
        into = self.folder / peer.replace("/", "-")
        files.make(
            files.read_authority(self.folder),
            Wanted(peer=found, ips=("127.0.0.1",), days=days),
            into,
            force=True,
        )
        return into

    def node_authority(self) -> Path:
        """The folder of a CA for nodes."""
        folder = self.folder / "node-ca"
        if not folder.exists():
            files.make_node_authority(files.read_authority(self.folder), folder)
        return folder

    def issue_as_node_authority(self, peer: str, *names: str) -> Path:
        """What somebody makes who has stolen the key of the CA for nodes. names: DNS names."""
        found = parse(f"spiffe://deltaplane/{peer}")
        assert found, peer
        authority = files.read_node_authority(self.node_authority())
        made = issuing.issue(authority, _Forged(peer=found, dns=names), now=issuing.now())
        into = self.folder / "-".join(("forged", peer.replace("/", "-"), *names))
        chain = made.certificate + authority.certificate
        ca = (self.folder / tls.CA).read_bytes()
        files.write(into, {tls.KEY: made.key, tls.CA: ca, tls.CERTIFICATE: chain})
        return into

    def of(self, peer: str, server: str) -> Tls:
        """How a peer reaches a server of a role."""
        folder = self.folder / peer.replace("/", "-")
        return Tls(folder if folder.exists() else self.issue(peer), Role(server))

    def serial(self, peer: str) -> bytes:
        """The certificate that is in use."""
        return tls.read(self.folder / peer.replace("/", "-")).certificate


class _Forged(Wanted):
    """Says what it is told to."""

    def __post_init__(self) -> None:
        pass

    @property
    def names(self) -> tuple[str, ...]:
        return self.dns


class Unchecked(Tls):
    """Shows a certificate that our own processes would not start with."""

    def stamp(self) -> object:
        return None

    def credentials(self) -> grpc.ChannelCredentials:
        ca, key, chain = (
            (self.folder / it).read_bytes() for it in (tls.CA, tls.KEY, tls.CERTIFICATE)
        )
        return grpc.ssl_channel_credentials(ca, key, chain)

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(["h2"])
        context.load_cert_chain(self.folder / tls.CERTIFICATE, self.folder / tls.KEY)
        context.load_verify_locations(self.folder / tls.CA)
        return context


def trust(folder: Path) -> Trust:
    """A new CA."""
    files.make_authority(folder)
    return Trust(folder)
