"""Queries of DNS and their answers, in bytes (RFC 1035, 2308, 2782, 3596, 6891). Pure.

Whatever comes, `answer` returns an answer or, where none is due, None.
"""

import enum
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from deltaplane.model.addresses import parse_address

Name = tuple[bytes, ...]
"""Labels in lower case, the root's left out."""

TTL_SECONDS = 5
"""As CoreDNS' plugin for Kubernetes has it; also for how long a "no" may be remembered."""

PLAIN_UDP_BYTES = 512
LARGEST_UDP_BYTES = 1232
"""What passes everywhere in one packet (dnsflagday.net/2020)."""
LARGEST_TCP_BYTES = 65535

MAX_NAME_BYTES = 255
MAX_LABEL_BYTES = 63
MAX_ALIASES = 8
"""CNAMEs that are followed."""

IN, ANY_CLASS = 1, 255
# Bits of the header's second word.
QR, AA, TC, RD = 0x8000, 0x0400, 0x0200, 0x0100
OPCODE = 0x7800
_HEADER = struct.Struct(">6H")
_SOA_NUMBERS = struct.Struct(">5I")


class Type(enum.IntEnum):
    """Types of records that there are here."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    TXT = 16
    AAAA = 28
    SRV = 33
    OPT = 41
    ANY = 255


class Code(enum.IntEnum):
    """Response codes."""

    NOERROR = 0
    FORMERR = 1
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


class Malformed(Exception):
    """A message that cannot be read."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record: its name, type, and data as it travels."""

    name: Name
    type: Type
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A question.

    Attributes:
        id: the client's.
        flags: second word of its header.
        question: as it came, to be sent back: clients check even its upper and lower case.
        name: what is asked for.
        type: 0..65535, maybe one of Type.
        class_: 1: the Internet.
        udp_bytes: largest UDP answer that the client takes; None: it knows no EDNS.
        edns_version: 0 is the only one.
    """

    id: int
    flags: int
    question: bytes
    name: Name
    type: int
    class_: int
    udp_bytes: int | None = None
    edns_version: int = 0


# --- names ---------------------------------------------------------------------------------------


def parse_name(text: str) -> Name:
    """Labels of a dotted name.

    Raises:
        ValueError: a label or the name is too long or empty.
    """
    labels = tuple(label.encode().lower() for label in text.rstrip(".").split("."))
    long = any(not 1 <= len(label) <= MAX_LABEL_BYTES for label in labels)
    if long or len(encode_name(labels)) > MAX_NAME_BYTES:
        message = f"{text!r} is no domain name"
        raise ValueError(message)
    return labels


def encode_name(name: Name) -> bytes:
    """A name as it travels, uncompressed."""
    return b"".join(bytes([len(label)]) + label for label in name) + b"\0"


def read_name(data: bytes, offset: int) -> tuple[Name, int]:
    """The name at an offset, lower case, and where it ends.

    Raises:
        Malformed: it runs out of the message, is too long, or points forward.
    """
    labels: list[bytes] = []
    end = 0
    size = 1
    while True:
        if offset >= len(data):
            raise Malformed
        length = data[offset]
        if length >= 0xC0:
            if offset + 1 >= len(data):
                raise Malformed
            target = (length & 0x3F) << 8 | data[offset + 1]
            end = end or offset + 2
            # Only backwards: so it ends.
            if target >= offset:
                raise Malformed
            offset = target
            continue
        if length > MAX_LABEL_BYTES:
            raise Malformed
        size += length + 1
        if size > MAX_NAME_BYTES or offset + 1 + length > len(data):
            raise Malformed
        offset += 1 + length
        if not length:
            return tuple(labels), end or offset
        labels.append(data[offset - length : offset].lower())


# --- the zone ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Zone:
    """What there is to answer.

    Attributes:
        origins: names below which all is known; the first is that of the authority's own name.
        records: name → type → data.
        names: every name that exists, also those with names below them only.
    """

    origins: tuple[Name, ...]
    records: Mapping[Name, Mapping[Type, tuple[bytes, ...]]]
    names: frozenset[Name] = field(default=frozenset())

    @classmethod
    def of(cls, origins: Iterable[str], texts: Mapping[str, Mapping[str, Iterable[str]]]) -> "Zone":
        """Makes a zone of records as text: name → type → values ("0 100 80 a.b" for SRV).

        Raises:
            ValueError: a name, an address or a number is none.
        """
        tops = tuple(map(parse_name, origins))
        records = {
            parse_name(name): {
                Type[word]: tuple(_data(Type[word], value) for value in values)
                for word, values in by_type.items()
            }
            for name, by_type in texts.items()
        }
        ways = {name[start:] for name in records for start in range(len(name))}
        inside = {name for name in ways if any(_is_below(name, top) for top in tops)}
        return cls(tops, records, frozenset(inside | set(tops)))

    def origin(self, name: Name) -> Name | None:
        """The origin that a name is below; None: it is somebody else's."""
        return next((top for top in self.origins if _is_below(name, top)), None)


def _is_below(name: Name, top: Name) -> bool:
    return name[len(name) - len(top) :] == top if len(name) >= len(top) else False


def _data(kind: Type, text: str) -> bytes:
    match kind:
        case Type.A | Type.AAAA:
            return parse_address(text)
        case Type.TXT:
            return bytes([len(text.encode())]) + text.encode()
        case Type.SRV:
            priority, weight, port, target = text.split()
            numbers = struct.pack(">3H", int(priority), int(weight), int(port))
            return numbers + encode_name(parse_name(target))
        case _:
            return encode_name(parse_name(text))


# --- queries and answers -------------------------------------------------------------------------


def parse_query(data: bytes) -> Query:
    """Reads a query.

    Raises:
        Malformed: it is none with exactly one question, or it is cut off.
    """
    if len(data) < _HEADER.size:
        raise Malformed
    number, flags, questions, *others = _HEADER.unpack_from(data)
    if questions != 1:
        raise Malformed
    name, end = read_name(data, _HEADER.size)
    if end + 4 > len(data):
        raise Malformed
    if end - _HEADER.size != len(encode_name(name)):
        # It is sent back as it came, and what it points to, the header or more behind it, is not.
        raise Malformed
    kind, class_ = struct.unpack_from(">2H", data, end)
    offset = end + 4
    question = data[_HEADER.size : offset]
    udp_bytes, version = None, 0
    for _ in range(sum(others)):
        _, start = read_name(data, offset)
        if start + 10 > len(data):
            raise Malformed
        of, size, ttl, length = struct.unpack_from(">HHIH", data, start)
        offset = start + 10 + length
        if offset > len(data):
            raise Malformed
        if of == Type.OPT:
            udp_bytes, version = max(size, PLAIN_UDP_BYTES), ttl >> 16 & 0xFF
    return Query(
        id=number,
        flags=flags,
        question=question,
        name=name,
        type=kind,
        class_=class_,
        udp_bytes=udp_bytes,
        edns_version=version,
    )


def answer(data: bytes, zone: Zone, *, tcp: bool = False) -> bytes | None:
    """Answers a message; None: it is no query, or too short to be answered.

    Over UDP an answer that is too long for the client is cut, and says so: it asks again over TCP.
    """
    if len(data) < _HEADER.size or data[2] & 0x80:
        return None
    number, flags = struct.unpack_from(">2H", data)
    if flags & OPCODE:
        return _HEADER.pack(number, _flags(flags, Code.NOTIMP), 0, 0, 0, 0)
    try:
        query = parse_query(data)
    except Malformed:
        return _HEADER.pack(number, _flags(flags, Code.FORMERR), 0, 0, 0, 0)
    if query.edns_version:
        return _reply(query, Code.BADVERS, (), (), LARGEST_UDP_BYTES)
    limit = LARGEST_TCP_BYTES
    if not tcp:
        limit = min(query.udp_bytes or PLAIN_UDP_BYTES, LARGEST_UDP_BYTES)
    code, found, authority = resolve(query, zone)
    return _reply(query, code, found, authority, limit)


def resolve(query: Query, zone: Zone) -> tuple[Code, list[Record], list[Record]]:
    """Response code, answers, and the authority where there is no answer."""
    origin = zone.origin(query.name)
    if origin is None or query.class_ not in (IN, ANY_CLASS):
        return Code.REFUSED, [], []
    found: list[Record] = []
    name = query.name
    for _ in range(MAX_ALIASES):
        known = zone.records.get(name, {})
        found += [
            Record(name, kind, data)
            for kind, values in known.items()
            if query.type in (kind, Type.ANY)
            for data in values
        ]
        alias = known.get(Type.CNAME)
        if alias is None or query.type in (Type.CNAME, Type.ANY):
            break
        found.append(Record(name, Type.CNAME, alias[0]))
        name, _ = read_name(alias[0], 0)
        if zone.origin(name) is None:
            # Somebody else's: the client asks who knows.
            return Code.NOERROR, found, []
    origin = zone.origin(name) or origin
    if query.type == Type.SOA and name in zone.origins:
        return Code.NOERROR, [*found, _authority(zone, name)], []
    if any(query.type in (record.type, Type.ANY) for record in found):
        return Code.NOERROR, found, []
    code = Code.NOERROR if name in zone.names else Code.NXDOMAIN
    return code, found, [_authority(zone, origin)]


def _authority(zone: Zone, origin: Name) -> Record:
    """Says who says "no", and for how long that may be remembered."""
    top = zone.origins[0]
    server, mailbox = (b"ns", b"dns", *top), (b"hostmaster", *top)
    numbers = _SOA_NUMBERS.pack(1, 7200, 1800, 86400, TTL_SECONDS)
    return Record(origin, Type.SOA, encode_name(server) + encode_name(mailbox) + numbers)


def _flags(asked: int, code: Code, *, authoritative: bool = False, cut: bool = False) -> int:
    kept = asked & (OPCODE | RD)
    return QR | kept | (AA if authoritative else 0) | (TC if cut else 0) | code & 0xF


def _reply(
    query: Query,
    code: Code,
    found: Iterable[Record],
    authority: Iterable[Record],
    limit: int,
) -> bytes:
    extra = b""
    if query.udp_bytes is not None:
        extra = b"\0" + struct.pack(">HHIH", Type.OPT, LARGEST_UDP_BYTES, (code >> 4) << 24, 0)
    room = limit - _HEADER.size - len(query.question) - len(extra)
    answers, room, cut = _fitting(query, found, room)
    # A "no" without its authority is still one.
    others, _, _ = _fitting(query, authority, room)
    ours = code in (Code.NOERROR, Code.NXDOMAIN)
    flags = _flags(query.flags, code, authoritative=ours, cut=cut)
    header = _HEADER.pack(query.id, flags, 1, len(answers), len(others), 1 if extra else 0)
    return b"".join((header, query.question, *answers, *others, extra))


def _fitting(query: Query, records: Iterable[Record], room: int) -> tuple[list[bytes], int, bool]:
    """Records that fit into so many bytes, what is left of these, and whether some did not."""
    kept: list[bytes] = []
    for record in records:
        # The question stands right behind the header: most answers are about that name.
        name = b"\xc0\x0c" if record.name == query.name else encode_name(record.name)
        head = struct.pack(">HHIH", record.type, IN, TTL_SECONDS, len(record.data))
        size = len(name) + len(head) + len(record.data)
        if size > room:
            return kept, room, True
        kept.append(name + head + record.data)
        room -= size
    return kept, room, False
