"""Test runs of what unwraps: the kernel itself gives a test run no outer header."""

import os
import platform
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from nodeagent.dataplane import libbpf, loader, testrun
from nodeagent.dataplane.maps import KernelMap
from tests.bpf.packets import address

SOURCE = Path(__file__).with_name("native") / "wrap.bpf.c"
PROGRAMS = ("from_tunnel", "from_entry")
_IPV6, _PROGRAM = 1 << 24, 25


class Wrapper:
    """Loaded in front of the real programs. Close it."""

    def __init__(self, programs: Mapping[str, int]) -> None:
        """Compiles and loads, in front of the programs of these descriptors.

        Raises:
            CalledProcessError: no clang.
            OSError: the kernel refuses.
        """
        headers = f"/usr/include/{platform.machine()}-linux-gnu"
        with tempfile.TemporaryDirectory(prefix="dp-fuzz-") as folder:
            target = Path(folder) / "wrap.bpf.o"
            subprocess.run(
                [
                    *("clang", "-O2", "-g", "-target", "bpf", "-idirafter", headers),
                    *("-c", SOURCE, "-o", target),
                ],
                check=True,
            )
            self._object = loader._Object(target)
            self._object.__enter__()
        self._object.load()
        self._program = dict(self._object.programs())["wrap"]
        ((_, pointer),) = (it for it in self._object._maps() if it[0] == "inside")
        inside = KernelMap("inside", os.dup(libbpf.call("bpf_map__fd", pointer)))
        for number, name in enumerate(PROGRAMS):
            inside.update([(number.to_bytes(4, "little"), programs[name].to_bytes(4, "little"))])
        inside.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._object.__exit__()

    def run(self, program: str, frame: bytes, *, source: str, vni: int) -> testrun.Run:
        """One of PROGRAMS, for a frame that a node has wrapped with an identifier (24 bits)."""
        outer = address(source)
        what = vni | PROGRAMS.index(program) << _PROGRAM | (_IPV6 if len(outer) == 16 else 0)
        control = what.to_bytes(4, "little") + outer
        return testrun.run(self._program, frame, control=control)
