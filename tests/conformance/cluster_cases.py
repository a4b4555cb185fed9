"""cluster_cases.yaml as cases of the format npcase/v1; how it is written stands at its top."""

from collections.abc import Iterator
from pathlib import Path

import yaml

from deltaplane.manifest.fields import API_VERSIONS
from deltaplane.model.annotations import AUDIT
from deltaplane.model.tiers import PolicyKind
from tests.conformance.cases import Case, Plain

FILE = Path(__file__).with_name("cluster_cases.yaml")
OUTSIDE = {"name": "ext/outside", "ip": "192.0.2.9", "ip6": "2001:db8::9"}


def load(path: Path = FILE) -> tuple[Case, ...]:
    """All cases of a file."""
    content = yaml.safe_load(path.read_text())
    shared = {
        "namespaces": [
            {"name": name, "labels": labels} for name, labels in content["namespaces"].items()
        ],
        "pods": [
            {
                "ns": reference.partition("/")[0],
                "name": reference.partition("/")[2],
                "labels": labels,
                "ip": f"10.1.0.{number}",
                "ip6": f"fd01::{number}",
                "ports": content["ports"],
            }
            for number, (reference, labels) in enumerate(content["pods"].items(), 1)
        ],
        "externals": [OUTSIDE],
    }
    pods = tuple(content["pods"])
    return tuple(
        Case(
            name=case["name"],
            content=shared
            | {
                "name": case["name"],
                "steps": [
                    _step(step, case.get("probes", content["probes"]), pods)
                    for step in case["steps"]
                ],
            },
        )
        for case in content["cases"]
    )


def _step(step: Plain, probes: list[str], pods: tuple[str, ...]) -> Plain:
    unknown = step["denied"].keys() - {"", *probes, *(p.partition("/")[2] for p in probes)}
    assert not unknown, f"no probe is {unknown}"
    denied = {probe: list(_denied(step["denied"], probe, pods)) for probe in probes}
    families = {probe + family: denied[probe] for probe in probes for family in ("", "@IPv6")}
    return {
        "actions": [_action(action) for action in step["do"]],
        "expect": {"probes": list(families), "ignoreLoopback": True, "denied": families},
    }


def _action(action: Plain) -> Plain:
    given = action.get("apply")
    return action if given is None else {"apply": _object(given)}


def _object(given: Plain) -> Plain:
    spec = dict(given)
    kind = PolicyKind(spec.pop("kind"))
    metadata: Plain = {n: spec.pop(n) for n in ("name", "namespace") if n in spec}
    if spec.pop("audit", False):
        metadata["annotations"] = {AUDIT: "true"}
    return {
        "apiVersion": API_VERSIONS[kind],
        "kind": kind.value,
        "metadata": metadata,
        "spec": spec,
    }


def _denied(
    expected: dict[str, list[str]], probe: str, pods: tuple[str, ...]
) -> Iterator[list[str]]:
    keys = (probe, probe.partition("/")[2], "")
    lines = next((expected[key] for key in keys if key in expected), [])
    seen: set[tuple[str, str]] = set()
    for line in lines:
        pair, _, sides = line.rpartition(": ")
        source, _, destination = pair.partition(" -> ")
        for one in _parties(source, pods):
            for other in _parties(destination, pods):
                if one != other:
                    assert (one, other) not in seen, f"{one} -> {other} is named twice"
                    seen.add((one, other))
                    yield [one, other, sides]


def _parties(words: str, pods: tuple[str, ...]) -> list[str]:
    if words in ("*", "all"):
        return [*pods, *([str(OUTSIDE["name"])] if words == "all" else [])]
    namespace, _, name = words.partition("/")
    if name == "*":
        return [pod for pod in pods if pod.startswith(f"{namespace}/")]
    assert words in (*pods, OUTSIDE["name"]), f"there is no {words}"
    return [words]
