"""Whose conditions are written, which registered nodes are strangers, and what is told once."""

import json
from typing import Any

from services.kubernetes.conditions import GatedPods, NodeConditions, cleared, ready
from services.kubernetes.kinds import Kind
from services.kubernetes.pods import GATE
from services.kubernetes.problems import Problems
from services.kubernetes.strangers import GRACE_SECONDS, Strangers
from tests.unit.services.kubernetes.objects import decoded, metadata, pod


def node(name: str, **conditions: str) -> Any:
    listed = [{"type": kind, "status": status} for kind, status in conditions.items()]
    status = {"conditions": listed}
    return decoded(Kind.NODE, {"metadata": metadata(name, ""), "status": status})


def test_nodes_that_are_live_and_do_not_say_so() -> None:
    seen = NodeConditions()
    seen.listed(
        {
            "absent": node("absent", Ready="True"),
            "true": node("true", NetworkUnavailable="True"),
            "cleared": node("cleared", NetworkUnavailable="False"),
            "away": node("away", NetworkUnavailable="True"),
        }
    )
    live = {"absent", "true", "cleared", "elsewhere"}
    assert seen.due(live) == ["absent", "true"]
    seen.changed("true", node("true", NetworkUnavailable="False"))
    seen.changed("absent", None)
    assert seen.due(live) == []
    seen.changed("cleared", node("cleared", NetworkUnavailable="True"))
    assert seen.due(live) == ["cleared"]
    seen.listed({})
    assert seen.due(live) == []


GATED = {"readinessGates": [{"conditionType": GATE}]}


def gated(name: str, status: str | None = None, **spec: Any) -> Any:
    conditions = [] if status is None else [{"type": GATE, "status": status}]
    value = pod(name, spec={**GATED, **spec}, status={"conditions": conditions})
    return decoded(Kind.POD, value)


def test_pods_that_wait_for_the_condition() -> None:
    pods = GatedPods()
    pods.listed(
        {
            "shop/a": gated("a"),
            "shop/b": gated("b", "False"),
            "shop/c": gated("c", "True"),
            "shop/d": decoded(Kind.POD, pod("d")),
            "shop/e": gated("e", hostNetwork=True),
            "shop/f": gated("f", nodeName=""),
        }
    )
    assert pods.waiting == {"shop/a": "uid-a", "shop/b": "uid-b"}
    pods.changed("shop/a", gated("a", "True"))
    pods.changed("shop/b", None)
    pods.changed("shop/c", gated("c"))
    assert pods.waiting == {"shop/c": "uid-c"}
    pods.listed({})
    assert pods.waiting == {}


def test_patches_name_what_they_are_for() -> None:
    body = json.dumps(cleared("2026-11-27T03:00:00Z"))
    assert '"type": "NetworkUnavailable", "status": "False"' in body
    assert ready("uid-1", "2026-11-27T03:00:00Z")["metadata"] == {"uid": "uid-1"}


def test_a_registered_node_that_is_unknown_is_left_alone_for_a_while() -> None:
    strangers = Strangers()
    both = {"known", "new"}
    assert strangers.admit(both, {"known"}, 0.0) == {"known"}
    assert strangers.admit(both, {"known"}, GRACE_SECONDS - 1) == {"known"}
    assert strangers.admit(both, {"known"}, GRACE_SECONDS) == both
    # It became known meanwhile: the time begins again.
    assert strangers.admit(both, both, GRACE_SECONDS) == both
    assert strangers.admit(both, {"known"}, GRACE_SECONDS + 1) == {"known"}


def told(problems: Problems) -> list[tuple[str, str]]:
    found = []
    while problem := problems.take():
        found.append((problem.key, problem.text))
    return found


def test_a_problem_is_told_once_for_each_text() -> None:
    problems = Problems()
    for text in ("wrong", "wrong", "worse", "worse"):
        problems.report(Kind.POD, "shop/a", "uid", text)
        problems.report(Kind.POD, "shop/b", "uid", "")
    assert told(problems) == [("shop/a", "worse")]
    assert problems.of(Kind.POD) == {"shop/a"}
    problems.report(Kind.POD, "shop/a", "uid", "worse")
    assert told(problems) == []


def test_a_problem_that_ended_is_not_told_and_one_that_comes_back_is() -> None:
    problems = Problems()
    problems.report(Kind.POD, "shop/a", "uid", "wrong")
    problems.report(Kind.POD, "shop/a", "uid", "")
    assert problems.of(Kind.POD) == set()
    assert told(problems) == []
    problems.report(Kind.POD, "shop/a", "uid", "wrong")
    problems.forget(Kind.SERVICE, ("shop/a",))
    assert told(problems) == [("shop/a", "wrong")]
    # Another pod of that name.
    problems.report(Kind.POD, "shop/a", "other", "wrong")
    assert told(problems) == [("shop/a", "wrong")]
