"""Reading values out of a document: every method reports what it does not like and goes on."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from deltaplane.manifest.document import Value, child
from deltaplane.manifest.objects import Pairs
from deltaplane.model import names

MAX_ANNOTATION_BYTES = 256 << 10
"""Keys and values of all annotations of an object; the limit of the Kubernetes API."""


_COMPOUND = frozenset({"a mapping", "a list", "nothing"})
"""Kinds of values that quotes do not turn into text."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A value and its place.

    Attributes:
        value: plain value.
        path: its place in the document.
        report: takes the path and reason of a mistake.
        warn: takes those of what is ignored; None: nothing is, it is a mistake.
    """

    value: Value
    path: str
    report: Callable[[str, str], None]
    warn: Callable[[str, str], None] | None = None

    def mistake(self, reason: str, *, field: str = "") -> None:
        """Reports a mistake in the value, or in a field of it."""
        self.report(child(self.path, field) if field else self.path, reason)

    def ignore(self, reason: str, *, field: str = "") -> None:
        """Reports what the API takes and we do nothing with: a mistake, unless there are warnings.

        reason: the end of a sentence that begins with the place.
        """
        tell = self.report if self.warn is None else self.warn
        tell(child(self.path, field) if field else self.path, reason)

    def get(self, name: str) -> "Reader | None":
        """A field; None when it is absent or null, which mean the same to the API."""
        if not isinstance(self.value, dict) or self.value.get(name) is None:
            return None
        return Reader(self.value[name], child(self.path, name), self.report, self.warn)

    def require(self, name: str) -> "Reader | None":
        """A field that has to be there."""
        found = self.get(name)
        if found is None and isinstance(self.value, dict):
            self.mistake("is required", field=name)
        return found

    def has_fields(self, known: Collection[str]) -> bool:
        """Whether the value is a mapping; reports fields that are not known."""
        if not isinstance(self.value, dict):
            self._wrong_type("a mapping")
            return False
        for name in self.value:
            if name not in known:
                self.ignore(f"unknown field; {_advice(name, known)}", field=name)
        return True

    def refuse(self, reasons: Mapping[str, str]) -> None:
        """Reports fields that the API has and we do not. reasons: by name of the field."""
        for name, reason in reasons.items():
            if found := self.get(name):
                found.mistake(f"is not supported: {reason}")

    def items(self) -> "list[Reader]":
        """The items of a list; [] when it is none."""
        if not isinstance(self.value, list):
            self._wrong_type("a list")
            return []
        readers = []
        for index, item in enumerate(self.value):
            reader = Reader(item, f"{self.path}[{index}]", self.report, self.warn)
            if item is None:
                reader.mistake("is empty; write {} if an empty object is meant, or remove it")
            else:
                readers.append(reader)
        return readers

    def text(self, mistake: Callable[[str], str | None] | None = None) -> str | None:
        """Text that a check accepts, or None."""
        if not isinstance(self.value, str):
            self._wrong_type("text")
            return None
        reason = mistake(self.value) if mistake else None
        if reason is not None:
            self.mistake(f'"{self.value}" {reason}')
            return None
        return self.value

    def choice(self, options: Collection[str]) -> str | None:
        """One of some words, or None."""
        word = self.text()
        if word is not None and word not in options:
            self.mistake(f'"{word}" is not supported; supported are {", ".join(options)}')
            return None
        return word

    def integer(self, first: int, last: int) -> int | None:
        """An integer in first..last, or None."""
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            self._wrong_type("an integer")
            return None
        if not first <= self.value <= last:
            self.mistake(f"{self.value} is not between {first} and {last}, inclusive")
            return None
        return self.value

    def boolean(self) -> bool | None:
        """True or false, or None."""
        if not isinstance(self.value, bool):
            self._wrong_type("true or false")
            return None
        return self.value

    def labels(self, key_mistake: Callable[[str], str | None] = names.label_key_mistake) -> Pairs:
        """Labels, but for those that are not valid."""
        return self._pairs(key_mistake, names.label_value_mistake)

    def annotations(self) -> Pairs:
        """Annotations, but for those that are not valid."""
        # Their keys follow the same rule, but the API does not care about case.
        pairs = self._pairs(lambda key: names.label_key_mistake(key.lower()), lambda _: None)
        size = sum(len(key.encode()) + len(value.encode()) for key, value in pairs)
        if size > MAX_ANNOTATION_BYTES:
            self.mistake(f"has {size} bytes; at most {MAX_ANNOTATION_BYTES} are accepted")
        return pairs

    def _pairs(
        self, key_mistake: Callable[[str], str | None], value_mistake: Callable[[str], str | None]
    ) -> Pairs:
        if not isinstance(self.value, dict):
            self._wrong_type("a mapping of text to text")
            return ()
        pairs: dict[str, str] = {}
        for key, value in self.value.items():
            reader = Reader(value, child(self.path, key), self.report)
            reason = key_mistake(key)
            if reason is not None:
                reader.mistake(f'"{key}" {reason}')
            text = reader.text(value_mistake)
            if reason is None and text is not None:
                pairs[key] = text
        return tuple(sorted(pairs.items()))

    def _wrong_type(self, wanted: str) -> None:
        given = {dict: "a mapping", list: "a list", bool: "true or false", str: "text"}
        kind = given.get(type(self.value), "nothing" if self.value is None else "a number")
        advice = "; put it in quotes" if wanted == "text" and kind not in _COMPOUND else ""
        self.mistake(f"must be {wanted}, not {kind}{advice}")


def _advice(name: str, known: Collection[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f'did you mean "{close[0]}"?' if close else f"known here are {', '.join(sorted(known))}"
