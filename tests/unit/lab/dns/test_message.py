"""DNS messages: what is asked is answered, and nothing that comes breaks the server."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lab.dns.message import (
    LARGEST_UDP_BYTES,
    PLAIN_UDP_BYTES,
    Code,
    Malformed,
    Name,
    Type,
    Zone,
    answer,
    encode_name,
    parse_name,
    parse_query,
    read_name,
)

SHOP = "shop.default.svc.cluster.local"
TEXTS = {
    SHOP: {"A": ["10.96.0.7"], "AAAA": ["fd00:10:96::7"]},
    "four.default.svc.cluster.local": {"A": ["10.96.0.8"]},
    f"_http._tcp.{SHOP}": {"SRV": [f"0 100 80 {SHOP}"]},
    "alias.default.svc.cluster.local": {"CNAME": [SHOP]},
    "away.default.svc.cluster.local": {"CNAME": ["shop.example.com"]},
    "broken.default.svc.cluster.local": {"CNAME": ["no.default.svc.cluster.local"]},
    "loop.default.svc.cluster.local": {"CNAME": ["loop.default.svc.cluster.local"]},
    "7.0.96.10.in-addr.arpa": {"PTR": [SHOP]},
    "dns-version.cluster.local": {"TXT": ["1.1.0"]},
    "big.default.svc.cluster.local": {"A": [f"10.244.0.{n}" for n in range(200)]},
}
ZONE = Zone.of(("cluster.local", "in-addr.arpa", "ip6.arpa"), TEXTS)


def query(
    name: str, kind: int = Type.A, *, class_: int = 1, flags: int = 0x0100, edns: bytes = b""
) -> bytes:
    labels = tuple(label.encode() for label in name.split(".") if label)
    head = struct.pack(">6H", 0x1234, flags, 1, 0, 0, 1 if edns else 0)
    return head + encode_name(labels) + struct.pack(">2H", kind, class_) + edns


def edns(size: int, version: int = 0) -> bytes:
    return b"\0" + struct.pack(">HHIH", Type.OPT, size, version << 16, 0)


@dataclass(frozen=True)
class Reply:
    """An answer, read by a reader of its own."""

    id: int
    flags: int
    question: bytes
    records: Sequence[tuple[Name, int, bytes]]
    counts: tuple[int, int, int, int]

    @property
    def code(self) -> int:
        return self.flags & 0xF

    @property
    def answers(self) -> list[tuple[str, int, bytes]]:
        found = self.records[: self.counts[1]]
        return [(b".".join(name).decode(), kind, data) for name, kind, data in found]

    @property
    def authority(self) -> list[int]:
        return [kind for _, kind, _ in self.records[self.counts[1] :][: self.counts[2]]]


def read(data: bytes | None) -> Reply:
    assert data is not None
    number, flags, *counts = struct.unpack_from(">6H", data)
    offset = 12
    if counts[0]:
        _, offset = read_name(data, offset)
        offset += 4
    question = data[12:offset]
    records = []
    for _ in range(sum(counts[1:])):
        name, offset = read_name(data, offset)
        kind, _, _, length = struct.unpack_from(">HHIH", data, offset)
        offset += 10
        records.append((name, kind, data[offset : offset + length]))
        offset += length
    assert offset == len(data)
    return Reply(number, flags, question, records, (counts[0], counts[1], counts[2], counts[3]))


def ask(name: str, kind: int = Type.A, *, class_: int = 1, flags: int = 0x0100) -> Reply:
    return read(answer(query(name, kind, class_=class_, flags=flags), ZONE))


def test_an_address() -> None:
    found = ask(SHOP)

    assert found.answers == [(SHOP, Type.A, bytes([10, 96, 0, 7]))]
    assert (found.id, found.code) == (0x1234, Code.NOERROR)
    # It is an answer, ours, and the wish for recursion is sent back.
    assert found.flags & 0xFF80 == 0x8500


def test_upper_case_comes_back_as_it_was() -> None:
    asked = query("SHOP.Default.svc.cluster.LOCAL")
    found = read(answer(asked, ZONE))
    assert found.question == asked[12:]
    assert found.counts[1] == 1


@pytest.mark.parametrize(
    ("name", "kind", "code"),
    [
        ("four.default.svc.cluster.local", Type.AAAA, Code.NOERROR),
        ("default.svc.cluster.local", Type.A, Code.NOERROR),
        (f"_tcp.{SHOP}", Type.SRV, Code.NOERROR),
        ("cluster.local", Type.A, Code.NOERROR),
        ("no.default.svc.cluster.local", Type.A, Code.NXDOMAIN),
        (f"no.{SHOP}", Type.A, Code.NXDOMAIN),
        ("8.0.96.10.in-addr.arpa", Type.PTR, Code.NXDOMAIN),
        ("96.10.in-addr.arpa", Type.PTR, Code.NOERROR),
        (SHOP, 65280, Code.NOERROR),
    ],
)
def test_no_such_name_is_something_else_than_no_such_type(name: str, kind: int, code: Code) -> None:
    found = ask(name, kind)
    assert (found.code, found.answers, found.authority) == (code, [], [Type.SOA])


@pytest.mark.parametrize(
    "name", ["example.com", "local", "", "cluster.local.example", "acluster.local"]
)
def test_other_zones_are_refused(name: str) -> None:
    found = ask(name)
    assert (found.code, found.answers, found.authority) == (Code.REFUSED, [], [])
    assert not found.flags & 0x0400


def test_a_service_port() -> None:
    ((name, kind, data),) = ask(f"_http._tcp.{SHOP}", Type.SRV).answers
    assert (name, kind) == (f"_http._tcp.{SHOP}", Type.SRV)
    assert struct.unpack_from(">3H", data) == (0, 100, 80)
    assert read_name(data, 6)[0] == parse_name(SHOP)


def test_the_way_back() -> None:
    ((_, kind, data),) = ask("7.0.96.10.in-addr.arpa", Type.PTR).answers
    assert (kind, read_name(data, 0)[0]) == (Type.PTR, parse_name(SHOP))


def test_an_alias_inside_is_followed() -> None:
    found = ask("alias.default.svc.cluster.local")
    assert [(name, kind) for name, kind, _ in found.answers] == [
        ("alias.default.svc.cluster.local", Type.CNAME),
        (SHOP, Type.A),
    ]
    assert [kind for _, kind, _ in ask("alias.default.svc.cluster.local", Type.CNAME).answers] == [
        Type.CNAME
    ]


def test_an_alias_to_somewhere_else_is_for_the_client_to_follow() -> None:
    found = ask("away.default.svc.cluster.local")
    assert (found.code, [kind for _, kind, _ in found.answers]) == (Code.NOERROR, [Type.CNAME])


def test_an_alias_of_nothing_says_so() -> None:
    found = ask("broken.default.svc.cluster.local")
    assert (found.code, found.counts[1], found.authority) == (Code.NXDOMAIN, 1, [Type.SOA])


def test_an_alias_of_itself_ends() -> None:
    assert ask("loop.default.svc.cluster.local").counts[1] == 8


def test_everything_about_a_name() -> None:
    assert {kind for _, kind, _ in ask(SHOP, Type.ANY).answers} == {Type.A, Type.AAAA}
    assert [kind for _, kind, _ in ask("cluster.local", Type.SOA).answers] == [Type.SOA]
    ((_, _, text),) = ask("dns-version.cluster.local", Type.TXT).answers
    assert text == b"\x051.1.0"


def test_what_does_not_fit_is_cut_and_comes_over_tcp() -> None:
    asked = query("big.default.svc.cluster.local")
    plain = answer(asked, ZONE)
    large = answer(query("big.default.svc.cluster.local", edns=edns(4096)), ZONE)
    over_tcp = answer(asked, ZONE, tcp=True)

    assert plain is not None
    assert large is not None
    assert len(plain) <= PLAIN_UDP_BYTES < len(large) <= LARGEST_UDP_BYTES
    assert read(plain).flags & 0x0200
    assert read(large).flags & 0x0200
    assert read(over_tcp).counts[1] == 200
    assert not read(over_tcp).flags & 0x0200


def test_a_client_with_edns_gets_edns() -> None:
    found = read(answer(query(SHOP, edns=edns(100)), ZONE))
    assert found.records[-1][:2] == ((), Type.OPT)
    other = read(answer(query(SHOP, edns=edns(4096, version=1)), ZONE))
    assert (other.code, other.counts) == (Code.BADVERS & 0xF, (1, 0, 0, 1))


def test_other_classes_and_operations() -> None:
    assert ask(SHOP, class_=3).code == Code.REFUSED
    assert ask(SHOP, flags=0x2000).code == Code.NOTIMP


@pytest.mark.parametrize("data", [b"", b"\0" * 11, query(SHOP, flags=0x8100)])
def test_what_is_no_query_gets_no_answer(data: bytes) -> None:
    assert answer(data, ZONE) is None


@pytest.mark.parametrize(
    "data",
    [
        query(SHOP)[:-1],
        query(SHOP)[:20],
        b"\x12\x34\0\0\0\2" + query(SHOP)[6:],
        b"\x12\x34\0\0\0\0" + query(SHOP)[6:],
        struct.pack(">6H", 0x1234, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1",
        # Names that are others in the answer: one ends in the header, one behind the question.
        b"\x12\x34\1\0\0\1" + bytes(6) + b"\1n\xc0\2\0\1\0\1",
        b"\x12\x34\1\0\0\1" + bytes(6) + b"\1\x20\xc0\x0d\0\1\0\1" + b"a" * 26 + b"\0",
        query(".".join(["a" * 60] * 5)),
        struct.pack(">6H", 0x1234, 0, 1, 0, 0, 0) + b"\x41" + b"a" * 65 + b"\0\0\1\0\1",
        query(SHOP, edns=edns(512)[:-1]),
    ],
)
def test_what_cannot_be_read_is_said_to_be_so(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_query(data)
    assert read(answer(data, ZONE)).code == Code.FORMERR


@given(data=st.binary(max_size=600), tcp=st.booleans())
@example(data=query(SHOP), tcp=False)
def test_nothing_that_comes_breaks_it(data: bytes, tcp: bool) -> None:
    reply = answer(data, ZONE, tcp=tcp)
    if reply is not None:
        found = read(reply)
        assert found.flags & 0x8000
        assert reply[:2] == data[:2]
        assert tcp or len(reply) <= LARGEST_UDP_BYTES


NAMES = st.sampled_from([*TEXTS, "example.com", "default.svc.cluster.local", "a." * 100])
CHANGES = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4)


@given(
    name=NAMES,
    kind=st.sampled_from([*Type, 0, 99]),
    changes=CHANGES,
    end=st.integers(0, 200),
    extra=st.sampled_from([b"", edns(0), edns(65535), edns(512, 7)]),
)
def test_neither_do_queries_that_were_spoiled(
    name: str, kind: int, changes: list[tuple[int, int]], end: int, extra: bytes
) -> None:
    data = bytearray(query(name, kind, edns=extra))
    for place, value in changes:
        if place < len(data):
            data[place] = value
    for whole in (bytes(data), bytes(data[:end])):
        reply = answer(whole, ZONE)
        if reply is not None:
            assert len(reply) <= LARGEST_UDP_BYTES
            assert read(reply).counts[0] in (0, 1)


@given(name=st.sampled_from(sorted(TEXTS)))
def test_every_record_is_found(name: str) -> None:
    for word, values in TEXTS[name].items():
        found = read(answer(query(name, Type[word]), ZONE, tcp=True))
        assert sum(kind == Type[word] for _, kind, _ in found.answers) >= len(values)


@pytest.mark.parametrize("text", ["", "a..b", "a" * 64, ".".join(["a" * 60] * 5)])
def test_no_names(text: str) -> None:
    with pytest.raises(ValueError, match="is no domain name"):
        parse_name(text)
