"""Admin HTTP of a process: one GET, over TCP or a unix socket."""

import http.client
import json
import socket
from typing import Any
from urllib.parse import urlsplit

from deltaplane.errors import Internal, Invalid, NotFound, Unavailable

SECONDS = 5.0


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connects to the socket instead of a port."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(SECONDS)
        self.sock.connect(self._path)


def get(where: str, path: str) -> Any:  # noqa: ANN401 - JSON is anything
    """What a process answers, as JSON.

    Args:
        where: `http://host:port`, `host:port` or `unix:/path`.
        path: with query.

    Raises:
        Internal: it answers something else.
        DeltaplaneError: as `get_text`.
    """
    body = get_text(where, path)
    try:
        return json.loads(body)
    except ValueError as error:
        raise Internal(f"{where} answers no JSON: {body[:200]!r}") from error


def get_text(where: str, path: str) -> str:
    """What a process answers. Arguments as of `get`.

    Raises:
        Invalid: `where` is none of these.
        NotFound: it has no such page: an older process, or not one of ours.
        Unavailable: nobody answers.
        Internal: it answers with another status.
    """
    connection = _connection(where)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"{where}: {error}") from error
    finally:
        connection.close()
    if answer.status == http.HTTPStatus.NOT_FOUND:
        raise NotFound(f"{where} has no {path.partition('?')[0]}")
    if answer.status != http.HTTPStatus.OK:
        raise Internal(f"{where} answers {answer.status}: {body[:200]!r}")
    return body.decode(errors="replace")


def _connection(where: str) -> http.client.HTTPConnection:
    if where.startswith("unix:"):
        return _UnixConnection(where.removeprefix("unix:"))
    parts = urlsplit(where if "://" in where else f"http://{where}")
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme != "http" or not parts.hostname or port is None:
        raise Invalid("--admin", f"{where!r}: http://host:port or unix:/path is needed")
    return http.client.HTTPConnection(parts.hostname, port, timeout=SECONDS)
