"""Tables made by the C function, where it was built; otherwise by its twin."""

import ctypes
from array import array
from collections.abc import Sequence
from pathlib import Path

from nodeagent.services import maglev
from nodeagent.services.maglev import Fill, Permutation

LIBRARY = "libdeltaplane-maglev.so"


def library() -> Path | None:
    """Where the library is: in the tree, or in the wheel."""
    package = Path(__file__).parent
    for path in (package.parent / "build/lib" / LIBRARY, package / "prebuilt" / LIBRARY):
        if path.exists():
            return path
    return None


def best_fill() -> Fill:
    """The fastest there is."""
    path = library()
    return maglev.fill if path is None else NativeFill(path)


class NativeFill:
    """The function of a library, with the signature of `maglev.fill`. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._call = ctypes.CDLL(str(path)).dp_maglev_fill
        self._call.restype = None
        self._call.argtypes = [ctypes.c_uint32, ctypes.c_uint32] + [ctypes.c_void_p] * 5

    def __call__(
        self, size: int, permutations: Sequence[Permutation], values: Sequence[int]
    ) -> Sequence[int]:
        """See `maglev.fill`."""
        offsets, skips = zip(*permutations, strict=True)
        table, taken = array("I", bytes(4 * size)), bytearray(size)
        given = [array("I", offsets), array("I", skips), array("I", values), table]
        places = [numbers.buffer_info()[0] for numbers in given]
        scratch = (ctypes.c_char * size).from_buffer(taken)
        self._call(size, len(values), *places, ctypes.addressof(scratch))
        return table
