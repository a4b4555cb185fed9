"""Where a server listens: `host:port`, `[v6]:port` or `unix:/path`."""

import re
from dataclasses import dataclass

from deltaplane.errors import Invalid

_TCP = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^\[\]:/ ]+)):(?P<port>[0-9]{1,5})")

HIGHEST_PORT = 65535

# sun_path holds 108 bytes with its final zero (unix(7)).
_MAX_PATH_BYTES = 107


@dataclass(frozen=True, slots=True)
class Tcp:
    """A TCP address. host: name or literal, no brackets. port: 0..65535, 0 means any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Unix:
    """A unix socket by its absolute path."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address = Tcp | Unix


def parse(text: str) -> Address:
    """Reads an address.

    Raises:
        Invalid: the text is none of the three forms, the port is above 65535 or the path is too
            long.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/"):
            raise Invalid(
                "", f"{text!r}: a unix socket needs an absolute path, as in unix:/run/x.sock"
            )
        if len(path.encode()) > _MAX_PATH_BYTES:
            raise Invalid("", f"{text!r}: the path is longer than {_MAX_PATH_BYTES} bytes")
        return Unix(path)
    match = _TCP.fullmatch(text)
    if match is None or int(match["port"]) > HIGHEST_PORT:
        raise Invalid("", f"{text!r} is neither host:port nor [v6]:port nor unix:/path")
    return Tcp(match["v6"] or match["host"], int(match["port"]))


def beside(where: Address, number: int) -> Address:
    """The address of the number-th of several processes that are configured as one; 0: the first.

    So many ports above, or the path with the number behind it. Any free port is one for everybody.

    Raises:
        Invalid: there are no such ports.
    """
    if not number:
        return where
    if isinstance(where, Unix):
        return Unix(f"{where.path}.{number}")
    port = where.port and where.port + number
    if port > HIGHEST_PORT:
        raise Invalid("", f"{where}: there is no port {port} for process {number + 1}")
    return Tcp(where.host, port)
