from typing import cast

from tests.chaos.churn import Churn
from tests.chaos.spray import Spray
from tests.chaos.world import steps


def test_changes_that_break_off_are_a_problem() -> None:
    churn = Churn((), cast("Spray", None), print)

    churn.run(steps(1, ("node-1",)))

    (problem,) = churn.problems
    assert problem.startswith("changes broke off after step 0: IndexError")
