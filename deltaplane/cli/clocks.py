"""Whether the machine's clock is kept right (adjtimex(2)). It is only read."""

import ctypes

_TIME_ERROR = 5
"""State: not synchronised, from linux/timex.h."""

_STRUCT_BYTES = 256
"""More than struct timex has."""

_ESTERROR = 4
"""Which long of it is the estimated error (us); before it: modes, offset, freq, maxerror."""


def synchronisation() -> tuple[bool, float]:
    """Whether somebody synchronises the clock, and its estimated error in seconds."""
    longs = ctypes.c_long * (_STRUCT_BYTES // ctypes.sizeof(ctypes.c_long))
    values = longs()
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(values))
    return 0 <= state != _TIME_ERROR, values[_ESTERROR] / 1e6
