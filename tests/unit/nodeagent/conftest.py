"""What several tests of the agent start."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nodeagent import interfaces, releases, resuming
from tests.unit.nodeagent.planes import Plane, running


@pytest.fixture
async def plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Plane]:
    monkeypatch.setattr(interfaces, "OPEN_SECONDS", 0.05)
    monkeypatch.setattr(resuming, "RETRY_SECONDS", (0.01, 0.02))
    monkeypatch.setattr(releases, "RETRY_SECONDS", (0.01, 0.02))
    async with running(tmp_path) as made:
        yield made
