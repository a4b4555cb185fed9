"""The server is verified, always; we show a certificate where we have one."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from deltaplane.errors import Unavailable
from services.kubernetes.api import resource as resources
from services.kubernetes.api.client import Client
from services.kubernetes.api.kubeconfig import Connection
from tests.kubernetes.apiserver import ApiServer


@dataclass(frozen=True)
class Pair:
    """A certificate that signs itself, and its key."""

    certificate: Path
    key: Path

    @property
    def paths(self) -> tuple[str, str]:
        return str(self.certificate), str(self.key)

    def texts(self) -> tuple[bytes, bytes]:
        return self.certificate.read_bytes(), self.key.read_bytes()


def make(folder: Path, name: str, alternative: str) -> Pair:
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    names = ["-subj", f"/CN={name}", "-addext", f"subjectAltName={alternative}"]
    files = ["-out", str(pair.certificate), "-keyout", str(pair.key)]
    subprocess.run(["openssl", *options.split(), *names, *files], check=True, capture_output=True)
    return pair


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def own(folder: Path) -> Pair:
    return make(folder, "server", "IP:127.0.0.1")


async def ask(connection: Connection) -> None:
    async with Client(connection) as client:
        await client.page(resources.PODS, {})


async def test_an_authority_that_is_known(own: Pair) -> None:
    with ApiServer(tls=own.paths) as server:
        await ask(server.connection(authorities=own.certificate.read_text()))


async def test_an_authority_that_is_not(own: Pair, folder: Path) -> None:
    other = make(folder, "other", "IP:127.0.0.1")
    with ApiServer(tls=own.paths) as server:
        for authorities in (None, other.certificate.read_text()):
            with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
                await ask(server.connection(authorities=authorities))
    assert not server.calls


async def test_a_certificate_for_another_name(folder: Path) -> None:
    pair = make(folder, "named", "DNS:kubernetes.default.svc")
    authorities = pair.certificate.read_text()
    with ApiServer(tls=pair.paths) as server:
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await ask(server.connection(authorities=authorities))
        name = "kubernetes.default.svc"
        await ask(server.connection(authorities=authorities, server_name=name))


async def test_our_certificate(own: Pair, folder: Path) -> None:
    ours = make(folder, "bridge", "DNS:bridge")
    authorities = own.certificate.read_text()
    with ApiServer(tls=own.paths, clients=str(ours.certificate)) as server:
        await ask(server.connection(authorities=authorities, certificate=ours.texts()))
        with pytest.raises(Unavailable):
            await ask(server.connection(authorities=authorities))
    assert len(server.calls) == 1
