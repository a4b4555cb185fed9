import asyncio
import threading

import pytest

from nodeagent.worker import Worker


async def test_calls_run_one_after_another_in_one_thread() -> None:
    worker, seen = Worker("test"), []

    def note(number: int) -> int:
        seen.append((number, threading.get_ident()))
        return number

    assert await asyncio.gather(*(worker.call(note, n) for n in range(9))) == list(range(9))
    assert [number for number, _ in seen] == list(range(9))
    assert len({thread for _, thread in seen}) == 1
    worker.close()


async def test_a_cancelled_caller_is_released_when_its_call_has_ended() -> None:
    worker, started, go_on = Worker("test"), threading.Event(), threading.Event()

    def slow() -> None:
        started.set()
        go_on.wait(5)

    running = asyncio.ensure_future(worker.call(slow))
    await asyncio.to_thread(started.wait, 5)
    waiting = asyncio.ensure_future(worker.call(started.clear))
    await asyncio.sleep(0)
    running.cancel()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not running.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    # The call that had not begun never did.
    assert started.is_set()
    worker.close()
