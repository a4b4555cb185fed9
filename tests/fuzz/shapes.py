"""Protobuf messages of decisions: any fields, with the values that boundaries are made of. Pure."""

from collections.abc import Callable
from typing import Any, TypeAlias

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tests.fuzz.draw import Draw

DEEPEST = 7

TEXTS = (
    *("node-1", "node-2", "shop", "default", "web", "pods-ipv4", "uid-1", "uid-2", "request-1"),
    *("", "a" * 63, "a" * 64, "a" * 254, "A", "-", ".", "a/b", "a..b", "é", "\0", "\n", " "),
    *("10.244.0.0/16", "0.0.0.0/0", "::/0", "fd00::1", "256.1.1.1", "http", "NetworkPolicy"),
    *("shop/web", "AdminNetworkPolicy:one", "app", "kubernetes.io/metadata.name", "In", "Exists"),
    *("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",),
)
BYTES = (
    *(b"", b"\0", bytes(4), bytes(16), b"\xff" * 4, b"\xff" * 16, bytes(15), bytes(17)),
    *(bytes((10, 244, 0, 5)), bytes((10, 244, 0, 0)), bytes.fromhex("fd00" + "00" * 13 + "05")),
    *(bytes(10) + b"\xff\xff" + bytes((10, 244, 0, 5)), bytes(range(16)), b"uid-1", b"a" * 300),
)
NUMBERS = (0, 1, 2, 3, 26, 32, 64, 80, 122, 128, 129, 255, 256, 65535, 65536, 1 << 31, 1 << 63)

F = FieldDescriptor
Field: TypeAlias = Any
"""A FieldDescriptor: the stubs know two classes of that name, neither with all attributes."""

_SIGNED = {F.TYPE_INT32: 32, F.TYPE_SINT32: 32, F.TYPE_SFIXED32: 32}
_SIGNED |= {F.TYPE_INT64: 64, F.TYPE_SINT64: 64, F.TYPE_SFIXED64: 64}
_UNSIGNED = {F.TYPE_UINT32: 32, F.TYPE_FIXED32: 32, F.TYPE_UINT64: 64, F.TYPE_FIXED64: 64}


def fill(message: Message, draw: Draw, depth: int = 0) -> None:
    """Sets fields of a message."""
    for field in message.DESCRIPTOR.fields:
        # Most fields are set: a message that lacks one is refused for that alone.
        if not draw.is_empty and draw.below(4):
            _fill_field(message, field, draw, depth)


def _fill_field(message: Message, field: Field, draw: Draw, depth: int) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        _fill_map(message, field, draw)
    elif field.label == F.LABEL_REPEATED:
        _fill_repeated(message, field, draw, depth)
    elif field.type == F.TYPE_MESSAGE:
        if depth < DEEPEST:
            inner = getattr(message, field.name)
            inner.SetInParent()
            fill(inner, draw, depth + 1)
    else:
        setattr(message, field.name, _scalar(field, draw))


def _fill_repeated(message: Message, field: Field, draw: Draw, depth: int) -> None:
    values = getattr(message, field.name)
    for _ in range(draw.pick((1, 1, 2, 3))):
        if field.type != F.TYPE_MESSAGE:
            values.append(_scalar(field, draw))
        elif depth < DEEPEST:
            fill(values.add(), draw, depth + 1)


def _fill_map(message: Message, field: Field, draw: Draw) -> None:
    assert field.message_type is not None
    entry = field.message_type.fields_by_name
    values = getattr(message, field.name)
    for _ in range(draw.pick((1, 1, 2))):
        key = _scalar(entry["key"], draw)
        if entry["value"].type != F.TYPE_MESSAGE:
            values[key] = _scalar(entry["value"], draw)


def _scalar(field: Field, draw: Draw) -> Any:
    kind = field.type
    if kind == F.TYPE_STRING:
        return draw.pick(TEXTS) if not draw.one_in(8) else draw.take(9).decode(errors="replace")
    if kind == F.TYPE_BYTES:
        return draw.pick(BYTES) if not draw.one_in(8) else draw.take(draw.below(20))
    if kind == F.TYPE_BOOL:
        return draw.one_in(2)
    if kind == F.TYPE_ENUM:
        assert field.enum_type is not None
        return draw.pick([*(value.number for value in field.enum_type.values), 99])
    if kind in (F.TYPE_DOUBLE, F.TYPE_FLOAT):
        return draw.pick((0.0, -1.0, 1e308, float("nan"), float("inf")))
    number = draw.pick(NUMBERS) if not draw.one_in(8) else int.from_bytes(draw.take(8))
    if kind in _SIGNED:
        bits = _SIGNED[kind]
        number %= 1 << bits
        return number - (1 << bits) if number >> (bits - 1) else number
    return number % (1 << _UNSIGNED[kind])


def change(message: Message, draw: Draw) -> None:
    """Changes one place of a message: a field that is set, at any depth, or one that is not."""
    there: list[Field] = [field for field, _ in message.ListFields()]
    if not there or draw.below(6) == 0:
        _refill(message, draw.pick(message.DESCRIPTOR.fields), draw)
        return
    field = draw.pick(there)
    is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
    if field.type != F.TYPE_MESSAGE or is_map or draw.below(8) == 0:
        _refill(message, field, draw)
    elif field.label == F.LABEL_REPEATED:
        values = getattr(message, field.name)
        if draw.below(6) == 0:
            values.add().CopyFrom(values[0])
        change(values[draw.below(len(values))], draw)
    else:
        change(getattr(message, field.name), draw)


def _refill(message: Message, field: Field, draw: Draw) -> None:
    message.ClearField(field.name)
    if draw.below(5):
        _fill_field(message, field, draw, 0)


def made(cls: Callable[[], Message], draw: Draw) -> Message:
    """A message of a class."""
    message = cls()
    fill(message, draw)
    return message
