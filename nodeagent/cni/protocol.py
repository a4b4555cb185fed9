"""The frames between the CNI shim (shim/deltaplane-cni.c) and the agent.

Request: u32 length of the rest, then seven fields of u32 length + bytes, in the order of
`Request`'s attributes. Answer: u32 exit code, u32 length, bytes for standard output. Numbers are
big endian.
"""

import struct
from dataclasses import dataclass

MAX_CONFIG_BYTES = 1 << 20
MAX_VARIABLE_BYTES = 1 << 16
FIELDS = 7
MAX_REQUEST_BYTES = FIELDS * 4 + (FIELDS - 1) * MAX_VARIABLE_BYTES + MAX_CONFIG_BYTES
"""Of a request without its own length; the shim refuses to send more."""

LENGTH = struct.Struct(">I")
ANSWER_HEAD = struct.Struct(">II")


class ProtocolError(Exception):
    """What arrived is no request of our shim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call of the plugin, unjudged. Variables that are not set are empty."""

    command: str
    container_id: str
    netns: str
    ifname: str
    args: str
    path: str
    config: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the plugin does. exit_code: 0 or 1; stdout: bytes it prints."""

    exit_code: int
    stdout: bytes


def request_length(head: bytes) -> int:
    """Reads the first four bytes: how many bytes follow.

    Raises:
        ProtocolError: more than any request of ours can have.
    """
    (length,) = LENGTH.unpack(head)
    if not FIELDS * LENGTH.size <= length <= MAX_REQUEST_BYTES:
        raise ProtocolError(f"a request of {length} bytes")
    return int(length)


def decode_request(body: bytes) -> Request:
    """Takes apart what follows the length.

    Raises:
        ProtocolError: a field is cut short or too long, bytes are left over, or a variable is no
            UTF-8.
    """
    fields: list[bytes] = []
    at = 0
    for number in range(FIELDS):
        if at + LENGTH.size > len(body):
            raise ProtocolError(f"field {number} is missing")
        (length,) = LENGTH.unpack_from(body, at)
        at += LENGTH.size
        if length > len(body) - at:
            raise ProtocolError(f"field {number} is cut short")
        fields.append(body[at : at + length])
        at += length
    if at != len(body):
        raise ProtocolError(f"{len(body) - at} bytes after the last field")
    try:
        command, container_id, netns, ifname, args, path = (f.decode() for f in fields[:-1])
    except UnicodeDecodeError as error:
        raise ProtocolError("a variable is no UTF-8") from error
    return Request(
        command=command,
        container_id=container_id,
        netns=netns,
        ifname=ifname,
        args=args,
        path=path,
        config=fields[-1],
    )


def encode_request(request: Request) -> bytes:
    """What the shim sends: for tests and for callers without the binary."""
    variables = (
        request.command,
        request.container_id,
        request.netns,
        request.ifname,
        request.args,
        request.path,
    )
    fields = [*(text.encode() for text in variables), request.config]
    body = b"".join(LENGTH.pack(len(field)) + field for field in fields)
    return LENGTH.pack(len(body)) + body


def encode_answer(answer: Answer) -> bytes:
    """What the agent sends back."""
    return ANSWER_HEAD.pack(answer.exit_code, len(answer.stdout)) + answer.stdout
