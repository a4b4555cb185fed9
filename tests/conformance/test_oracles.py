"""Every table that others wrote, through parser, compiler and resolver, with no difference."""

import pytest

from tests.conformance.cases import Case, load, oracles
from tests.conformance.world import World

TABLES = (
    "k8s_e2e_netpol.json",
    "k8s_e2e_netpol_3x3.json",
    "cyclonus_cases.json",
    "cilium_knp.json",
    "random_300.json",
)


def differences(case: Case) -> tuple[list[str], int]:
    """What differs, and how many rows were compared."""
    world = World()
    world.apply(case.setup())
    found: list[str] = []
    compared = 0
    for number, step in enumerate(case.steps()):
        world.delete(step.delete)
        world.apply(step.apply)
        world.settle()
        for row in step.rows:
            compared += 1
            sides = world.sides(row, step.parties)
            if (sides == "") != row.allowed or (row.sides is not None and row.sides != sides):
                found.append(f"{case.name}, step {number}: {row}, but denying: {sides!r}")
    return found, compared


@pytest.mark.timeout(300)
@pytest.mark.parametrize("table", TABLES)
def test_no_row_differs(table: str) -> None:
    rows = 0
    for case in load(oracles() / table):
        found, compared = differences(case)
        assert not found, "\n".join(found[:5])
        rows += compared
    # A table that was read as empty would have passed as well.
    assert rows > 100
