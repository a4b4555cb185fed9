"""The Kubernetes project's own NetworkPolicy cases, on the real data path, all in one lab."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from deltaplane import manifest
from lab import Lab, manifests
from tests.conformance.cases import Case, Row, Step, load, oracles, pod_addresses
from tests.e2e.conftest import empty
from tests.e2e.modes import IS_FULL, MODES, NATIVE, Mode, lab_of

FILE = "k8s_e2e_netpol_3x3.json"


def cases() -> tuple[Case, ...]:
    path = Path(__file__).parents[3] / "shared/oracles/netpol" / FILE
    return load(path) if path.exists() else ()


# SCTP travels as packets through BPF_PROG_TEST_RUN: few kernels have SCTP sockets.
WITH_SOCKETS = [case for case in cases() if "[sctp]" not in case.name]


pytestmark = pytest.mark.timeout(240)

SAMPLE = 8
"""Where not every mode is asked for, every so many cases run in the others."""

CASES = [
    pytest.param(mode, case, id=f"{mode}-{case.name}")
    for mode in MODES
    for case in (WITH_SOCKETS if mode == NATIVE or IS_FULL else WITH_SOCKETS[::SAMPLE])
]


@pytest.fixture(scope="module")
def lab_in(running_lab: Lab) -> Iterator[Callable[[Mode], Lab]]:
    """A lab of each mode: nine pods that stay; their labels and ports change from case to case."""
    labs = {NATIVE: running_lab}
    with ExitStack() as stack:

        def find(mode: Mode) -> Lab:
            if mode not in labs:
                labs[mode] = stack.enter_context(contextmanager(lab_of)(mode, nodes=3))
            return labs[mode]

        yield find
    empty(running_lab)


def read(text: str) -> manifests.Manifests:
    return manifests.sort(manifest.parse(text, source="case"))


def test_the_table_is_there() -> None:
    oracles()
    assert len(WITH_SOCKETS) == 45


@pytest.mark.parametrize(("mode", "case"), CASES)
def test_case(lab_in: Callable[[Mode], Lab], mode: Mode, case: Case) -> None:
    shared = lab_in(mode)
    shared.delete(manifests.Manifests(policies=shared.policies()))
    shared.apply(read(case.setup()))
    actual = {pod.reference: pod.addresses for pod in shared.pods}
    assert len(actual) == 9

    for step in case.steps(pod_addresses(case, actual)):
        check_step(shared, step)


def check_step(lab: Lab, step: Step) -> None:
    lab.delete(read(step.delete))
    lab.wait_enforced(lab.apply(read(step.apply)))

    result = lab.probe()

    assert result.stable
    assert result.wrong == ()
    measured = {
        (row.source, row.destination, row.port, row.protocol, row.family): row.allowed
        for row in result.rows
    }
    assert [row for row in step.rows if row.allowed != measured[key(row)]] == []
    # The table is about IPv4; for IPv6 the definition of the policies is the judge.
    assert lab.contradictions(result) == ()


def key(row: Row) -> tuple[str, str, int, str, str]:
    return row.source, row.destination, row.port, row.protocol, row.family.lower()
