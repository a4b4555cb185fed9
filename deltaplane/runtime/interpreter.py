"""Settings of the Python interpreter for a process that serves: short pauses before throughput."""

import gc
import sys

SWITCH_SECONDS = 0.0005
"""How long a busy thread keeps the interpreter from another that waits for it. Python's 5 ms is as
long as a whole ADD: a worker thread that has its answer would wait that long for a busy event loop.
"""

YOUNG_OBJECTS = 10_000
"""New objects between two collections of the youngest generation; Python's 700 means one in the
middle of every call.
"""


def loading() -> None:
    """Called first in a process, before its imports; `prepare` ends it.

    What is imported stays, and collecting while it grows looks at it over and over: a fifth of the
    time.
    """
    gc.disable()


def prepare() -> None:
    """Called once everything is imported. What little garbage that has left stays as well."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def settled() -> None:
    """Called when everything is loaded: what is there now stays, so nobody looks at it again.

    A full collection otherwise visits every module and class, 30 ms or more in which the process
    does nothing else.
    """
    gc.collect()
    gc.freeze()
