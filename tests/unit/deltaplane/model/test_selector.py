"""Selectors: what they match, and that equal ones are equal."""

import pytest

from deltaplane.model.selector import LabelSelector, Operator, Requirement

WEB = {"app": "web"}


@pytest.mark.parametrize(
    ("requirement", "matching", "other"),
    [
        (Requirement("app", Operator.IN, ("web", "db")), [WEB], [{}, {"app": "x"}]),
        (Requirement("app", Operator.NOT_IN, ("db",)), [WEB, {}], [{"app": "db"}]),
        (Requirement("app", Operator.EXISTS), [WEB, {"app": ""}], [{}]),
        (Requirement("app", Operator.DOES_NOT_EXIST), [{}, {"b": "c"}], [WEB]),
    ],
)
def test_a_requirement(
    requirement: Requirement, matching: list[dict[str, str]], other: list[dict[str, str]]
) -> None:
    assert all(requirement.matches(labels) for labels in matching)
    assert not any(requirement.matches(labels) for labels in other)


def test_an_empty_value_is_not_an_absent_label() -> None:
    assert not Requirement("app", Operator.IN, ("",)).matches({})


def test_a_selector_is_the_conjunction_and_the_empty_one_matches_everything() -> None:
    selector = LabelSelector.of({"app": "web", "tier": "a"})
    assert selector.matches({"app": "web", "tier": "a", "b": "c"})
    assert not selector.matches(WEB)
    assert LabelSelector().matches({})


def test_selectors_with_the_same_meaning_written_differently_are_equal() -> None:
    one = LabelSelector(
        (
            Requirement("b", Operator.EXISTS),
            Requirement("a", Operator.IN, ("y", "x", "x")),
            Requirement("b", Operator.EXISTS),
        )
    )
    other = LabelSelector(
        (Requirement("a", Operator.IN, ("x", "y")), Requirement("b", Operator.EXISTS))
    )
    assert one == other
    assert str(one) == "a In (x,y),b Exists"


@pytest.mark.parametrize(
    ("operator", "values"), [(Operator.IN, ()), (Operator.NOT_IN, ()), (Operator.EXISTS, ("a",))]
)
def test_values_fit_the_operator(operator: Operator, values: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="takes"):
        Requirement("a", operator, values)
