"""Since when an agent waits: what it has acknowledged, in time instead of revisions."""

from deltaplane.delta.log import Log
from deltaplane.delta.reader import Reader


class Delays:
    """Of the readers of one log. is_scoped: what happens outside of their spans does not count."""

    def __init__(self, log: Log, *, is_scoped: bool) -> None:
        self._log = log
        self._is_scoped = is_scoped

    def current_at(self, reader: Reader, now: float) -> float | None:
        """When the agent was last up to date, seconds; None: not since it is connected."""
        if not reader.applied:
            return None
        if self._is_scoped and reader.last_touch <= reader.applied:
            return now
        changed_at = self._log.changed_at(self._untouched_through(reader))
        return now if changed_at is None else changed_at

    def unacknowledged_since_ns(self, reader: Reader) -> int | None:
        """When its oldest unacknowledged change was seen, Unix ns; None: there is none."""
        if self._is_scoped and reader.last_touch <= reader.applied:
            return None
        return self._log.oldest_change_between(self._untouched_through(reader), self._log.cut)

    def acknowledged_since_ns(self, reader: Reader, before: int) -> int | None:
        """When the first change between two of its acknowledgements was seen, Unix ns.

        Args:
            reader: the agent's.
            before: the revision that it had acknowledged before.

        Returns:
            None: there was none in its span.
        """
        first = before
        if self._is_scoped:
            if not before < reader.last_touch or reader.first_touch > reader.applied:
                return None
            first = max(before, reader.first_touch - 1)
        return self._log.oldest_change_between(first, reader.applied)

    def _untouched_through(self, reader: Reader) -> int:
        if not self._is_scoped:
            return reader.applied
        return max(reader.applied, reader.first_touch - 1)
