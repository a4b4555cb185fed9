import asyncio

import pytest

from deltaplane.errors import Conflict, Unavailable
from deltaplane.store.retry import compare_and_swap


class Attempts:
    """Answers in turn; raises what is an exception. The last one is repeated."""

    def __init__(self, *answers: str | Exception | None) -> None:
        self.answers = list(answers)
        self.count = 0

    async def __call__(self) -> str | None:
        answer = self.answers[min(self.count, len(self.answers) - 1)]
        self.count += 1
        if isinstance(answer, Exception):
            raise answer
        return answer


class Pauses:
    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


async def test_the_first_success_is_the_result() -> None:
    attempts, pauses = Attempts("done"), Pauses()
    assert await compare_and_swap(attempts, pause=pauses) == "done"
    assert (attempts.count, pauses.seconds) == (1, [])


async def test_a_lost_race_and_a_lost_answer_are_repeated() -> None:
    attempts = Attempts(None, Unavailable("hang"), None, "done")
    assert await compare_and_swap(attempts, pause=Pauses()) == "done"
    assert attempts.count == 4


async def test_an_empty_result_is_a_result() -> None:
    assert await compare_and_swap(Attempts(None, ""), pause=Pauses()) == ""


async def test_other_errors_are_final() -> None:
    attempts = Attempts(Conflict("taken"), "done")
    with pytest.raises(Conflict):
        await compare_and_swap(attempts, pause=Pauses())
    assert attempts.count == 1


async def test_pauses_grow_to_a_limit_and_differ() -> None:
    pauses = Pauses()
    await compare_and_swap(Attempts(*[None] * 200, "done"), pause=pauses)
    for number, seconds in enumerate(pauses.seconds):
        assert 0 <= seconds <= min(0.002 * 2**number, 0.2)
    assert max(pauses.seconds) > 0.1
    assert len(set(pauses.seconds)) > 150


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(None, "others kept writing"), (Unavailable("etcd is away"), "etcd is away")],
)
async def test_giving_up_says_why(answer: Exception | None, reason: str) -> None:
    with pytest.raises(Unavailable, match=reason):
        await compare_and_swap(Attempts(answer), deadline_seconds=0.05, pause=Pauses())


async def test_an_attempt_that_hangs_is_cut_off() -> None:
    async def attempt() -> str:
        await asyncio.Event().wait()
        return "never"

    with pytest.raises(Unavailable, match=r"gave up after 0\.05 s"):
        await compare_and_swap(attempt, deadline_seconds=0.05)
