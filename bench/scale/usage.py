"""What processes and etcd have used so far: CPU, memory, reads and writes."""

import http.client
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench import scraping

SAMPLE = re.compile(r"(\w+) (\S+)")
TIMEOUT_SECONDS = 5.0

RANGES = "etcd_debugging_mvcc_range_total"
WATCHERS = "etcd_debugging_mvcc_watcher_total"
TRANSACTIONS = "etcd_debugging_mvcc_txn_total"
OLD_AND_NEW = {
    RANGES: ("etcd_mvcc_range_total", RANGES),
    WATCHERS: (WATCHERS,),
    TRANSACTIONS: ("etcd_mvcc_txn_total", TRANSACTIONS),
    "puts": ("etcd_mvcc_put_total", "etcd_debugging_mvcc_put_total"),
    "deletes": ("etcd_mvcc_delete_total", "etcd_debugging_mvcc_delete_total"),
}
"""Names of a counter in different versions of etcd; the first that is there counts."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Counters at one moment; `since` makes differences of them.

    Attributes:
        cpu: seconds by process.
        rss: bytes by process; a level, not a counter.
        etcd: reads, transactions, puts and deletes since it began, and watches now.
    """

    cpu: Mapping[str, float] = field(default_factory=dict)
    rss: Mapping[str, int] = field(default_factory=dict)
    etcd: Mapping[str, float] = field(default_factory=dict)

    def since(self, before: "Usage") -> "Usage":
        """What was used after a moment; levels stay levels."""
        return Usage(
            cpu={name: used - before.cpu.get(name, 0.0) for name, used in self.cpu.items()},
            rss=self.rss,
            etcd={
                name: value if name == "watches" else value - before.etcd.get(name, 0.0)
                for name, value in self.etcd.items()
            },
        )


def usage(pids: Mapping[str, int], etcd_socket: Path) -> Usage:
    """Reads /proc and etcd's metrics. pids: by a name for the report."""
    return Usage(
        cpu={name: scraping.cpu_seconds(pid) for name, pid in pids.items()},
        rss={name: resident_bytes(pid) for name, pid in pids.items()},
        etcd=etcd_counters(etcd_socket),
    )


def resident_bytes(pid: int) -> int:
    """Memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def etcd_counters(etcd_socket: Path) -> dict[str, float]:
    """Reads, transactions, puts, deletes and watches of an etcd on a unix socket."""
    connection = http.client.HTTPConnection("localhost", timeout=TIMEOUT_SECONDS)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.settimeout(TIMEOUT_SECONDS)
    connection.sock.connect(str(etcd_socket))
    try:
        connection.request("GET", "/metrics")
        return parse_counters(connection.getresponse().read().decode())
    finally:
        connection.close()


def parse_counters(exposition: str) -> dict[str, float]:
    """Reads the counters out of etcd's metrics page."""
    samples = {
        found[1]: float(found[2])
        for line in exposition.splitlines()
        if (found := SAMPLE.fullmatch(line))
    }
    names = {RANGES: "reads", WATCHERS: "watches", TRANSACTIONS: "transactions"}
    return {
        names.get(name, name): next((samples[n] for n in spelt if n in samples), 0.0)
        for name, spelt in OLD_AND_NEW.items()
    }
