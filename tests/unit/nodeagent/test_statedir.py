from pathlib import Path

import pytest

from deltaplane.errors import Refused
from nodeagent import statedir


def test_one_agent_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with statedir.lock(folder):
        assert folder.stat().st_mode & 0o777 == 0o700
        with pytest.raises(Refused, match="another agent"):
            statedir.lock(folder)
    statedir.lock(folder).close()


def test_the_uid_is_made_once(tmp_path: Path) -> None:
    first = statedir.node_uid(tmp_path)
    assert statedir.node_uid(tmp_path) == first
    assert [path.name for path in tmp_path.iterdir()] == [statedir.UID_FILE]


def test_a_draft_of_a_killed_agent_is_no_uid(tmp_path: Path) -> None:
    (tmp_path / "node.new").write_text("")
    assert len(statedir.node_uid(tmp_path)) == 36


def test_a_file_without_a_uid_is_refused(tmp_path: Path) -> None:
    for torn in (b"half", b"", b"\xff"):
        (tmp_path / statedir.UID_FILE).write_bytes(torn)
        with pytest.raises(Refused, match="holds no UID"):
            statedir.node_uid(tmp_path)
