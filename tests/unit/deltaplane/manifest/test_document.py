"""YAML without surprises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaplane.manifest.document import MAX_BYTES, MAX_DEPTH, Document, load


def read(text: str) -> tuple[list[Document], list[tuple[int, int, str, str]]]:
    mistakes: list[tuple[int, int, str, str]] = []
    documents = load(text, lambda *mistake: mistakes.append(mistake))
    return documents, mistakes


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("80", 80),
        ("'80'", "80"),
        ("!!str 80", "80"),
        ("017", 15),
        ("0o17", 15),
        ("0x1f", 31),
        ("1_000", 1000),
        ("08", 8.0),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("yes", True),
        ("Off", False),
        ("y", "y"),
        ("n", "n"),
        ("~", None),
        ("2024-01-01", "2024-01-01"),
        ("12:30:45", "12:30:45"),
        ("1.2.3", "1.2.3"),
        ("9" * 5000, float("inf")),
    ],
)
def test_a_plain_scalar(text: str, value: object) -> None:
    documents, mistakes = read(f"a: {text}\n")
    assert mistakes == []
    content = documents[0].value
    assert isinstance(content, dict)
    assert content["a"] == value
    assert type(content["a"]) is type(value)


@pytest.mark.parametrize(
    ("text", "line", "path", "reason"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "a", "given twice; the first one is on line 1"),
        ("a:\n  b: 1\n  b: 1\n", 3, "a.b", "given twice"),
        ("a: !!binary aGk=\n", 1, "a", "the tag !!binary is not supported"),
        ("a: !mine {}\n", 1, "a", "the tag !mine is not supported"),
        ("a: *b\n", 1, "a", "no complete value with the anchor &b"),
        ("a: &b [*b]\n", 1, "a[0]", "no complete value with the anchor &b"),
        ("a: &b {c: 1}\nd:\n  <<: *b\n", 3, "d", "merge key"),
        ("? [a]\n: 1\n", 1, "", "a key must be text"),
        ("a: [1\n", 2, "", "this is no YAML"),
        ("a: 'b\n", 2, "", "this is no YAML"),
        ("a: \x07\n", 1, "", "this is no YAML"),
        ("a: " + "[" * (MAX_DEPTH + 2), 1, "a" + "[0]" * MAX_DEPTH, "nested more than"),
        (" " * (MAX_BYTES + 1), 1, "", "larger than 4 MiB"),
    ],
)
def test_a_mistake(text: str, line: int, path: str, reason: str) -> None:
    _, mistakes = read(text)
    assert [(mistake[1], mistake[2]) for mistake in mistakes] == [(line, path)]
    assert reason in mistakes[0][3]


def test_an_alias_stands_for_its_value() -> None:
    documents, mistakes = read("a: &x {b: 1}\nc: *x\n")
    assert mistakes == []
    assert documents[0].value == {"a": {"b": 1}, "c": {"b": 1}}


def test_aliases_that_multiply_are_stopped_before_they_do() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    _, mistakes = read("\n".join(lines))
    assert len(mistakes) == 1
    assert "more than 500000 values" in mistakes[0][3]


def test_a_syntax_error_names_its_document_and_keeps_those_before() -> None:
    documents, mistakes = read("a: 1\n---\nb: [\n")
    assert [document.value for document in documents] == [{"a": 1}]
    assert [mistake[0] for mistake in mistakes] == [2]


def test_empty_documents_are_counted_and_left_out() -> None:
    documents, _ = read("---\n---\na: 1\n")
    assert [document.number for document in documents] == [2]


def test_the_line_of_an_unknown_path_is_the_one_around_it() -> None:
    documents, _ = read("a:\n  b:\n  - c: 1\n")
    assert documents[0].line("a.b[0].c") == 3
    assert documents[0].line("a.b[0].missing.deeper[3]") == 3
    assert documents[0].line("elsewhere") == 1


@given(st.text(alphabet="ab:-[]{},&*!|>'\"#%? \n\t01", max_size=60))
def test_no_text_brings_it_down(text: str) -> None:
    documents, mistakes = read(text)
    assert all(mistake[3] for mistake in mistakes)
    assert all(document.value is not None for document in documents)
