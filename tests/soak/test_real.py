"""Some of the runs on a real etcd and on journal files."""

import asyncio
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deltaplane.store.embedded import EtcdProcess, find_etcd
from tests.soak.real import Etcd, Machines
from tests.soak.stories import play

RUNS = 5


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    with tempfile.TemporaryDirectory(prefix="dp-etcd-") as folder:
        process = EtcdProcess(find_etcd(), Path(folder))
        asyncio.run(process.start())
        try:
            with Etcd(process.endpoint) as etcd:
                yield Machines(etcd, tmp_path)
        finally:
            asyncio.run(process.stop())


@pytest.mark.timeout(180)
def test_real_stores_break_nothing_either(machines: Machines) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    for number in range(seed, seed + RUNS):
        outcome = play(f"r{number}", make=machines)
        assert not outcome.broken, (outcome.name, outcome.told, outcome.broken)
