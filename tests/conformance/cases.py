"""Cases of the format npcase/v1 as Kubernetes YAML and the rows that must come out.

    for case in load(oracles() / "k8s_e2e_netpol_3x3.json"):
        apply(case.setup())
        for step in case.steps(pod_addresses(case, actual)):
            delete(step.delete); apply(step.apply); compare(step.rows)

The format is described at the top of oracles/netpol_oracle.py; nothing of that file is used here.
Ours has two actions more: "apply" takes a whole Kubernetes object of any kind, "remove" its kind,
namespace ("" for none) and name.
"""

import copy
import ipaddress
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

Plain = dict[str, Any]
"""A JSON object."""

Translate = Callable[[str], str]
"""Turns a prefix of a case, such as "10.244.1.20/32", into the one to put into the policy."""


def oracles() -> Path:
    """The folder of the network policy tables; skips the test where it is absent."""
    folder = Path(__file__).parents[3] / "shared" / "oracles" / "netpol"
    if not folder.is_dir():
        pytest.skip(f"the oracle tables are not at {folder}")
    return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """A pod ("namespace/name"), or something outside ("ext/…") whose namespace is None."""

    name: str
    namespace: str | None
    ipv4: str | None
    ipv6: str | None

    def address(self, family: str) -> str | None:
        return self.ipv4 if family == "IPv4" else self.ipv6


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One connection and what must become of it.

    sides: which sides deny: "E", "I" or "EI"; None: the case does not say.
    """

    source: str
    destination: str
    port: int
    protocol: str
    family: str
    allowed: bool
    sides: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A state of the world.

    delete: YAML of objects that are gone; delete them first.
    apply: YAML of objects that are new or different.
    parties: everybody who is there, by name.
    rows: every connection that the case probes.
    """

    delete: str
    apply: str
    parties: Mapping[str, Party]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A case as it is in the file."""

    name: str
    content: Plain

    def setup(self) -> str:
        """YAML of the namespaces and pods that are there before the first step."""
        return _dump(list(_World(self.content).objects(_same).values()))

    def parties(self) -> Mapping[str, Party]:
        """Everybody who is there before the first step, by name."""
        return _World(self.content).parties()

    def steps(self, translate: Translate | None = None) -> Iterator[Step]:
        """The steps; translate is asked for every cidr and exception of every policy."""
        translate = translate or _same
        world = _World(self.content)
        before = world.objects(translate)
        for step in self.content["steps"]:
            for action in step["actions"]:
                world.act(action)
            now = world.objects(translate)
            yield Step(
                delete=_dump([before[key] for key in before if key not in now]),
                apply=_dump([now[key] for key in now if before.get(key) != now[key]]),
                parties=world.parties(),
                rows=tuple(world.rows(step["expect"])),
            )
            before = now


def load(path: Path) -> tuple[Case, ...]:
    """All cases of a file; what the file says once for all of them is in each."""
    content = json.loads(path.read_text())
    shared = {key: content[key] for key in ("namespaces", "pods", "externals") if key in content}
    return tuple(Case(name=case["name"], content=shared | case) for case in content["cases"])


def pod_addresses(case: Case, actual: Mapping[str, tuple[str, ...]]) -> Translate:
    """A translation that puts the addresses a pod really got in the place of those in the case.

    Args:
        case: the case.
        actual: addresses by "namespace/name".

    Only prefixes of one address are translated: a wider one means a range, not a pod.
    """
    table: dict[str, str] = {}
    for name, party in case.parties().items():
        for address in actual.get(name, ()):
            version = ipaddress.ip_address(address).version
            old = party.address(f"IPv{version}")
            if old is not None:
                bits = 32 if version == 4 else 128
                table[f"{old}/{bits}"] = f"{address}/{bits}"
    return lambda prefix: table.get(prefix, prefix)


class _World:
    """The objects of a case while its actions are carried out."""

    def __init__(self, content: Plain) -> None:
        self.namespaces: dict[str, Plain] = {n["name"]: n["labels"] for n in content["namespaces"]}
        self.pods: dict[tuple[str, str], Plain] = {
            (pod["ns"], pod["name"]): copy.deepcopy(pod) for pod in content["pods"]
        }
        self.externals: list[Plain] = content.get("externals") or []
        self.policies: dict[tuple[str, str], Plain] = {}
        self.others: dict[tuple[str, str, str], Plain] = {}

    def act(self, action: Plain) -> None:
        ((kind, argument),) = action.items()
        match kind:
            case "createPolicy" | "updatePolicy":
                metadata = argument["metadata"]
                self.policies[metadata["namespace"], metadata["name"]] = argument
            case "apply":
                metadata = argument["metadata"]
                key = argument["kind"], metadata.get("namespace", ""), metadata["name"]
                self.others[key] = argument
            case "remove":
                del self.others[tuple(argument)]
            case "deletePolicy":
                del self.policies[argument["namespace"], argument["name"]]
            case "createNamespace" | "setNamespaceLabels":
                self.namespaces[argument["name"]] = argument["labels"]
            case "deleteNamespace":
                self._delete_namespace(argument["name"])
            case "createPod":
                self.pods[argument["ns"], argument["name"]] = copy.deepcopy(argument)
            case "setPodLabels":
                self.pods[argument["ns"], argument["name"]]["labels"] = argument["labels"]
            case "deletePod":
                del self.pods[argument["ns"], argument["name"]]
            case _:
                message = f"unknown action {kind}"
                raise ValueError(message)

    def objects(self, translate: Translate) -> dict[tuple[str, str, str], Plain]:
        """Kubernetes objects by kind, namespace and name."""
        found: dict[tuple[str, str, str], Plain] = {}
        for name, labels in self.namespaces.items():
            metadata = {"name": name, "labels": labels}
            found["Namespace", "", name] = {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": metadata,
            }
        for (namespace, name), pod in self.pods.items():
            found["Pod", namespace, name] = _pod(pod)
        for (namespace, name), policy in self.policies.items():
            found["NetworkPolicy", namespace, name] = _policy(policy, translate)
        return found | self.others

    def parties(self) -> dict[str, Party]:
        found = {}
        for entry in (*self.pods.values(), *self.externals):
            namespace = entry.get("ns")
            name = f"{namespace}/{entry['name']}" if namespace else entry["name"]
            found[name] = Party(
                name=name, namespace=namespace, ipv4=entry.get("ip"), ipv6=entry.get("ip6")
            )
        return found

    def rows(self, expect: Plain) -> Iterator[Row]:
        for probe in expect["probes"]:
            service, _, family = probe.partition("@")
            port, protocol = service.split("/")
            denied = {(d[0], d[1]): d[2:] for d in expect["denied"].get(probe, ())}
            reached = [p for p in self.parties().values() if p.address(family or "IPv4")]
            for source, destination in self._pairs(reached, expect):
                sides = denied.get((source.name, destination.name))
                yield Row(
                    source=source.name,
                    destination=destination.name,
                    port=int(port),
                    protocol=protocol,
                    family=family or "IPv4",
                    allowed=sides is None,
                    sides=sides[0] if sides else None,
                )

    @staticmethod
    def _pairs(parties: list[Party], expect: Plain) -> Iterator[tuple[Party, Party]]:
        for source in parties:
            for destination in parties:
                outside = source.namespace is None and destination.namespace is None
                loopback = source is destination and expect.get("ignoreLoopback")
                if not outside and not loopback:
                    yield source, destination

    def _delete_namespace(self, name: str) -> None:
        del self.namespaces[name]
        self.pods = {key: pod for key, pod in self.pods.items() if key[0] != name}
        self.policies = {key: policy for key, policy in self.policies.items() if key[0] != name}


def _pod(pod: Plain) -> Plain:
    # A name is unique in a container only, so a repeated one goes into a container of its own.
    containers: list[list[Plain]] = [[]]
    for port in pod["ports"]:
        shown = {"containerPort": port["port"], "protocol": port["protocol"], "name": port["name"]}
        for ports in containers:
            if all(other["name"] != port["name"] for other in ports):
                ports.append(shown)
                break
        else:
            containers.append([shown])
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod["name"], "namespace": pod["ns"], "labels": pod["labels"]},
        "spec": {
            "containers": [
                {"name": f"serve-{number}", "image": "serve", "ports": ports}
                for number, ports in enumerate(containers)
            ]
        },
    }


def _policy(policy: Plain, translate: Translate) -> Plain:
    translated = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
    translated |= copy.deepcopy(policy)
    spec: Plain = translated["spec"]  # type: ignore[assignment]
    for rules, peers in (("ingress", "from"), ("egress", "to")):
        for rule in spec.get(rules) or []:
            for peer in rule.get(peers) or []:
                if block := peer.get("ipBlock"):
                    block["cidr"] = translate(block["cidr"])
                    if holes := block.get("except"):
                        block["except"] = [translate(hole) for hole in holes]
    return translated


def _dump(objects: list[Plain]) -> str:
    # JSON objects are YAML documents, and no YAML writer's idea of quoting gets in between.
    return "".join(f"---\n{json.dumps(item, indent=1)}\n" for item in objects)


def _same(prefix: str) -> str:
    return prefix
