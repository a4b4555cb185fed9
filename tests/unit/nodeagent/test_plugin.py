import sqlite3
from types import SimpleNamespace
from typing import Any

import pytest

from nodeagent.cni.netconf import Attachment, Call
from nodeagent.cni.result import CniError, Code
from nodeagent.plugin import Plugin


def call(command: str) -> Call:
    attachment = Attachment(network="lan", container_id="c", ifname="eth0")
    return Call(
        command=command,
        version="1.0.0",
        attachment=attachment,
        netns="",
        pod=None,
        valid_attachments=None,
        delegated=True,
    )


class FullDisk:
    """A spool, and interfaces, whose file has no room left."""

    def __init__(self) -> None:
        self._database = sqlite3.connect(":memory:", isolation_level=None)
        self._database.execute("PRAGMA max_page_count=1")

    async def replay(self) -> None:
        self._database.execute("CREATE TABLE one (number INTEGER)")


async def test_an_add_on_a_full_disk_says_so() -> None:
    parts: dict[str, Any] = dict.fromkeys(
        ("interfaces", "releases", "journal", "blocks", "stream", "links", "clock")
    )
    applier: Any = SimpleNamespace(tracker=SimpleNamespace(node_index=1))
    spool: Any = FullDisk()
    plugin = Plugin(**parts, applier=applier, spool=spool)

    with pytest.raises(CniError, match="cannot write its state: database or disk is full") as told:
        await plugin.handle(call("ADD"), None)

    assert told.value.code is Code.IO_FAILURE
