"""One packet through one loaded program, without a link (BPF_PROG_TEST_RUN).

Redirects are not carried out: the action and the rewritten packet tell what would happen.
"""

import ctypes
import struct
from dataclasses import dataclass
from enum import IntEnum

from nodeagent.dataplane import libbpf

_CONTEXT_SIZE = 192
_INGRESS_IFINDEX, _IFINDEX, _CONTROL, _GSO_SIZE = 36, 40, 48, 176
"""Offsets in struct __sk_buff of what the kernel lets a caller set."""

_ROOM = 256
"""Bytes by which a program may make a packet longer."""


class Action(IntEnum):
    """What tc is told to do."""

    OK = 0
    SHOT = 2
    REDIRECT = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What came of it. duration_ns: of one repetition, without the system call."""

    action: Action
    packet: bytes
    duration_ns: int


class _Options(ctypes.Structure):
    """struct bpf_test_run_opts."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_char_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_char_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


def run(
    program_fd: int,
    packet: bytes,
    *,
    ingress_ifindex: int = 0,
    ifindex: int = 1,
    gso_size: int = 0,
    control: bytes = b"",
    repeat: int = 1,
) -> Run:
    """Runs a tc program on a frame.

    Args:
        program_fd: descriptor of the program.
        packet: from the Ethernet header on, 14 bytes or more.
        ingress_ifindex: link by which the packet came in; 0: sent by this node.
        ifindex: link that the program is attached to; must exist in this network namespace.
        gso_size: bytes of payload per segment; 0: no segmentation.
        control: 20 bytes or fewer for skb->cb, which a program can read.
        repeat: how often, for timing.

    Raises:
        OSError: the kernel refuses the packet or the context.
    """
    context = bytearray(_CONTEXT_SIZE)
    struct.pack_into("=I", context, _INGRESS_IFINDEX, ingress_ifindex)
    struct.pack_into("=I", context, _IFINDEX, ifindex)
    struct.pack_into("=I", context, _GSO_SIZE, gso_size)
    struct.pack_into("20s", context, _CONTROL, control)
    output = ctypes.create_string_buffer(len(packet) + _ROOM)
    options = _Options(
        sz=ctypes.sizeof(_Options),
        data_in=packet,
        data_out=ctypes.addressof(output),
        data_size_in=len(packet),
        data_size_out=len(output),
        ctx_in=bytes(context),
        ctx_size_in=len(context),
        repeat=repeat,
    )
    result = libbpf.call("bpf_prog_test_run_opts", program_fd, ctypes.byref(options))
    libbpf.checked(result, "test run")
    return Run(
        action=Action(options.retval),
        packet=output.raw[: options.data_size_out],
        duration_ns=options.duration,
    )
