"""Just enough of HPACK (RFC 7541) for a client that allows its server no dynamic table. Pure.

We send literals only. We read any header block whose encoder keeps no table, which is what
SETTINGS_HEADER_TABLE_SIZE = 0 asks for; a text in Huffman's code is not decoded: the only headers
that we look at, grpc-status and grpc-message, come as they are.
"""

from collections.abc import Iterable, Iterator

from deltaplane.errors import Invalid

HUFFMAN = "(in Huffman's code)"
"""Stands for a text that was not decoded."""

_NAMES = (
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "accept",
    "access-control-allow-origin",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "link",
    "location",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "refresh",
    "retry-after",
    "server",
    "set-cookie",
    "strict-transport-security",
    "transfer-encoding",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
)

# RFC 7541, appendix A.
_STATIC: tuple[tuple[str, str], ...] = (
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    *((name, "gzip, deflate" if name == "accept-encoding" else "") for name in _NAMES),
)


def encode(headers: Iterable[tuple[str, str]]) -> bytes:
    """A header block of literals that nobody has to remember."""
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in headers)


def _text(text: str) -> bytes:
    data = text.encode()
    return _integer(len(data), 7) + data


def _integer(number: int, bits: int) -> bytes:
    limit = (1 << bits) - 1
    if number < limit:
        return bytes((number,))
    out = bytearray((limit,))
    number -= limit
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def decode(block: bytes) -> Iterator[tuple[str, str]]:
    """The headers of a block.

    Raises:
        Invalid: malformed, or it names an entry of a dynamic table.
    """
    reader = _Reader(block)
    while reader.left:
        first = block[reader.position]
        if first & 0x80:
            yield _static(reader.integer(7))
        elif first & 0xE0 == 0x20:
            reader.integer(5)  # a new size of the table that we do not allow
        else:
            index = reader.integer(6 if first & 0x40 else 4)
            name = _static(index)[0] if index else reader.text()
            yield name, reader.text()


class _Reader:
    def __init__(self, block: bytes) -> None:
        self.position = 0
        self._block = block

    @property
    def left(self) -> int:
        return len(self._block) - self.position

    def _byte(self) -> int:
        if not self.left:
            raise Invalid("headers", "a header block ends too early")
        self.position += 1
        return self._block[self.position - 1]

    def integer(self, bits: int) -> int:
        limit = (1 << bits) - 1
        number = self._byte() & limit
        if number < limit:
            return number
        shift = 0
        while True:
            byte = self._byte()
            number += (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return number

    def text(self) -> str:
        if not self.left:
            raise Invalid("headers", "a header block ends too early")
        coded = self._block[self.position] & 0x80
        size = self.integer(7)
        if size > self.left:
            raise Invalid("headers", "a header block ends too early")
        self.position += size
        if coded:
            return HUFFMAN
        return self._block[self.position - size : self.position].decode("utf-8", "replace")


def _static(index: int) -> tuple[str, str]:
    if not 1 <= index <= len(_STATIC):
        raise Invalid("headers", f"there is no entry {index} without a dynamic table")
    return _STATIC[index - 1]
