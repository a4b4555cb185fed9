"""The C library that fills Maglev tables; with libFuzzer in buffers of exactly their size."""

from array import array
from collections.abc import Sequence

from nodeagent import tables
from nodeagent.dataplane.balancing import Backend
from nodeagent.services import maglev

LARGEST = 6000
"""Entries; that is enough for every way through the loop."""


class MaglevTarget:
    """Two bytes: the entries. The rest: backends, four bytes each."""

    def __init__(self) -> None:
        self._fill = tables.best_fill()

    def seeds(self) -> Sequence[bytes]:
        """One backend, some, more than there are entries; walks that begin alike."""
        return [
            (entries - 1).to_bytes(2) + bytes(n * shift % 256 for n in range(4 * backends))
            for entries, backends in ((1, 1), (7, 3), (3, 9), (2000, 20), (1024, 64))
            for shift in (0, 1, 37)
        ]

    def words(self) -> Sequence[bytes]:
        """None."""
        return ()

    def feed(self, data: bytes) -> None:
        """One table: as the reference in Python makes it."""
        backends = [data[at : at + 4] for at in range(2, len(data) - 3, 4)]
        if not backends:
            return
        entries = int.from_bytes(data[:2]) % LARGEST + 1
        # Walks of hashes: one that is not could look for the last free entry for minutes.
        walks = b"".join(maglev.walk(Backend(address=it * 4, port=80)) for it in backends)
        places = array("H", range(len(backends)))
        assert self._fill(entries, walks, places) == maglev.fill(entries, walks, places)

    def close(self) -> None:
        """Nothing to let go of."""
