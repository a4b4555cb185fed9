import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaplane.runtime import trace

EXAMPLE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_the_example_of_the_specification() -> None:
    parsed = trace.parse(EXAMPLE)
    assert parsed is not None
    assert parsed.trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert parsed.span_id == "b7ad6b7169203331"
    assert parsed.sampled
    assert str(parsed) == EXAMPLE


@given(st.booleans())
def test_what_is_made_can_be_read(sampled: bool) -> None:
    made = trace.make(sampled=sampled)
    assert trace.parse(str(made)) == made
    child = made.child()
    assert (child.trace_id, child.sampled) == (made.trace_id, sampled)
    assert child.span_id != made.span_id


@pytest.mark.parametrize(
    "text",
    [
        "",
        EXAMPLE.upper(),
        EXAMPLE + "-more",
        EXAMPLE[:-1],
        "ff" + EXAMPLE[2:],
        EXAMPLE.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32),
        EXAMPLE.replace("b7ad6b7169203331", "0" * 16),
    ],
)
def test_what_is_none_is_no_error(text: str) -> None:
    assert trace.parse(text) is None


def test_a_later_version_may_say_more() -> None:
    parsed = trace.parse("01" + EXAMPLE[2:] + "-more")
    assert parsed is not None
    assert parsed.sampled
