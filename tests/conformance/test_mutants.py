"""Our own cases catch every wrong evaluator, without the tables of others."""

import pytest

from tests.conformance.policy_mutants import MUTANTS, Mutant
from tests.conformance.test_cases import OWN
from tests.conformance.test_oracles import differences


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_wrong_evaluator_is_caught(mutant: Mutant) -> None:
    with mutant.planted():
        assert any(differences(case)[0] for case in OWN.values())
