from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaplane.errors import Invalid
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
