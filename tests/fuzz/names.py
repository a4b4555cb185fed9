"""DNS messages, as the lab's name server gets them."""

import struct
from collections.abc import Sequence

from lab.dns.message import LARGEST_TCP_BYTES, Zone, answer, encode_name, parse_name, read_name

TEXTS = {
    "web.shop.svc.cluster.local": {"A": ["10.96.0.1"], "AAAA": ["fd00:10:96::1"]},
    "_http._tcp.web.shop.svc.cluster.local": {"SRV": ["0 100 80 web.shop.svc.cluster.local"]},
    "outside.shop.svc.cluster.local": {"CNAME": ["example.com"]},
    "loop.shop.svc.cluster.local": {"CNAME": ["loop.shop.svc.cluster.local"]},
    "many.shop.svc.cluster.local": {"A": [f"10.0.{n // 250}.{n % 250 + 1}" for n in range(600)]},
    "dns-version.cluster.local": {"TXT": ["1.1.0"]},
}
KINDS = (1, 2, 5, 6, 12, 16, 28, 33, 41, 255, 65535)
HEADER = struct.Struct(">6H")


def query(
    name: str, kind: int, *, flags: int = 0x100, extra: bytes = b"", others: int = 0
) -> bytes:
    """A query of one name."""
    question = encode_name(parse_name(name)) + struct.pack(">2H", kind, 1)
    return HEADER.pack(7, flags, 1, 0, 0, others) + question + extra


class NamesTarget:
    """A message, over UDP and over TCP."""

    def __init__(self) -> None:
        self._zone = Zone.of(["cluster.local", "in-addr.arpa", "ip6.arpa"], TEXTS)

    def seeds(self) -> Sequence[bytes]:
        """Every name and type, and what extends a query."""
        opt = b"\0" + struct.pack(">HHIH", 41, 1232, 0, 0)
        names = (*TEXTS, "nobody.cluster.local", "1.0.96.10.in-addr.arpa", "example.com")
        plain = [query(name, kind) for name in names for kind in KINDS]
        return [*plain, query(names[0], 1, extra=opt, others=1), query(names[0], 1, flags=0x2800)]

    def words(self) -> Sequence[bytes]:
        """Pointers, long labels, roots."""
        return (
            b"\xc0\x0c",
            b"\xc0\x00",
            b"\xff\xff",
            b"\x3f" + b"a" * 63,
            b"\0",
            b"\x40",
            b"\0\x29",
        )

    def feed(self, data: bytes) -> None:
        """One message."""
        for tcp in (False, True):
            found = answer(data, self._zone, tcp=tcp)
            if found is None:
                continue
            # Who asked can read it: a header with the same number, the question as it was.
            assert HEADER.size <= len(found) <= LARGEST_TCP_BYTES, len(found)
            number, flags, questions, *_ = HEADER.unpack_from(found)
            assert number == int.from_bytes(data[:2])
            assert flags & 0x8000
            if questions:
                _, end = read_name(found, HEADER.size)
                assert found[HEADER.size : end + 4] == data[HEADER.size : end + 4]

    def close(self) -> None:
        """Nothing to let go of."""
