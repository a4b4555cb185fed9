"""What a process says about itself: its metrics, and the CPU time that the kernel counts for it."""

import http.client
import re
import socket
from collections.abc import Mapping
from pathlib import Path

SAMPLE = re.compile(r'deltaplane_(\w+)_sum(?:\{\w+="(\w+)"\})? (\S+)')
TIMEOUT_SECONDS = 5.0

Sums = Mapping[tuple[str, str], float]
"""(name of a histogram without the prefix, value of its only label or "") → sum of its samples."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_SECONDS)
        self.sock.connect(str(self._path))


def histogram_sums(admin: Path) -> Sums:
    """The sums of all histograms of a process. Between two calls of one thing: what it took."""
    connection = _UnixConnection(admin)
    try:
        connection.request("GET", "/metrics")
        return parse_sums(connection.getresponse().read().decode())
    finally:
        connection.close()


def parse_sums(exposition: str) -> Sums:
    """Reads the sums out of a metrics page."""
    return {
        (found[1], found[2] or ""): float(found[3])
        for line in exposition.splitlines()
        if (found := SAMPLE.fullmatch(line))
    }


def cpu_seconds(pid: int) -> float:
    """CPU time of the threads that a process has now, to the nanosecond."""
    return (
        sum(
            int((task / "schedstat").read_text().split()[0])
            for task in Path(f"/proc/{pid}/task").iterdir()
        )
        / 1e9
    )
