"""The shop of examples/ in a lab, opened once: these tests leave it as it is."""

import json
from collections.abc import Iterator

import pytest

from lab import Lab, manifests
from tests.e2e.conftest import SHOP, Command, command_of, empty


@pytest.fixture(scope="module")
def standing(running_lab: Lab) -> Iterator[Lab]:
    """Opening it takes longer than most of these tests."""
    running_lab.wait_enforced(running_lab.apply([SHOP]))
    yield running_lab
    empty(running_lab)


@pytest.fixture
def ask(standing: Lab) -> Command:
    """The `deltaplane` command on it."""
    return command_of(standing)


def test_policies_hold_exactly_what_they_say(standing: Lab) -> None:
    result = standing.probe()

    assert result.stable
    assert standing.contradictions(result) == ()
    assert 0 < result.allowed < len(result.rows)


def test_applying_again_changes_nothing(standing: Lab) -> None:
    before = standing.pods

    done = standing.apply([SHOP])

    assert (done.pods.added, done.pods.updated, done.pods.removed) == ((), (), ())
    assert standing.pods == before


def test_a_policy_comes_back_as_it_was_written(standing: Lab, ask: Command) -> None:
    text = ask("get", "policy", "frontend", "-n", "shop", "-o", "yaml").stdout

    assert ask("policy", "apply", "-f", "-", stdin=text).returncode == 0
    written = {policy.reference: policy for policy in manifests.read([SHOP]).policies}
    stored = {policy.reference: policy for policy in standing.policies()}
    assert stored == written


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("nodes", 3),
        ("pods", 12),
        ("endpoints", 12),
        ("identities", 7),
        ("policies", 11),
        ("receipts", 11),
        ("namespaces", 2),
        ("pools", 2),
    ],
)
def test_get_lists_what_there_is(standing: Lab, ask: Command, kind: str, count: int) -> None:
    assert standing.pods
    records = json.loads(ask("get", kind, "-o", "json").stdout)

    named = [r for r in records if r.get("namespace", "shop") in ("shop", "monitoring")]
    assert len(named) >= count if kind in ("identities", "namespaces") else len(named) == count
    table = ask("get", kind)
    assert table.returncode == 0
    assert len(table.stdout.splitlines()) >= len(records)


def test_slices_and_endpoints_name_the_same_members(standing: Lab, ask: Command) -> None:
    assert standing.pods
    slices = json.loads(ask("get", "slices", "-o", "json").stdout)
    endpoints = json.loads(ask("get", "endpoints", "-o", "json").stdout)

    assert sum(item["endpoints"] for item in slices) == len(endpoints)
    assert {item["identity"] for item in slices} == {item["identity"] for item in endpoints}


def test_describe_pod_tells_what_isolates_it_and_where_it_is_known(
    standing: Lab, ask: Command
) -> None:
    record = json.loads(ask("describe", "pod", "shop/database-1", "-o", "json").stdout)

    pod = standing.pod("shop/database-1")
    assert record["node"] == pod.node
    assert record["endpoints"][0]["addresses"] == list(pod.addresses)
    assert record["endpoints"][0]["known"] == "3/3 nodes"
    assert record["isolated for ingress by"] == [
        "shop/database",
        "shop/default-deny",
        "shop/metrics",
        "shop/prober",
    ]


def test_exec_runs_in_the_pods_network(standing: Lab, ask: Command) -> None:
    done = ask("lab", "exec", "shop/cart-1", "--", "ip", "-o", "address", "show", "eth0")

    assert done.returncode == 0, done.stderr
    assert all(address in done.stdout for address in standing.pod("shop/cart-1").addresses)
