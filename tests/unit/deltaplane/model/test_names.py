"""The syntax of names: what Kubernetes accepts and what it refuses."""

from collections.abc import Callable

import pytest

from deltaplane.model import names

Check = Callable[[str], str | None]


@pytest.mark.parametrize(
    ("check", "fine", "wrong"),
    [
        (
            names.dns_label_mistake,
            ("a", "a-b", "0", "a" * 63),
            ("", "-a", "a-", "A", "a.b", "a" * 64),
        ),
        (
            names.dns_subdomain_mistake,
            ("a", "a.b-c.0", ".".join(["a" * 62] * 4)),
            ("", ".a", "a.", "a..b", "a.-b", "A.b", "a\n", "a." * 126 + "ab"),
        ),
        (
            names.label_key_mistake,
            ("a", "A_b.c-d", "example.com/a", "a" * 63),
            ("", "/a", "a/", "a/b/c", "-a", "a b", "Example.com/a", "a" * 64, "é"),
        ),
        (
            names.label_value_mistake,
            ("", "a", "A_b.c-1"),
            ("-", "a-", "a b", "a/b", "a" * 64, "a\n"),
        ),
        (
            names.port_name_mistake,
            ("http", "a", "p-80-tcp", "a" * 15),
            ("", "80", "a--b", "-a", "a-", "Http", "a" * 16),
        ),
    ],
)
def test_a_check(check: Check, fine: tuple[str, ...], wrong: tuple[str, ...]) -> None:
    assert [text for text in fine if check(text) is not None] == []
    assert [text for text in wrong if check(text) is None] == []
