"""Splits the bytes of a watch into lines: no byte is copied twice, no line is endless."""

from deltaplane.errors import Unavailable

LONGEST_LINE_BYTES = 16 << 20
"""etcd refuses objects above 1.5 MiB; as JSON with an event around it one is several times that."""


class Lines:
    """Takes chunks as they come and gives the lines that are complete."""

    def __init__(self, longest_bytes: int = LONGEST_LINE_BYTES) -> None:
        self._longest = longest_bytes
        # The pieces of the unfinished line: joined once, not each time one comes.
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that this chunk completes, without their ends; empty lines are left out.

        Raises:
            Unavailable: a line is longer than allowed; the stream is of no more use.
        """
        *complete, rest = chunk.split(b"\n")
        if complete:
            complete[0] = b"".join((*self._pieces, complete[0]))
            self._pieces.clear()
            self._size = 0
        self._size += len(rest)
        if self._size > self._longest or any(len(line) > self._longest for line in complete):
            raise Unavailable(f"a line of a watch is longer than {self._longest} bytes")
        if rest:
            self._pieces.append(rest)
        return [line for line in complete if line and not line.isspace()]
