"""Mistakes in manifests: all of a file together, each with the place where it is."""

from collections.abc import Sequence
from dataclasses import dataclass

from deltaplane.errors import Invalid


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One thing that is wrong.

    Attributes:
        source: name of the file.
        document: number of the YAML document, from 1.
        line: line in the file, from 1.
        path: place in the object, for example "spec.ingress[0].ports[1].port"; "" is all of it.
        reason: what is wrong and what would be valid.
    """

    source: str
    document: int
    line: int
    path: str
    reason: str

    def __str__(self) -> str:
        place = f"{self.path}: " if self.path else ""
        return f"{self.source}: document {self.document}, line {self.line}: {place}{self.reason}"


class ManifestError(Invalid):
    """A manifest has mistakes; nothing of it may be used.

    Attributes:
        mistakes: all of them, in the order of the file.
    """

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__("", "\n".join(str(mistake) for mistake in mistakes))
        self.mistakes = tuple(mistakes)
