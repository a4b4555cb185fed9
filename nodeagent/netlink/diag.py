"""Ends UDP sockets that are connected to somebody who is gone.

Such a socket never learns of it: it would send there for ever. Constants: linux/sock_diag.h,
inet_diag.h.
"""

import errno
import struct
from collections.abc import Collection, Iterator
from socket import AF_INET, AF_INET6, IPPROTO_UDP
from typing import NamedTuple

from deltaplane.model.addresses import to_mapped
from nodeagent.netlink.channel import Channel
from nodeagent.netlink.message import NLM_F_ACK, NLM_F_DUMP, Message, NetlinkError

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY, SOCK_DESTROY = 20, 21
_ESTABLISHED = 1
_REQUEST = struct.Struct("=BBBxI")
_ID = struct.Struct("!HH16s16s4x")
"""Ports, addresses and interface of a socket; its cookie follows."""
_COOKIE = struct.Struct("=II")
_HEAD = 4
_ANY = bytes(_ID.size + _COOKIE.size)

_UNKNOWN = frozenset({errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT})
"""Of a kernel without INET_UDP_DIAG or INET_DIAG_DESTROY; ENOENT also of a socket that is gone."""


class Connected(NamedTuple):
    """A socket: its number for the whole machine, and the address (16 bytes) and port it is at."""

    cookie: int
    address: bytes
    port: int


def end_connected(wanted: Collection[Connected]) -> int:
    """Ends UDP sockets of this thread's network namespace: they are connected to nobody.

    Who waits for an answer is told at once (ECONNABORTED), who sends with the next datagram
    (EDESTADDRREQ). Other sockets, and those that were connected anew meanwhile, stay.

    Returns:
        How many there were; 0 where the kernel cannot do it.

    Raises:
        OSError: the kernel refuses.
    """
    if not wanted:
        return 0
    ended = 0
    with Channel(NETLINK_SOCK_DIAG) as channel:
        for family in (AF_INET, AF_INET6):
            for found, identity in _sockets(channel, family):
                if found in wanted:
                    ended += _end(channel, family, identity)
    return ended


def _sockets(channel: Channel, family: int) -> Iterator[tuple[Connected, bytes]]:
    """All that are connected, and how the kernel calls them."""
    body = _REQUEST.pack(family, IPPROTO_UDP, 0, 1 << _ESTABLISHED) + _ANY
    try:
        answers = channel.dump(Message(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, body, "listing sockets"))
    except NetlinkError as error:
        if error.errno in _UNKNOWN:
            return
        raise
    for answer in answers:
        identity = answer[_HEAD : _HEAD + len(_ANY)]
        _, port, _, address = _ID.unpack_from(identity)
        low, high = _COOKIE.unpack_from(identity, _ID.size)
        size = 4 if family == AF_INET else 16
        yield Connected(high << 32 | low, to_mapped(address[:size]), port), identity


def _end(channel: Channel, family: int, identity: bytes) -> bool:
    body = _REQUEST.pack(family, IPPROTO_UDP, 0, 1 << _ESTABLISHED) + identity
    try:
        channel.run([Message(SOCK_DESTROY, NLM_F_ACK, body, "ending a socket")])
    except NetlinkError as error:
        if error.errno in _UNKNOWN:
            return False
        raise
    return True
