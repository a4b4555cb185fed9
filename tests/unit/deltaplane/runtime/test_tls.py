"""Real handshakes on loopback, with certificates of a CA of each test's own."""

import asyncio
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from deltaplane.certs import files, issuing
from deltaplane.certs.issuing import Wanted
from deltaplane.errors import Forbidden, Refused, Unavailable
from deltaplane.runtime import authorising, rpc, tls
from deltaplane.runtime.authorising import May, Rule
from deltaplane.runtime.config import ProcessConfig
from deltaplane.runtime.roles import Peer, Role
from deltaplane.runtime.service import serve
from deltaplane.runtime.tls import Tls
from tests.trust import Trust, trust
from tests.unit.deltaplane.runtime.conftest import METHODS, SERVICE, Echo, ask, failure_of

ROOT = Path(__file__).parents[4]
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


@pytest.fixture
def ca(tmp_path: Path) -> Trust:
    return trust(tmp_path / "ca")


@pytest.fixture(autouse=True)
def _echo_is_for_the_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = Rule(roles=frozenset({Role.BRIDGE}), node=May.NO)
    table = {**authorising.TABLE, **{f"{SERVICE}/{method}": rule for method in METHODS}}
    monkeypatch.setattr(authorising, "TABLE", table)


class AgentOfN1(ProcessConfig):
    @property
    def instance(self) -> str:
        return "n1"


@asynccontextmanager
async def serving(
    folder: Path, capsys: pytest.CaptureFixture[str], echo: Echo | None = None, name: str = "slicer"
) -> AsyncIterator[str]:
    """A server with the certificate of a folder; its target."""
    stop = asyncio.Event()
    kind = AgentOfN1 if name == "node/n1" else ProcessConfig
    config = kind(tls_dir=folder, insecure=False, listen=("127.0.0.1:0", "127.0.0.1:0"))
    capsys.readouterr()
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        server = serve(config, name=name, register=(echo or Echo()).register, stop=stop)
        group.create_task(server)
        text = ""
        while "ready" not in text:
            await asyncio.sleep(0.01)
            text += capsys.readouterr().out
        yield text.split('"listen": ["')[1].split('"')[0]
        stop.set()


def peer_certificate(target: str, own: Tls, version: ssl.TLSVersion = VERSIONS[1]) -> bytes:
    """What a server shows to a client of one version of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(own.folder / tls.CERTIFICATE, own.folder / tls.KEY)
    context.load_verify_locations(own.folder / tls.CA)
    host, port = target.rsplit(":", 1)
    with (
        socket.create_connection((host, int(port)), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname=own.server.server_name) as secure,
    ):
        assert secure.version() == "TLSv1.3"
        # TLS 1.3 tells a client that it was refused only after its own handshake.
        assert secure.recv(1)
        return secure.getpeercert(binary_form=True) or b""


def pem(der: bytes) -> bytes:
    return ssl.DER_cert_to_PEM_cert(der).encode()


async def test_calls_of_each_kind_and_who_called(
    ca: Trust, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(ca.issue("slicer"), capsys) as target:
        async with rpc.channel(target, ca.of("bridge", "slicer")) as channel:
            for method in METHODS:
                assert await ask(channel, method) == b"hello", method
        async with rpc.channel(target, ca.of("ipam", "slicer")) as channel:
            for method in METHODS:
                error = await failure_of(ask(channel, method))
                assert isinstance(error, Forbidden), method
                assert "ipam may not call test.Echo" in str(error)


async def test_only_tls_1_3(ca: Trust, capsys: pytest.CaptureFixture[str]) -> None:
    own = ca.of("bridge", "slicer")
    async with serving(ca.issue("slicer"), capsys) as target:
        shown = await asyncio.to_thread(peer_certificate, target, own)
        assert pem(shown).strip() == ca.serial("slicer").strip()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(peer_certificate, target, own, VERSIONS[0])


@pytest.mark.parametrize("version", VERSIONS)
async def test_clients_refuse_a_server_of_an_older_version(
    ca: Trust, version: ssl.TLSVersion
) -> None:
    folder = ca.issue("slicer")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(folder / tls.CERTIFICATE, folder / tls.KEY)
    context.set_alpn_protocols(["h2"])
    # In a thread: asyncio forgets connections whose handshake goes on when a server is closed.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        spoken = asyncio.create_task(asyncio.to_thread(is_spoken_to, listener, context))
        port = listener.getsockname()[1]
        async with rpc.channel(f"127.0.0.1:{port}", ca.of("bridge", "slicer")) as channel:
            error = await failure_of(ask(channel, "Unary"))
        listener.shutdown(socket.SHUT_RDWR)
        assert await spoken == (version is VERSIONS[1])
    assert isinstance(error, Unavailable)


def is_spoken_to(listener: socket.socket, context: ssl.SSLContext) -> bool:
    """Until the socket is shut down: whether anybody says anything after the handshake."""
    is_spoken = False
    while True:
        try:
            plain, _ = listener.accept()
        except OSError:
            return is_spoken
        with plain, suppress(OSError):
            plain.settimeout(5)
            with context.wrap_socket(plain, server_side=True) as secure:
                is_spoken |= bool(secure.recv(24))


def test_who_loads_grpc_first_gets_no_tls() -> None:
    program = (
        "import grpc\nfrom pathlib import Path\nfrom deltaplane.runtime import tls\n"
        "tls.read(Path('/none'))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert "import deltaplane before grpc" in found.stderr


@pytest.mark.parametrize("impostor", ["node/n1", "bridge", "admin"])
async def test_nobody_passes_for_the_slicer(
    ca: Trust, impostor: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ca.issue(impostor)
    async with serving(folder, capsys, name=impostor) as target:
        async with rpc.channel(target, ca.of("bridge", "slicer")) as channel:
            assert isinstance(await failure_of(ask(channel, "Unary")), Unavailable)
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            await asyncio.to_thread(peer_certificate, target, ca.of("bridge", "slicer"))


async def test_strangers_are_refused(
    ca: Trust, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = trust(tmp_path / "other")
    stranger = other.issue("bridge")
    shutil.copy(ca.folder / tls.CA, stranger / tls.CA)  # believes in us, we not in it
    async with serving(ca.issue("slicer"), capsys) as target:
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
            await asyncio.to_thread(peer_certificate, target, Tls(stranger, Role.SLICER))
        async with rpc.channel(target, other.of("admin", "slicer")) as channel:
            assert isinstance(await failure_of(ask(channel, "Unary")), Unavailable)
        async with rpc.channel(target) as channel:
            assert isinstance(await failure_of(ask(channel, "Unary")), Unavailable)


async def test_a_server_takes_a_new_certificate_while_it_serves(
    ca: Trust, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, own = ca.issue("slicer"), ca.of("bridge", "slicer")
    async with serving(folder, capsys) as target, rpc.channel(target, own) as channel:
        assert await ask(channel, "Unary") == b"hello"
        before = await asyncio.to_thread(peer_certificate, target, own)
        ca.issue("slicer")
        after = await asyncio.to_thread(peer_certificate, target, own)
        assert after != before
        assert pem(after).strip() == (folder / tls.CERTIFICATE).read_bytes().strip()
        assert await ask(channel, "Unary") == b"hello", "the connection of before goes on"


async def test_a_client_takes_a_new_certificate_and_loses_no_call(
    ca: Trust, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[bytes] = []

    class Noting(Echo):
        async def unary(self, request: bytes, context: Any) -> bytes:
            seen.append(context.auth_context()["x509_pem_cert"][0].strip())
            return await super().unary(request, context)

    echo, own = Noting(), ca.of("bridge", "slicer")
    async with (
        serving(ca.issue("slicer"), capsys, echo) as target,
        rpc.channel(target, own) as channel,
    ):
        waiting = asyncio.ensure_future(ask(channel, "Unary", b"wait"))
        await echo.started.wait()
        ca.issue("bridge")
        assert await ask(channel, "Unary") == b"hello"
        assert seen[0] != seen[1] == ca.serial("bridge").strip()
        former: Any = channel._former[0]  # type: ignore[attr-defined]
        assert former.calls == 1
        echo.go_on.set()
        assert await waiting == b"wait"
        assert former.calls == 0
        await former._closing
        assert await ask(channel, "Unary") == b"hello"
        assert seen[2] == seen[1]


def test_what_does_not_fit_is_not_taken(ca: Trust) -> None:
    folder = ca.issue("slicer")
    good = tls.read(folder)
    with structlog.testing.capture_logs() as logged:
        (folder / tls.KEY).write_bytes((ca.issue("ipam") / tls.KEY).read_bytes())
        assert tls.read(folder) is good
        assert tls.read(folder) is good
        (folder / tls.CERTIFICATE).unlink()
        assert tls.read(folder) is good
        ca.issue("slicer")
        assert tls.read(folder) is not good
    events = [entry["event"] for entry in logged]
    assert events == ["certificate_not_taken", "certificate_not_taken", "certificate_renewed"]
    assert not any("PRIVATE" in repr(entry) for entry in logged)
    assert "PRIVATE" not in repr(tls.read(folder))


def test_files_that_are_of_no_use(ca: Trust, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="No such file"):
        tls.read(tmp_path / "nowhere")
    folder = ca.issue("slicer")
    stranger = trust(tmp_path / "other").issue("slicer")
    shutil.copy(ca.folder / tls.CA, stranger / tls.CA)
    with pytest.raises(Refused, match=r"signature failure|unable to get local issuer"):
        tls.read(stranger)
    mixed = tmp_path / "mixed"
    shutil.copytree(folder, mixed)
    shutil.copy(stranger / tls.KEY, mixed / tls.KEY)
    with pytest.raises(Refused, match="KEY_VALUES_MISMATCH"):
        tls.read(mixed)
    no_role = tmp_path / "no-role"
    shutil.copytree(folder, no_role)
    for name in (tls.CERTIFICATE, tls.KEY):
        source = {tls.CERTIFICATE: tls.CA, tls.KEY: files.CA_KEY}[name]
        shutil.copy(ca.folder / source, no_role / name)
    with pytest.raises(Refused):
        tls.read(no_role)


async def test_a_server_refuses_somebody_elses_certificate(ca: Trust) -> None:
    config = ProcessConfig(tls_dir=ca.issue("ipam"), insecure=False)
    with pytest.raises(Refused, match="that of ipam, not of slicer"):
        await serve(config, name="slicer", register=Echo().register)


async def test_expired_certificates_are_refused(ca: Trust) -> None:
    folder = ca.issue("slicer")
    authority = files.read_authority(ca.folder)
    now = issuing.now() - timedelta(days=2)
    old = issuing.issue(authority, Wanted(peer=Peer(Role.SLICER), days=1), now=now)
    (folder / tls.KEY).write_bytes(old.key)
    (folder / tls.CERTIFICATE).write_bytes(old.certificate)
    with pytest.raises(Refused, match="expired"):
        tls.read(folder)
