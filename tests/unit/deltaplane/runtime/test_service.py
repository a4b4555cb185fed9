import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from deltaplane.errors import Refused, Unavailable
from deltaplane.runtime import rpc
from deltaplane.runtime.config import ProcessConfig
from deltaplane.runtime.service import run, serve
from tests.unit.deltaplane.runtime.conftest import SERVICE, Echo, ask, failure_of, running

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

PROGRAM = """
import sys
from deltaplane.runtime.config import ProcessConfig, load
from deltaplane.runtime.service import run, serve
config = load(ProcessConfig, sys.argv[1:])
sys.exit(run(serve(config, name="test", register=lambda server: ())))
"""


async def get(config: ProcessConfig, path: str, method: str = "GET") -> tuple[int, str]:
    """Status and body of an admin page."""
    reader, writer = await asyncio.open_unix_connection(config.admin.removeprefix("unix:"))
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), body


def mode_of(address: str) -> int:
    return stat.S_IMODE(Path(address.removeprefix("unix:")).stat().st_mode)


def exists(address: str) -> bool:
    return Path(address.removeprefix("unix:")).exists()


async def test_one_ready_line_tells_where_it_really_listens(
    config: ProcessConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(config, Echo()):
        line = json.loads(capsys.readouterr().out)
        assert line["event"] == "ready"
        assert line["admin"] == config.admin
        assert line["listen"][0] == config.listen[0]
        assert not line["listen"][1].endswith(":0")
        async with rpc.channel(line["listen"][1]) as channel:
            assert await ask(channel, "Unary") == b"hello"
    assert capsys.readouterr().out == ""


async def test_sockets_are_their_owners_only_and_the_admin_pages_only_read(
    config: ProcessConfig,
) -> None:
    async with running(config, Echo()):
        for address in (config.listen[0], config.admin):
            assert mode_of(address) == 0o600, address
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            for path in ("/healthz", "/readyz", "/metrics", "/traces"):
                assert (await get(config, path, method))[0] == 405, (method, path)
    assert ProcessConfig().admin == "127.0.0.1:0"


async def test_admin_pages(config: ProcessConfig) -> None:
    is_ready = False

    async def ready() -> bool:
        return is_ready

    async with running(config, Echo(), ready=ready) as server:
        assert await get(config, "/healthz") == (200, "ok\n")
        assert (await get(config, "/readyz"))[0] == 503
        is_ready = True
        assert (await get(config, "/readyz"))[0] == 200
        await ask(server.channel, "Unary")
        status, body = await get(config, "/metrics")
        assert (await get(config, "/nothing"))[0] == 404
    assert status == 200
    assert "process_resident_memory_bytes" in body
    assert f'deltaplane_rpc_calls_total{{code="OK",method="{SERVICE}/Unary"}}' in body


async def test_a_failing_readiness_check_means_not_ready(config: ProcessConfig) -> None:
    async def ready() -> bool:
        raise Unavailable("etcd is away")

    async with running(config, Echo(), ready=ready):
        assert (await get(config, "/readyz"))[0] == 503


async def test_health_and_reflection_know_the_services(config: ProcessConfig) -> None:
    async with running(config, Echo()) as server:
        health = health_pb2_grpc.HealthStub(server.channel)
        for service in ("", SERVICE):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Check(health_pb2.HealthCheckRequest(service="other"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND

        reflection = reflection_pb2_grpc.ServerReflectionStub(server.channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        [answer] = [part async for part in reflection.ServerReflectionInfo(iter([request]))]
        names = {service.name for service in answer.list_services_response.service}
        assert {SERVICE, "grpc.health.v1.Health"} <= names


async def test_it_stops_in_the_right_order(config: ProcessConfig) -> None:
    order: list[str] = []
    echo = Echo()

    async def on_drain() -> None:
        health = await watch.read()
        status = await get(config, "/readyz")
        order.append(f"drain with serving={health.status == SERVING} ready={status[0]}")
        echo.go_on.set()

    async with running(config, echo, on_drain=on_drain) as server:
        stub = health_pb2_grpc.HealthStub(server.channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await watch.read()).status == SERVING
        slow = asyncio.create_task(ask(server.channel, "Unary", b"wait"))
        await echo.started.wait()

        server.stop.set()
        assert await slow == b"wait"
        order.append("calls ended")
        await server.done
    assert order == ["drain with serving=False ready=503", "calls ended"]
    assert not exists(config.admin)
    assert not exists(config.listen[0])


async def test_a_watch_of_health_does_not_use_up_the_grace(config: ProcessConfig) -> None:
    loop = asyncio.get_running_loop()
    async with running(config, Echo()) as server:
        stub = health_pb2_grpc.HealthStub(server.channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="unknown"))
        await watch.read()
        before = loop.time()
        server.stop.set()
        await server.done
    assert loop.time() - before < 2


async def test_a_goodbye_that_fails_does_not_keep_it_alive(
    config: ProcessConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    async def on_drain() -> None:
        raise RuntimeError("oops")

    async with running(config, Echo(), on_drain=on_drain):
        pass
    assert "drain_failed" in capsys.readouterr().err


async def test_cancelled_it_ends_at_once_and_cleans_up(config: ProcessConfig) -> None:
    async with running(config, Echo()) as server:
        call = asyncio.create_task(ask(server.channel, "Unary", b"wait"))
        await asyncio.sleep(0)
        server.done.cancel()
        assert isinstance(await failure_of(call), Unavailable)
    assert not exists(config.listen[0])


@pytest.mark.parametrize("which", ["listen", "admin"])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_a_taken_address_is_named(
    config: ProcessConfig, tmp_path: Path, which: str, kind: str
) -> None:
    family = socket.AF_INET if kind == "tcp" else socket.AF_UNIX
    with socket.socket(family) as owner:
        if kind == "tcp":
            # Even if the owner would share it.
            owner.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        owner.bind(("127.0.0.1", 0) if kind == "tcp" else str(tmp_path / "taken"))
        owner.listen()
        name = owner.getsockname()
        taken = f"127.0.0.1:{name[1]}" if kind == "tcp" else f"unix:{name}"
        update = {"listen": (taken,)} if which == "listen" else {"admin": taken}
        with pytest.raises(Refused, match=taken):
            await serve(config.model_copy(update=update), name="test", register=Echo().register)
        # The owner has not noticed anything.
        with socket.socket(family) as client:
            client.connect(name)


async def test_a_path_that_is_no_socket_is_not_removed(
    config: ProcessConfig, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("precious")
    for update in (
        {"listen": (f"unix:{tmp_path}/file",)},
        {"admin": f"unix:{tmp_path}/file"},
        {"listen": (f"unix:{tmp_path}/no/such/folder",)},
    ):
        with pytest.raises(Refused, match=str(tmp_path)):
            await serve(config.model_copy(update=update), name="test", register=Echo().register)
    assert (tmp_path / "file").read_text() == "precious"


def start(*argv: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["event"] == "ready"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_gracefully(number: signal.Signals) -> None:
    with start() as process:
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert [json.loads(line)["event"] for line in err.splitlines()][-1] == "stopped"


def test_the_sockets_of_a_killed_process_are_taken_over(tmp_path: Path) -> None:
    argv = (f"--listen=unix:{tmp_path}/grpc.sock", f"--admin=unix:{tmp_path}/admin.sock")
    with start(*argv) as first:
        first.kill()
    assert stat.S_ISSOCK((tmp_path / "grpc.sock").stat().st_mode)
    with start(*argv) as second:
        second.terminate()
        second.communicate(timeout=20)
    assert second.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_what_fails_on_purpose_is_one_line_and_an_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup():
            raise Refused("the port is taken")

    assert run(main()) == 1
    captured = capsys.readouterr()
    told = captured.err + captured.out
    assert "the port is taken" in told
    assert "Traceback" not in told
