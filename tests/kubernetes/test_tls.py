"""The server is verified, always; we show a certificate where we have one."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from deltaplane.certs import issuing
from deltaplane.certs.issuing import Issued, Wanted
from deltaplane.errors import Unavailable
from deltaplane.runtime.roles import Peer, Role
from services.kubernetes.api import resource as resources
from services.kubernetes.api.client import Client
from services.kubernetes.api.kubeconfig import Connection
from tests.kubernetes.apiserver import ApiServer


@dataclass(frozen=True)
class Server:
    """A certificate in files, and who vouches for it."""

    files: tuple[str, str]
    authorities: str


def authority() -> Issued:
    return issuing.authority(now=issuing.now())


def leaf(ca: Issued, *, dns: tuple[str, ...] = (), ips: tuple[str, ...] = ()) -> Issued:
    wanted = Wanted(peer=Peer(role=Role.BRIDGE), dns=dns, ips=ips)
    return issuing.issue(ca, wanted, now=issuing.now())


def server(folder: Path, *, dns: tuple[str, ...] = (), ips: tuple[str, ...] = ()) -> Server:
    ca = authority()
    made = leaf(ca, dns=dns, ips=ips)
    (folder / "tls.crt").write_bytes(made.certificate)
    (folder / "tls.key").write_bytes(made.key)
    files = (str(folder / "tls.crt"), str(folder / "tls.key"))
    return Server(files=files, authorities=ca.certificate.decode())


async def ask(connection: Connection) -> None:
    async with Client(connection) as client:
        await client.page(resources.PODS, {})


async def test_an_authority_that_is_known_and_one_that_is_not(tmp_path: Path) -> None:
    own = server(tmp_path, ips=("127.0.0.1",))
    with ApiServer(tls=own.files) as api:
        for authorities in (None, authority().certificate.decode()):
            with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
                await ask(api.connection(authorities=authorities))
        assert not api.calls
        await ask(api.connection(authorities=own.authorities))


async def test_a_certificate_for_another_name(tmp_path: Path) -> None:
    name = "kubernetes.default.svc"
    own = server(tmp_path, dns=(name,))
    with ApiServer(tls=own.files) as api:
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await ask(api.connection(authorities=own.authorities))
        await ask(api.connection(authorities=own.authorities, server_name=name))


async def test_our_certificate(tmp_path: Path) -> None:
    own, ca = server(tmp_path, ips=("127.0.0.1",)), authority()
    (tmp_path / "clients.crt").write_bytes(ca.certificate)
    ours = leaf(ca)
    with ApiServer(tls=own.files, clients=str(tmp_path / "clients.crt")) as api:
        certificate = (ours.certificate, ours.key)
        await ask(api.connection(authorities=own.authorities, certificate=certificate))
        with pytest.raises(Unavailable):
            await ask(api.connection(authorities=own.authorities))
        assert len(api.calls) == 1
