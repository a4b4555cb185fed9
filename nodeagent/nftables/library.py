"""libnftables.so.1 through ctypes: a text of commands in, all of it applied or none, JSON out."""

import ctypes
import errno
from ctypes import c_char_p, c_int, c_uint, c_uint32, c_void_p
from functools import cache
from typing import Any

LIBRARY = "libnftables.so.1"
PACKAGE = "libnftables1"
"""Debian package."""

_JSON = 1 << 4
"""NFT_CTX_OUTPUT_JSON."""

_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "nft_ctx_new": (c_void_p, [c_uint32]),
    "nft_ctx_free": (None, [c_void_p]),
    "nft_ctx_buffer_output": (c_int, [c_void_p]),
    "nft_ctx_buffer_error": (c_int, [c_void_p]),
    "nft_ctx_get_output_buffer": (c_char_p, [c_void_p]),
    "nft_ctx_get_error_buffer": (c_char_p, [c_void_p]),
    "nft_ctx_output_set_flags": (None, [c_void_p, c_uint]),
    "nft_run_cmd_from_buffer": (c_int, [c_void_p, c_char_p]),
}


@cache
def _library() -> ctypes.CDLL:
    loaded = ctypes.CDLL(LIBRARY)
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype = result
        function.argtypes = arguments
    return loaded


def is_installed() -> bool:
    """Whether the library can be loaded."""
    try:
        _library()
    except (OSError, AttributeError):
        return False
    return True


class Nftables:
    """Runs commands in the network namespace of the thread that makes it. One thread at a time.

    Raises (constructor):
        OSError: the library is missing, or there is no privilege.
    """

    def __init__(self) -> None:
        if not is_installed():
            raise OSError(errno.ENOENT, f"{LIBRARY} is missing: apt-get install {PACKAGE}")
        self._functions = _library()
        self._context = self._functions.nft_ctx_new(0)
        if not self._context:
            raise OSError(errno.EPERM, "libnftables gives no context")
        self._functions.nft_ctx_buffer_output(self._context)
        self._functions.nft_ctx_buffer_error(self._context)
        self._functions.nft_ctx_output_set_flags(self._context, _JSON)

    def run(self, commands: str) -> str:
        """Runs commands as one transaction; what they print, as JSON.

        Raises:
            OSError: refused, nothing is changed; with the first line of what libnftables says.
        """
        result = self._functions.nft_run_cmd_from_buffer(self._context, commands.encode())
        # Reading a buffer empties it.
        output = (self._functions.nft_ctx_get_output_buffer(self._context) or b"").decode()
        problem = (self._functions.nft_ctx_get_error_buffer(self._context) or b"").decode()
        if result:
            told = problem.strip().partition("\n")[0].removeprefix("Error: ")
            raise OSError(errno.EINVAL, f"nftables: {told or 'refused'}")
        return output

    def close(self) -> None:
        """Frees the context; what is in the kernel stays."""
        self._functions.nft_ctx_free(self._context)
