"""ClusterNetworkPolicy and its predecessors: our cases of the API's rules, judged twice."""

import pytest

from deltaplane.manifest import GeneralPolicyManifest, PolicyManifest, parse
from deltaplane.model.identity import Identity, Reserved
from deltaplane.model.ports import Protocol
from tests.conformance import cluster_cases
from tests.conformance.cases import Case, Row, Step
from tests.conformance.test_oracles import differences
from tests.conformance.world import World
from tests.unit.deltaplane.policy import brute_force

CASES = {case.name: case for case in cluster_cases.load()}


@pytest.mark.parametrize("name", CASES)
def test_the_compiler_says_what_the_case_says(name: str) -> None:
    found, compared = differences(CASES[name])
    assert not found, "\n".join(found[:20])
    assert compared >= 500


@pytest.mark.parametrize("name", CASES)
def test_the_rules_read_word_by_word_say_it_too(name: str) -> None:
    """So that case and compiler do not share a mistake."""
    found = list(_contradictions(CASES[name]))
    assert not found, "\n".join(found[:20])


def test_a_wrong_expectation_is_a_difference() -> None:
    case = CASES["both sides are asked"]
    content = case.content | {"steps": [dict(step) for step in case.content["steps"]]}
    expect = content["steps"][0]["expect"]
    content["steps"][0]["expect"] = expect | {"denied": expect["denied"] | {"80/TCP": []}}
    wrong = Case(name="wrong", content=content)
    assert len(differences(wrong)[0]) == len(list(_contradictions(wrong))) == 4


def _contradictions(case: Case) -> list[str]:
    world = World()
    world.apply(case.setup())
    policies: dict[str, brute_force.AnyPolicy] = {}
    found = []
    for number, step in enumerate(case.steps()):
        for text, gone in ((step.delete, True), (step.apply, False)):
            for manifest in parse(text, "step.yaml"):
                if isinstance(manifest, PolicyManifest | GeneralPolicyManifest):
                    reference = manifest.policy.reference
                    policies.pop(reference, None)
                    if not gone:
                        policies[reference] = manifest.policy
        world.delete(step.delete)
        world.apply(step.apply)
        world.settle()
        for row in step.rows:
            sides = _sides(row, step, world, list(policies.values()))
            if sides != (row.sides or ""):
                found.append(f"{case.name}, step {number}: {row}, but denying: {sides!r}")
    return found


def _sides(row: Row, step: Step, world: World, policies: list[brute_force.AnyPolicy]) -> str:
    source, destination = (step.parties[name] for name in (row.source, row.destination))
    addresses = source.address(row.family), destination.address(row.family)
    assert addresses[0] is not None
    assert addresses[1] is not None
    packet = brute_force.Packet(
        source=_end(row.source, world),
        source_address=addresses[0],
        destination=_end(row.destination, world),
        destination_address=addresses[1],
        protocol=Protocol[row.protocol],
        port=row.port,
    )
    sides = (("E", True), ("I", False))
    return "".join(
        letter
        for letter, outgoing in sides
        if not brute_force.allowed(policies, packet, outgoing=outgoing)
    )


def _end(name: str, world: World) -> brute_force.End:
    number = world.identity(name)
    known = {number: label_set for label_set, number in world.numbers.items()}
    return Identity(number, known[number]) if number in known else Reserved(number)
