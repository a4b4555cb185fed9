"""YAML manifests, as text and as documents with something changed in them."""

import contextlib
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from deltaplane import manifest
from deltaplane.manifest import ManifestError
from tests.fuzz.draw import Draw

ROOT = Path(__file__).parents[2]
FILES = ("examples/*.yaml", "docs/tutorial/*.yaml", "tests/fuzz/objects.yaml")
"""The last one has one object of every kind, with most of its fields."""
LARGEST = 6000
"""Bytes of a seed: a long one changes too little at a time."""

STRANGE: tuple[Any, ...] = (
    *(None, True, 0, -1, 65536, 1 << 70, 1.5, float("inf"), "", "a", "A", "é", "\0", "a" * 300),
    *("0.0.0.0/0", "::/0", "1.2.3.4/33", "*", "In", "Exists", "TCP", [], {}, [None], {"a": None}),
    *({"matchLabels": {"a": "b"}}, [{}], {1: 2}, "2020-01-01", b"x"),
)
WORDS = (
    *(b"&a ", b"*a", b"<<: ", b"!!binary ", b"!!python/object:os.system ", b"? ", b"---\n", b"..."),
    *(
        b"|\n",
        b">\n",
        b"{",
        b"}",
        b"[",
        b"]",
        b": ",
        b"- ",
        b"\t",
        b"\xff",
        b"\x85",
        b"%YAML 9.9\n",
    ),
    *(
        b"kind: ",
        b"spec: ",
        b"null",
        b"~",
        b"0x10",
        b"1e400",
        b".inf",
        b"2001-01-01",
        b"\xef\xbb\xbf",
    ),
)


class ManifestsTarget:
    """First byte: whether the rest is text, or decisions about what to change in a seed."""

    def __init__(self) -> None:
        self._texts = texts()
        self._documents = [yaml.safe_load(text) for text in self._texts]

    def seeds(self) -> Sequence[bytes]:
        """Every document as text, and decisions about each."""
        decisions = [
            bytes((1, number % 256, number * 7 % 256, number % 11))
            for number in range(len(self._documents))
        ]
        return [*(b"\0" + text for text in self._texts), *decisions]

    def words(self) -> Sequence[bytes]:
        """Of YAML."""
        return WORDS

    def feed(self, data: bytes) -> None:
        """One text."""
        if not data:
            return
        if data[0] % 2 == 0:
            text = data[1:].decode(errors="replace")
        else:
            text = self._changed(Draw(data[1:]))
        for read in (manifest.parse, manifest.observe):
            with contextlib.suppress(ManifestError):
                read(text, "fuzz")

    def _changed(self, draw: Draw) -> str:
        document = yaml.safe_load(yaml.safe_dump(draw.pick(self._documents)))
        for _ in range(1 + draw.below(4)):
            found = list(places(document))
            if found:
                holder, key = draw.pick(found)
                holder[key] = deepcopy(draw.pick(STRANGE))
        return yaml.safe_dump(document, allow_unicode=True)

    def close(self) -> None:
        """Nothing to let go of."""


def texts() -> list[bytes]:
    """Sound documents of all kinds."""
    return [
        document.encode()
        for pattern in FILES
        for file in sorted(ROOT.glob(pattern))
        for document in file.read_text().split("\n---\n")
        if len(document) <= LARGEST
    ]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (holder, key or index) of a document."""
    items: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(value, dict):
        items = iter(list(value.items()))
    elif isinstance(value, list):
        items = iter(list(enumerate(value)))
    for key, inner in items:
        yield value, key
        yield from places(inner)
