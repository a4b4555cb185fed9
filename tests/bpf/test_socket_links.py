"""Programs of sockets on cgroups: that they stay, are replaced without a gap, and go."""

import ctypes
import errno
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from nodeagent.dataplane import cgroups, libbpf
from nodeagent.dataplane.config import DataPlaneConfig
from nodeagent.dataplane.kernel import KernelDataPlane
from tests.bpf.conftest import SMALL
from tests.bpf.sockets import KINDS, PORT, TCP, UDP, Services, cgroup, member_of, namespace

NAME = f"dpt{os.getpid()}-link"
KIND = KINDS["ipv4"]


@pytest.fixture(scope="module")
def pins(private_bpffs: Path) -> Path:
    return private_bpffs / "shared"


@pytest.fixture
def services(shared_plane: KernelDataPlane, pins: Path) -> Iterator[Services]:
    with namespace(NAME) as name:
        services = Services(shared_plane, name)
        services.reset()
        yield services
        services.reset()
        cgroups.detach(pins)


@pytest.fixture
def folder() -> Iterator[Path]:
    with cgroup(NAME) as made:
        yield made


def links(pins: Path) -> dict[str, tuple[int, int]]:
    """Program → (number of the link, number of the program)."""
    found = {}
    for pin in (pins / cgroups.FOLDER).iterdir():
        fd = libbpf.call("bpf_obj_get", os.fsencode(pin))
        info, length = cgroups._Info(), ctypes.c_uint32(ctypes.sizeof(cgroups._Info))
        libbpf.call("bpf_obj_get_info_by_fd", fd, ctypes.byref(info), ctypes.byref(length))
        os.close(fd)
        found[pin.name] = (info.id, info.prog_id)
    return found


def test_new_program_takes_the_place_in_the_link(
    services: Services, pins: Path, folder: Path
) -> None:
    services.plane.attach_sockets(folder)
    before = links(pins)
    assert before.keys() == cgroups.KINDS.keys()
    other = KernelDataPlane(pins, config=DataPlaneConfig(), capacities=SMALL)
    other.attach_sockets(folder)
    other.close()
    after = links(pins)
    assert [link for link, _ in after.values()] == [link for link, _ in before.values()]
    assert not {program for _, program in after.values()} & {p for _, p in before.values()}


def test_programs_outlive_the_agent(services: Services, pins: Path, folder: Path) -> None:
    other = KernelDataPlane(pins, config=DataPlaneConfig(), capacities=SMALL)
    other.attach_sockets(folder)
    other.close()
    services.servers(KIND, TCP)
    services.publish(KIND, TCP, (0,))
    with member_of(folder):
        client = services.connected(KIND, TCP, (KIND.service, PORT))
    assert client.getpeername() == (KIND.service, PORT)


def test_without_a_better_word_a_refusal_is_the_kernels(services: Services, folder: Path) -> None:
    services.plane.attach_sockets(folder)
    services.publish(KIND, UDP, ())
    with member_of(folder), pytest.raises(PermissionError):
        services.open(KIND.family, UDP).sendto(b"?", (KIND.service, PORT))


def test_another_cgroup_takes_the_programs(services: Services, pins: Path, folder: Path) -> None:
    services.plane.attach_sockets(folder)
    before = links(pins)
    services.publish(KIND, UDP, ())
    with cgroup(f"{NAME}-other") as other:
        services.plane.attach_sockets(other)
        assert not {link for link, _ in links(pins).values()} & {
            link for link, _ in before.values()
        }
        with member_of(other), pytest.raises(PermissionError):
            services.open(KIND.family, UDP).sendto(b"?", (KIND.service, PORT))
        with member_of(folder):
            services.open(KIND.family, UDP).sendto(b"?", (KIND.service, PORT))


def test_cgroup_that_was_made_anew_is_another(services: Services) -> None:
    with cgroup(NAME) as folder:
        services.plane.attach_sockets(folder)
    services.publish(KIND, UDP, ())
    with cgroup(NAME) as folder:
        services.plane.attach_sockets(folder)
        with member_of(folder), pytest.raises(PermissionError):
            services.open(KIND.family, UDP).sendto(b"?", (KIND.service, PORT))


def test_detached_programs_do_nothing_more(services: Services, pins: Path, folder: Path) -> None:
    services.plane.attach_sockets(folder)
    services.publish(KIND, UDP, ())
    assert cgroups.detach(pins)
    assert not cgroups.detach(pins)
    with member_of(folder):
        services.open(KIND.family, UDP).sendto(b"?", (KIND.service, PORT))


def test_what_is_no_cgroup_is_an_error(services: Services, tmp_path: Path, pins: Path) -> None:
    with pytest.raises(OSError, match="sock_connect4") as caught:
        services.plane.attach_sockets(tmp_path)
    assert caught.value.errno == errno.EBADF
    with pytest.raises(FileNotFoundError):
        services.plane.attach_sockets(tmp_path / "nothing")
    assert not list((pins / cgroups.FOLDER).iterdir())


def test_no_connection_is_lost_while_programs_are_replaced(
    services: Services, pins: Path, folder: Path
) -> None:
    services.plane.attach_sockets(folder)
    servers = services.servers(KIND, TCP)
    services.publish(KIND, TCP, (0, 1, 2, 3))
    stop, failed, made = threading.Event(), list[object](), 0

    def accept(server: socket.socket) -> None:
        while not stop.is_set():
            try:
                server.accept()[0].close()
            except TimeoutError:
                continue

    def replace() -> None:
        planes = [
            services.plane,
            KernelDataPlane(pins, config=DataPlaneConfig(), capacities=SMALL),
        ]
        for turn in range(40):
            planes[turn % 2].attach_sockets(folder)
        planes[1].close()
        stop.set()

    with ExitStack() as stack:
        stack.enter_context(member_of(folder))
        threads = [threading.Thread(target=accept, args=(server,)) for server in servers]
        threads.append(threading.Thread(target=replace))
        for thread in threads:
            thread.start()
            stack.callback(thread.join)
        stack.callback(stop.set)
        while not stop.is_set():
            with services.open(KIND.family, TCP) as client:
                client.connect((KIND.service, PORT))
                if client.getpeername() != (KIND.service, PORT):
                    failed.append(client.getpeername())
            services.made.remove(client)
            made += 1
    assert not failed
    assert made > 40
