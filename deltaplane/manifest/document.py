"""YAML text to plain values, without the parts of YAML that surprise.

Built on parser events: that is the only level at which repeated keys, the line of every value, and
the size of what aliases stand for can be seen. Plain scalars are those of
YAML 1.1, as kubectl reads them, without dates, base 60, and the booleans y and n, which common
writers leave unquoted where they mean text.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import yaml

MAX_BYTES = 4 << 20
"""Size of a file. etcd refuses an object of more than 1.5 MiB, and a manifest holds several."""
MAX_VALUES = 500_000
"""Values in a file, each alias counted as everything that it stands for."""
MAX_DEPTH = 64

Value = str | int | float | bool | None | list["Value"] | dict[str, "Value"]

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"})
_FALSE = frozenset({"no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"})
_INTEGER = re.compile(r"[-+]?(0b[01]+|0o?[0-7]+|0x[0-9a-fA-F]+|[1-9][0-9_]*|0)")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
# Digits of a valid integer field are far fewer; more only cost time to convert.
_MAX_DIGITS = 40
_TAG = "tag:yaml.org,2002:"

_Loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

Report = Callable[[int, int, str, str], None]
"""Takes document number, line, path and reason of a mistake."""


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML document.

    Attributes:
        number: from 1; empty documents count.
        value: its content.
        lines: line of each value by path; what an alias stands for is not in there.
    """

    number: int
    value: Value
    lines: dict[str, int]

    def line(self, path: str) -> int:
        """The line of a path or, when there is none, of the nearest path around it."""
        while path and path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines.get(path, 1)


def child(path: str, key: str) -> str:
    """The path of a field."""
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9]*", key):
        return f"{path}.{key}" if path else key
    return f"{path}[{key}]"


def load(text: str, report: Report) -> list[Document]:
    """Reads all documents that are not empty; a syntax error ends the reading and is reported."""
    if len(text.encode(errors="surrogatepass")) > MAX_BYTES:
        report(1, 1, "", f"the file is larger than {MAX_BYTES >> 20} MiB; split it")
        return []
    documents: list[Document] = []
    builder = _Builder(yaml.parse(text, Loader=_Loader), report)
    try:
        while (document := builder.next_document()) is not None:
            if document.value is not None:
                documents.append(document)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = 1 if mark is None else mark.line + 1
        report(builder.number, line, "", f"this is no YAML: {error.problem or error.context}")
    except yaml.YAMLError as error:
        report(builder.number, 1, "", f"this is no YAML: {str(error).splitlines()[0]}")
    except _TooMuch as error:
        report(builder.number, error.line, error.path, error.reason)
    return documents


class _TooMuch(Exception):
    """The rest of the file is not worth reading."""

    def __init__(self, line: int, path: str, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.path = path
        self.reason = reason


class _Builder:
    """Turns events into documents. number: of the document being read."""

    def __init__(self, events: Iterator[yaml.Event], report: Report) -> None:
        self._events = events
        self._report = report
        self.number = 1
        self._values = 0
        self._lines: dict[str, int] = {}
        # Anchor → value and how many values that is.
        self._anchors: dict[str, tuple[Value, int]] = {}

    def next_document(self) -> Document | None:
        """The next one, or None at the end of the file."""
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._lines, self._anchors = {}, {}
                value = self._value(next(self._events), "", 0)
                document = Document(self.number, value, self._lines)
                # Its end; a syntax error there belongs to this document.
                next(self._events)
                self.number += 1
                return document
        return None

    def _value(self, event: yaml.Event, path: str, depth: int) -> Value:
        line = _line(event)
        self._lines[path] = line
        before = self._values
        self._count(1, line, path)
        if depth > MAX_DEPTH:
            raise _TooMuch(line, path, f"is nested more than {MAX_DEPTH} deep")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, line, path)
        assert isinstance(
            event, yaml.ScalarEvent | yaml.SequenceStartEvent | yaml.MappingStartEvent
        )
        self._check_tag(event, line, path)
        value: Value
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(path, depth)
        else:
            value = self._mapping(path, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, self._values - before)
        return value

    def _sequence(self, path: str, depth: int) -> Value:
        items: list[Value] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._value(event, f"{path}[{len(items)}]", depth + 1))
        return items

    def _mapping(self, path: str, depth: int) -> Value:
        fields: dict[str, Value] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            line = _line(event)
            key = self._key(event, line, path, depth)
            place = child(path, key)
            if key in fields:
                first = self._lines[place]
                self._mistake(line, place, f"is given twice; the first one is on line {first}")
            fields[key] = self._value(next(self._events), place, depth + 1)
            self._lines[place] = line
        return fields

    def _key(self, event: yaml.Event, line: int, path: str, depth: int) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            self._mistake(line, path, "a key must be text")
            self._value(event, path, depth + 1)
            return ""
        if event.value == "<<" and _is_plain(event):
            self._mistake(line, path, 'the merge key "<<" is not supported; write the fields')
        return str(event.value)

    def _alias(self, event: yaml.AliasEvent, line: int, path: str) -> Value:
        if event.anchor not in self._anchors:
            self._mistake(line, path, f"there is no complete value with the anchor &{event.anchor}")
            return None
        value, size = self._anchors[event.anchor]
        self._count(size, line, path)
        return value

    def _check_tag(self, event: yaml.NodeEvent, line: int, path: str) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None and tag not in ("!", f"{_TAG}str", f"{_TAG}map", f"{_TAG}seq"):
            shown = tag.replace(_TAG, "!!")
            self._mistake(line, path, f"the tag {shown} is not supported; leave it out")

    def _count(self, values: int, line: int, path: str) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            raise _TooMuch(line, path, f"the file holds more than {MAX_VALUES} values; split it")

    def _mistake(self, line: int, path: str, reason: str) -> None:
        self._report(self.number, line, path, reason)


def _line(event: yaml.Event) -> int:
    # Only events that a program makes up have no mark.
    assert event.start_mark is not None
    return event.start_mark.line + 1


def _is_plain(event: yaml.ScalarEvent) -> bool:
    return event.style in (None, "") and event.tag is None


def _scalar(event: yaml.ScalarEvent) -> Value:
    text: str = event.value
    if not _is_plain(event):
        return text
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if len(text) <= _MAX_DIGITS and _INTEGER.fullmatch(text):
        # YAML 1.1 and C write octal 017, Python 0o17.
        return int(re.sub(r"^([-+]?)0(?=[0-7])", r"\g<1>0o", text.replace("_", "")), 0)
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text
