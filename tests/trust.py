"""Certificates for tests: a CA of a test's own, and what it signs."""

from dataclasses import dataclass
from pathlib import Path

from deltaplane.certs import files
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

    def of(self, peer: str, server: str) -> Tls:
        """How a peer reaches a server of a role."""
        folder = self.folder / peer.replace("/", "-")
        return Tls(folder if folder.exists() else self.issue(peer), Role(server))

    def serial(self, peer: str) -> bytes:
        """The certificate that is in use."""
        return tls.read(self.folder / peer.replace("/", "-")).certificate


def trust(folder: Path) -> Trust:
    """A new CA."""
    files.make_authority(folder)
    return Trust(folder)
