from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaplane.errors import Invalid
from deltaplane.runtime import address
from deltaplane.runtime.address import Tcp, Unix, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:80", Tcp("127.0.0.1", 80)),
        ("localhost:0", Tcp("localhost", 0)),
        ("[fd98::1]:65535", Tcp("fd98::1", 65535)),
        ("unix:/run/x.sock", Unix("/run/x.sock")),
        ("unix:/run/etcd:0", Unix("/run/etcd:0")),
    ],
)
def test_the_three_forms(text: str, expected: object) -> None:
    assert parse(text) == expected
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "80",
        ":80",
        "host",
        "host:",
        "host:65536",
        "host:-1",
        "fd98::1:80",
        "[fd98::1]",
        "a b:1",
        "unix:",
        "unix:relative",
        "unix:/" + "x" * 107,
    ],
)
def test_anything_else_is_refused_with_the_text(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(text)
    assert repr(text) in caught.value.reason


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    with suppress(Invalid):
        assert parse(str(parse(text))) == parse(text)


@pytest.mark.parametrize(
    ("first", "third"),
    [
        ("127.0.0.1:4003", "127.0.0.1:4005"),
        ("[fd00::1]:4003", "[fd00::1]:4005"),
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("unix:/run/x.sock", "unix:/run/x.sock.2"),
    ],
)
def test_processes_beside_each_other(first: str, third: str) -> None:
    where = address.parse(first)
    assert address.beside(where, 0) == where
    assert str(address.beside(where, 2)) == third


def test_no_port_above_the_highest() -> None:
    with pytest.raises(Invalid, match="no port 65536 for process 2"):
        address.beside(address.Tcp("h", 65535), 1)
