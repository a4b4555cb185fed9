import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from deltaplane.errors import Internal
from lab import netns
from tests.e2e.conftest import fresh_name


@pytest.fixture
def name() -> Iterator[str]:
    chosen = f"dp-{fresh_name()}-x"
    yield chosen
    netns.delete(chosen)


def here() -> int:
    return Path("/proc/thread-self/ns/net").stat().st_ino


def test_what_is_opened_inside_stays_inside_and_the_thread_comes_back(name: str) -> None:
    home = here()
    netns.create(name)

    with netns.entered(name):
        assert here() == netns.path(name).stat().st_ino != home
    assert here() == home
    with pytest.raises(RuntimeError), netns.entered(name):
        raise RuntimeError
    assert here() == home


def test_a_name_is_given_once_and_deleting_twice_is_fine(name: str) -> None:
    netns.create(name)
    assert name in netns.names()
    with pytest.raises(FileExistsError):
        netns.create(name)

    netns.delete(name)
    netns.delete(name)

    assert name not in netns.names()


def test_the_file_of_a_creation_that_was_cut_short_is_removed(name: str) -> None:
    netns.path(name).touch()

    netns.delete(name)

    assert not netns.path(name).exists()


def test_entering_what_is_not_there_changes_nothing(name: str) -> None:
    home = here()
    with pytest.raises(OSError, match="No such file") as caught, netns.entered(name):
        pass
    assert caught.value.errno == errno.ENOENT
    assert here() == home


def test_settings_and_links_go_into_the_namespace_only(name: str) -> None:
    netns.create(name)
    before = Path("/proc/sys/net/ipv6/conf/default/accept_dad").read_text()

    netns.write_sysctls(name, [("net/ipv6/conf/default/accept_dad", "0")])
    netns.ip_batch(name, ["link add probe0 type bridge", "link set probe0 up"])

    with netns.entered(name):
        assert Path("/proc/sys/net/ipv6/conf/default/accept_dad").read_text() == "0\n"
        assert Path("/proc/sys/net/ipv4/conf/probe0").exists()
    assert Path("/proc/sys/net/ipv6/conf/default/accept_dad").read_text() == before
    assert not Path("/proc/sys/net/ipv4/conf/probe0").exists()


def test_a_command_that_ip_refuses_is_told_in_its_words(name: str) -> None:
    netns.create(name)

    with pytest.raises(Internal, match=f"ip in {name}: .*nonsense"):
        netns.ip_batch(name, ["link set nonsense up"])
