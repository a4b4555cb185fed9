"""Waiting until no program still runs on what has been replaced.

An update of a map in a map waits for a grace period before it returns: since 4.20 the kernel
promises user space that all programs then use the new map value. It costs two scheduler ticks, 8 ms
at HZ=250, at times 16. membarrier(2) costs the same and promises less. Visiting every processor in
turn took 0.15 ms, but proves nothing on a preemptible kernel or in a cpuset; an expedited grace
period can only be had as the side effect of something unrelated, such as unmounting.
"""

import ctypes
import os
import sys

from nodeagent.dataplane import libbpf

_ARRAY, _ARRAY_OF_MAPS = 2, 12

_KEY = bytes(4)


class GracePeriod:
    """Two maps that serve only to be put into each other."""

    def __init__(self) -> None:
        self._inner = _create(_ARRAY, b"grace_inner", None)
        options = libbpf.MapOptions(sz=ctypes.sizeof(libbpf.MapOptions), inner_map_fd=self._inner)
        try:
            self._outer = _create(_ARRAY_OF_MAPS, b"grace_outer", ctypes.byref(options))
        except OSError:
            os.close(self._inner)
            raise

    def wait(self) -> None:
        """Returns when every program that was running when it was called has ended."""
        value = self._inner.to_bytes(4, sys.byteorder)
        libbpf.checked(libbpf.call("bpf_map_update_elem", self._outer, _KEY, value, 0), "grace")

    def close(self) -> None:
        """Lets go of both maps."""
        os.close(self._outer)
        os.close(self._inner)


def _create(kind: int, name: bytes, options: object) -> int:
    return libbpf.checked(libbpf.call("bpf_map_create", kind, name, 4, 4, 1, options), "grace")
