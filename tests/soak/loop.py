"""An event loop without time, threads or sockets: what runs next is a choice.

Real coroutines, with their locks and task groups, run on it step by step. One who knows the choices
can repeat a run exactly. Nothing sleeps: a pause is a step like any other, and a timeout never
comes, because what never ends is found by counting steps.
"""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar, cast

T = TypeVar("T")

Choose = Callable[[int], int]
"""Gets how many steps could be next, 1 or more; the last one continues what ran last."""

MAX_STEPS = 20_000
"""Of one run; the longest that ends takes a tenth of it."""


class Endless(AssertionError):
    """The run does not end: somebody tries again for ever."""


class _Turn:
    """Awaited, it gives everybody else a chance to run."""

    def __await__(self) -> Generator[None, None, None]:
        yield


TURN = _Turn()


class _Never:
    """The handle of a timeout that never comes."""

    def cancel(self) -> None:
        pass

    def when(self) -> float:
        return 0.0


_NEVER = _Never()


class Loop:
    """As much of `asyncio.AbstractEventLoop` as tasks, locks and groups ask for.

    `run` returns when nobody has anything left to do.
    """

    def __init__(self, choose: Choose) -> None:
        self.steps = 0
        self.choose = choose
        self._ready: list[tuple[Callable[..., object], tuple[object, ...]]] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._as_loop = cast("asyncio.AbstractEventLoop", self)

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Takes steps until there is none, or until the condition holds after one.

        Raises:
            Endless: it took more than MAX_STEPS.
        """
        ready, choose = self._ready, self.choose
        limit = self.steps + MAX_STEPS
        asyncio._set_running_loop(self._as_loop)
        try:
            while ready:
                count = len(ready)
                callback, arguments = ready.pop(choose(count) if count > 1 else 0)
                self.steps += 1
                callback(*arguments)
                if until():
                    return
                if self.steps > limit:
                    raise Endless(f"no end after {MAX_STEPS} steps")
        finally:
            asyncio._set_running_loop(None)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs one coroutine, and whatever else there is, to the end."""
        task: asyncio.Task[T] = self.create_task(work)
        self.run()
        return task.result()

    def finish(self) -> None:
        """Ends what still waits for something that will not come."""
        for task in self._tasks:
            if not task.done():
                task.cancel()
        self.choose = lambda count: count - 1
        self.run()
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.exception()  # it was looked at: nobody need complain
        self._tasks.clear()

    # --- what asyncio asks of a loop -------------------------------------------------------------

    def create_task(
        self,
        coro: Any,
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self._as_loop, name=name, context=context)
        self._tasks.append(task)
        return task

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self._as_loop)

    def call_soon(self, callback: Any, *args: Any, context: object = None) -> Any:
        self._ready.append((callback, args))

    def call_later(self, delay: float, callback: Any, *args: Any, context: object = None) -> Any:
        # A pause: whoever takes one lets everybody else go first, unless chance has it otherwise.
        self._ready.insert(0, (callback, args))
        return _NEVER

    def call_at(self, when: float, callback: Any, *args: Any, context: object = None) -> Any:
        return _NEVER

    def time(self) -> float:
        return 0.0

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Nobody reads it: tasks that died with their process need no obituary."""
