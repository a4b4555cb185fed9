"""Tables made by the C function, where it was built; otherwise by its twin."""

import ctypes
from array import array
from pathlib import Path

from nodeagent.services import maglev
from nodeagent.services.maglev import WALK, Fill

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
        self._call.argtypes = [ctypes.c_uint32, ctypes.c_uint32] + [ctypes.c_void_p] * 4

    def __call__(self, entries: int, walks: bytes, places: "array[int]") -> bytes:
        """See `maglev.fill`."""
        if len(walks) != WALK.size * len(places):
            raise ValueError(f"{len(walks)} bytes are no walks of {len(places)} backends")
        states = ctypes.create_string_buffer(walks, len(walks))
        made, taken = ctypes.create_string_buffer(2 * entries), ctypes.create_string_buffer(entries)
        self._call(entries, len(places), states, places.buffer_info()[0], made, taken)
        return made.raw
