"""Programs on links: clsact and direct-action filters, over netlink.

A filter has a fixed place (priority 1, handle 1): attaching again replaces the program while
packets flow, none sees a gap. The whole request is one datagram: one system call for up to three
messages.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterable
from enum import IntEnum

_HEADER = struct.Struct("=IHHII")
_TCMSG = struct.Struct("=BxxxiIII")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")

_RTM_NEWQDISC, _RTM_NEWTFILTER, _RTM_DELTFILTER, _NLMSG_ERROR = 36, 44, 45, 2
_REQUEST, _ACK, _EXCL, _CREATE = 0x1, 0x4, 0x200, 0x400
_TCA_KIND, _TCA_OPTIONS = 1, 2
_TCA_BPF_FD, _TCA_BPF_NAME, _TCA_BPF_FLAGS = 6, 7, 8
_DIRECT_ACTION = 1
_CLSACT_HANDLE, _CLSACT_PARENT = 0xFFFF0000, 0xFFFFFFF1
_ETH_P_ALL = 3

PRIORITY = 1
HANDLE = 1


class Hook(IntEnum):
    """Where on a link; the value is the filter's parent."""

    INGRESS = 0xFFFFFFF2
    EGRESS = 0xFFFFFFF3


def attach(ifindex: int, programs: dict[Hook, tuple[str, int]]) -> None:
    """Puts programs on a link of the calling thread's network namespace.

    Args:
        ifindex: the link.
        programs: hook → name to show in listings, descriptor of the program.

    Raises:
        OSError: the link does not exist (ENODEV), or the kernel refuses.
    """
    clsact = _message(
        _RTM_NEWQDISC,
        _REQUEST | _ACK | _CREATE | _EXCL,
        _TCMSG.pack(socket.AF_UNSPEC, ifindex, _CLSACT_HANDLE, _CLSACT_PARENT, 0)
        + _attribute(_TCA_KIND, b"clsact\0"),
        sequence=0,
    )
    filters = [
        _filter(ifindex, hook, name, fd, sequence)
        for sequence, (hook, (name, fd)) in enumerate(programs.items(), start=1)
    ]
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.bind((0, 0))
        netlink.send(clsact + b"".join(filters))
        pending = 1 + len(filters)
        while pending:
            for sequence, error in _acknowledgements(netlink.recv(65536)):
                pending -= 1
                # The qdisc of an earlier agent, or of somebody else, is as good as ours.
                if error and not (sequence == 0 and isinstance(error, FileExistsError)):
                    raise error


def detach(ifindex: int, hooks: Iterable[Hook]) -> None:
    """Takes the filters at our place off a link; absent ones, or an absent link, are fine.

    The qdisc stays: others may use it, and empty it does nothing.

    Raises:
        OSError: the kernel refuses.
    """
    info = PRIORITY << 16 | socket.htons(_ETH_P_ALL)
    requests = [
        _message(
            _RTM_DELTFILTER,
            _REQUEST | _ACK,
            _TCMSG.pack(socket.AF_UNSPEC, ifindex, HANDLE, hook, info)
            + _attribute(_TCA_KIND, b"bpf\0"),
            sequence=sequence,
        )
        for sequence, hook in enumerate(hooks)
    ]
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.bind((0, 0))
        for request in requests:
            netlink.send(request)
            for _, error in _acknowledgements(netlink.recv(65536)):
                # No link; no qdisc (EINVAL); no filter.
                if error and error.errno not in {errno.ENODEV, errno.EINVAL, errno.ENOENT}:
                    raise error


def _filter(ifindex: int, hook: Hook, name: str, fd: int, sequence: int) -> bytes:
    options = (
        _attribute(_TCA_BPF_FD, struct.pack("=I", fd))
        + _attribute(_TCA_BPF_NAME, name.encode() + b"\0")
        + _attribute(_TCA_BPF_FLAGS, struct.pack("=I", _DIRECT_ACTION))
    )
    info = PRIORITY << 16 | socket.htons(_ETH_P_ALL)
    return _message(
        _RTM_NEWTFILTER,
        _REQUEST | _ACK | _CREATE,
        _TCMSG.pack(socket.AF_UNSPEC, ifindex, HANDLE, hook, info)
        + _attribute(_TCA_KIND, b"bpf\0")
        + _attribute(_TCA_OPTIONS, options),
        sequence=sequence,
    )


def _attribute(kind: int, payload: bytes) -> bytes:
    padding = bytes(-len(payload) % 4)
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(payload), kind) + payload + padding


def _message(kind: int, flags: int, payload: bytes, *, sequence: int) -> bytes:
    return _HEADER.pack(_HEADER.size + len(payload), kind, flags, sequence, 0) + payload


def _acknowledgements(datagram: bytes) -> list[tuple[int, OSError | None]]:
    """(sequence, error or None) of each acknowledgement."""
    found: list[tuple[int, OSError | None]] = []
    offset = 0
    while offset < len(datagram):
        length, kind, _, sequence, _ = _HEADER.unpack_from(datagram, offset)
        if kind == _NLMSG_ERROR:
            (code,) = _ERROR.unpack_from(datagram, offset + _HEADER.size)
            found.append((sequence, OSError(-code, os.strerror(-code), "tc") if code else None))
        offset += -(-length // 4) * 4
    return found
