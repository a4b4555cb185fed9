"""Kubernetes label selectors."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Operator(enum.StrEnum):
    """The operators of a requirement, spelt as in the Kubernetes API."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True, order=True)
class Requirement:
    """One requirement of a selector.

    Attributes:
        key: label key.
        operator: how to compare.
        values: one or more for IN and NOT_IN, ascending; empty otherwise.
    """

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.operator in (Operator.IN, Operator.NOT_IN)) != bool(self.values):
            message = f"{self.key}: {self.operator} takes {'no ' if self.values else ''}values"
            raise ValueError(message)
        object.__setattr__(self, "values", tuple(sorted(set(self.values))))

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a label set meets the requirement. NOT_IN holds for an absent key."""
        match self.operator:
            case Operator.IN:
                return labels.get(self.key) in self.values
            case Operator.NOT_IN:
                return labels.get(self.key) not in self.values
            case Operator.EXISTS:
                return self.key in labels
            case Operator.DOES_NOT_EXIST:
                return self.key not in labels


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """A label selector; the empty one matches everything.

    Attributes:
        requirements: all of them must hold; kept ascending and without repeats, matchLabels as IN
            of one value,
            so that equal selectors compare equal.
    """

    requirements: tuple[Requirement, ...] = field(default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "requirements", tuple(sorted(set(self.requirements))))

    @classmethod
    def of(cls, labels: Mapping[str, str]) -> "LabelSelector":
        """The selector of matchLabels."""
        return cls(tuple(Requirement(key, Operator.IN, (value,)) for key, value in labels.items()))

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a label set meets every requirement."""
        return all(requirement.matches(labels) for requirement in self.requirements)

    def __str__(self) -> str:
        return ",".join(
            f"{r.key} {r.operator} ({','.join(r.values)})" if r.values else f"{r.key} {r.operator}"
            for r in self.requirements
        )
