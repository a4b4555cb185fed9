"""Something that goes on in a thread while something else is measured."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def background(work: Callable[[threading.Event], None], name: str) -> Iterator[None]:
    """Runs `work` until the end of the block, which sets the event that it is given.

    Raises:
        BaseException: what `work` raised, at the end of the block.
    """
    over = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work(over)
        except BaseException as error:  # noqa: BLE001 - told to who has started it
            failures.append(error)

    thread = threading.Thread(target=run, name=name)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if failures:
        raise failures[0]
