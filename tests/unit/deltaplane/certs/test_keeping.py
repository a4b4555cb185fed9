import signal
import subprocess
import sys

import pytest

from deltaplane.certs import keeping


class Enough(Exception):
    pass


def pauses(codes: list[int], chance: float) -> list[float]:
    """How long it waits after each of these exit codes."""
    waited: list[float] = []
    left = iter(codes)

    def pause(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == len(codes):
            raise Enough

    with pytest.raises(Enough):
        keeping.keep(lambda: next(left), pause, lambda: chance)
    return waited


def test_once_an_hour_and_sooner_after_failures() -> None:
    assert pauses([0, 0, 1, 1, 3, 0, 1], 0.0) == [3240, 3240, 10, 20, 40, 3240, 10]
    assert pauses([0, 1], 0.5) == [3600, 15]
    assert max(pauses([1] * 1200, 1.0)) == 1200


def test_it_ends_when_it_is_told_to() -> None:
    command = [sys.executable, "-m", "deltaplane.certs.keeping", "echo", "ran"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ran\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    process.stdout.close()


def test_it_brings_nothing_along() -> None:
    """It stands on every node for ever."""
    program = "import deltaplane.certs.keeping, sys; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    heavy = {"grpc", "cryptography", "msgspec", "asyncio", "ssl", "typer"}
    assert not heavy & set(found.stdout.split())
