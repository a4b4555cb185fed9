"""One thread for blocking calls that must not overlap."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Worker:
    """Runs calls one after another, in the order in which they were made.

    A call that has started always runs to its end: a caller that is cancelled while it waits must
    not take the thread's state with it.
    """

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a function in the thread. A cancelled caller is released when the call has ended."""
        future = self._pool.submit(function, *args, **kwargs)
        waiting = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            if not future.cancel():
                await asyncio.wait([waiting])
            raise

    def close(self) -> None:
        """Waits for the running call and ends the thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)
