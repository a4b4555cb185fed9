"""Our own few cases, and what `cases` makes of a case."""

import json
from pathlib import Path

import pytest

from deltaplane.manifest import NamespaceManifest, PodManifest, PolicyManifest, parse
from tests.conformance.cases import Case, load, pod_addresses
from tests.conformance.test_oracles import differences

FILES = ("shop_cases.json", "rule_cases.json")
OWN = {case.name: case for file in FILES for case in load(Path(__file__).with_name(file))}


@pytest.mark.parametrize("name", OWN)
def test_an_own_case(name: str) -> None:
    found, compared = differences(OWN[name])
    assert not found, "\n".join(found)
    assert compared >= 40


def test_a_wrong_expectation_is_a_difference() -> None:
    content = json.loads(json.dumps(OWN["without policies everything passes"].content))
    content["steps"][0]["expect"]["denied"]["80/TCP"] = [["shop/web", "shop/api"]]
    found, _ = differences(Case(name="wrong", content=content))
    assert len(found) == 1
    side = json.loads(json.dumps(OWN["deny all into the api"].content))
    side["steps"][0]["expect"]["denied"]["80/TCP"][0][2] = "E"
    assert len(differences(Case(name="side", content=side))[0]) == 1


def test_a_case_is_set_up_with_its_namespaces_and_pods() -> None:
    manifests = parse(OWN["a range of ports"].setup(), "setup.yaml")
    names = [m.name for m in manifests if isinstance(m, NamespaceManifest)]
    assert names == ["shop", "bank"]
    pods = [m for m in manifests if isinstance(m, PodManifest)]
    assert [(p.namespace, p.name) for p in pods] == [
        ("shop", "web"),
        ("shop", "api"),
        ("bank", "web"),
    ]
    # A name for two protocols needs two containers.
    assert len(pods[1].named_ports) == 2


def test_a_step_says_what_to_delete_and_what_to_apply() -> None:
    steps = list(OWN["the label of a namespace changes"].steps())
    first, second, third = ([*parse(s.delete, "d"), None, *parse(s.apply, "a")] for s in steps)
    assert first[0] is None
    assert isinstance(first[1], PolicyManifest)
    assert second == [
        None,
        NamespaceManifest(name="bank", labels=(("kubernetes.io/metadata.name", "bank"),)),
    ]
    assert isinstance(third[0], PolicyManifest)
    assert third[1:] == [None]


def test_addresses_of_pods_are_those_they_really_got() -> None:
    case = OWN["a block with an exception, one family"]
    translate = pod_addresses(case, {"bank/web": ("10.244.7.7", "fd00:10:244::7")})
    (step,) = case.steps(translate)
    (manifest,) = parse(step.apply, "p.yaml")
    assert isinstance(manifest, PolicyManifest)
    block = manifest.policy.ingress[0].peers[0].ip_block
    assert block is not None
    assert [str(hole) for hole in block.except_] == ["10.244.7.7/32"]
    assert str(block.cidr) == "0.0.0.0/0"
    assert translate("fd01::3/128") == "fd00:10:244::7/128"
    assert translate("10.1.0.0/24") == "10.1.0.0/24"
