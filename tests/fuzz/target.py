"""What is fuzzed: something that takes bytes from outside. A port: each target is one adapter."""

from collections.abc import Sequence
from typing import Protocol


class Target(Protocol):
    """Takes inputs one after another. Close it."""

    def seeds(self) -> Sequence[bytes]:
        """Inputs to begin with, one or more; none of them breaks anything."""
        ...

    def words(self) -> Sequence[bytes]:
        """What inputs are made of; may be empty."""
        ...

    def feed(self, data: bytes) -> None:
        """Takes an input. Raises for whatever no input may bring about; a typed refusal is fine."""
        ...

    def close(self) -> None:
        """Lets go of what it holds."""
        ...
