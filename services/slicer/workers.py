"""Several slicers on one machine: a process has one core, which is about 1,000 agents.

Workers are replicas like those on other machines: each has a view and addresses of its own, nothing
but etcd is shared, none leads. Agents get the addresses of all of them.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence

from deltaplane.runtime import address
from services.slicer.config import Config


def of(settings: Config) -> tuple[Config, ...]:
    """The options of each worker, in order.

    Raises:
        Invalid: there is no port for one of them.
    """
    return tuple(_worker(settings, number) for number in range(settings.workers))


def _worker(settings: Config, number: int) -> Config:
    def beside(text: str) -> str:
        return str(address.beside(address.parse(text), number))

    return settings.model_copy(
        update={
            "workers": 1,
            "listen": tuple(map(beside, settings.listen)),
            "admin": beside(settings.admin),
            "advertise": settings.advertise and beside(settings.advertise),
        }
    )


def supervise(starts: Sequence[Callable[[], int]]) -> int:
    """Runs each in a process of its own, until it is told to stop or one of them ends.

    Called before anything has been opened: the processes are forks of this one. A worker that ends
    by itself ends them all, so that whoever watches this process sees it. They end with this one,
    too, however it ends: each holds the one end of a pipe whose other end is only here.

    Returns:
        The exit code: 0 when it was told to stop and all did so in good order.
    """
    running: set[int] = set()
    told = False

    def stop(*_: object) -> None:
        nonlocal told
        told = True
        for pid in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    former = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    theirs, ours = os.pipe()
    for start in starts:
        pid = os.fork()
        if not pid:
            os.close(ours)
            for number, handler in former.items():
                signal.signal(number, handler)
            threading.Thread(target=_end_with, args=(theirs,), daemon=True).start()
            sys.exit(start())
        running.add(pid)
    os.close(theirs)
    code = 0
    while running:
        pid, status = os.wait()
        running.discard(pid)
        if os.waitstatus_to_exitcode(status) or not told:
            code = 1
            stop()
    os.close(ours)
    return code


def _end_with(pipe: int) -> None:
    """Tells this process to stop when nobody holds the other end of a pipe any more.

    Not PR_SET_PDEATHSIG: it misses a parent that was gone before, and is Linux only.
    """
    os.read(pipe, 1)
    os.kill(os.getpid(), signal.SIGTERM)
