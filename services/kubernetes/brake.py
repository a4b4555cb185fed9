"""The brake: what is merely absent from a new list removes nothing in bulk until it is confirmed.

Pure. What a watch says is gone, somebody has deleted. What is only missing from a whole list may as
well be a list that is wrong: of another cluster, of a restored backup, or cut short.
"""

from dataclasses import dataclass

ENTRIES = 100
PERCENT = 10
"""A sweep is held that exceeds both: so many entries, and this part of what the registry holds."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """What would go of one kind.

    Attributes:
        entries: how much, what goes with a namespace included.
        held: how much of it the registry holds.
    """

    entries: int
    held: int

    @property
    def is_too_much(self) -> bool:
        """Whether somebody has to confirm it."""
        return self.entries > ENTRIES and self.entries * 100 > self.held * PERCENT
