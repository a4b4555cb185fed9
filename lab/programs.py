"""Which processes a lab runs, with which arguments. Pure.

Stages start one after the other, the programs of a stage together.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.layout import Layout
from lab.topology import CONTROL_IPV4, PORTS, PORTS_APART, SERVICE_RANGES, Node, Topology

POOLS = (
    ("pods-ipv4", "10.244.0.0/16", 26),
    ("pods-ipv6", "fd00:10:244::/64", 122),
)
"""(name, prefix, block length) of the pools that `lab up` makes."""


SERVICES = ("ipam", "endpoints", "slicer")


class Stage(enum.IntEnum):
    """When a program starts. Agents need the pools, which need ipam, which needs etcd."""

    STORE = 0
    SERVICES = 1
    NODES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One process to keep alive.

    Attributes:
        name: unique in the lab; names its log.
        argv: program and arguments.
        stage: when it starts.
        health: "http://…" that answers 200 once it serves, or "unix:/…" of a socket that answers
            /health so; empty when it prints a ready line.
        folder: working directory.
    """

    name: str
    argv: tuple[str, ...]
    stage: Stage
    health: str = ""
    folder: str = "/"


def programs(
    plan: Topology, layout: Layout, *, python: str, etcd: Sequence[tuple[Sequence[str], str]]
) -> tuple[Program, ...]:
    """All programs of a lab.

    Args:
        plan: the lab's network.
        layout: the lab's files.
        python: interpreter.
        etcd: command line and working directory of each member.
    """
    result = [
        Program(
            name=numbered("etcd", number),
            argv=tuple(argv),
            stage=Stage.STORE,
            health=_etcd_health(plan, layout, number),
            folder=folder,
        )
        for number, (argv, folder) in enumerate(etcd, 1)
    ]
    for name in SERVICES:
        result += [
            _service(name, replica, plan, layout, python) for replica in range(1, plan.replicas + 1)
        ]
    for node in plan.nodes:
        result.append(_agent(node, plan, layout, python))
        if not plan.in_memory:
            result.append(_podhost(node, plan, layout, python))
    return tuple(result)


def numbered(name: str, number: int) -> str:
    """Name of a replica or member, from 1, among the programs; the first has no number."""
    return name if number == 1 else f"{name}-{number}"


def port(name: str, number: int) -> int:
    """Port of a replica or member, from 1."""
    return PORTS[name] + PORTS_APART * (number - 1)


def etcd_health_port(number: int) -> int:
    """Where a member, from 1, says in plain text that it is well, if clients need a certificate."""
    return port("etcd", number) + 2


def _etcd_health(plan: Topology, layout: Layout, number: int) -> str:
    if plan.in_memory:
        return f"unix:{layout.etcd_socket}"
    known = etcd_health_port(number) if plan.tls else port("etcd", number)
    return f"http://127.0.0.1:{known}/health"


def _etcd(plan: Topology, layout: Layout) -> str:
    """Where services find the members of etcd."""
    if plan.in_memory:
        return f"unix:{layout.etcd_socket}"
    return ",".join(f"127.0.0.1:{port('etcd', n)}" for n in range(1, plan.members + 1))


def _targets(name: str, plan: Topology, layout: Layout) -> str:
    """Where agents find the replicas of a service."""
    numbers = range(1, plan.replicas + 1)
    if plan.in_memory:
        sockets = (layout.service_socket(numbered(name, number)) for number in numbers)
        return ",".join(f"unix:{socket}" for socket in sockets)
    return ",".join(f"{CONTROL_IPV4}:{port(name, number)}" for number in numbers)


def _service(name: str, replica: int, plan: Topology, layout: Layout, python: str) -> Program:
    known = numbered(name, replica)
    argv = [
        *(python, "-m", f"services.{name}"),
        *(() if plan.in_memory else ("--listen", f"{CONTROL_IPV4}:{port(name, replica)}")),
        *("--listen", f"unix:{layout.service_socket(known)}"),
        *("--admin", f"unix:{layout.admin_socket(known)}"),
        *("--etcd", _etcd(plan, layout)),
        *("--trace-ratio", str(plan.trace_ratio)),
        *_security(plan, layout, name),
    ]
    if name == "endpoints":
        for prefix in SERVICE_RANGES:
            argv += ["--service-range", prefix]
    if name == "slicer" and not plan.in_memory:
        argv += ["--advertise", f"{CONTROL_IPV4}:{port(name, replica)}"]
    return Program(name=known, argv=tuple(argv), stage=Stage.SERVICES)


def _security(plan: Topology, layout: Layout, peer: str) -> tuple[str, ...]:
    if plan.tls:
        return ("--tls-dir", str(layout.certificate(peer)))
    return ("--insecure",)


def agent_name(node: str) -> str:
    """Name of a node's agent among the programs."""
    return f"agent-{node}"


def podhost_name(node: str) -> str:
    """Name of a node's pod host among the programs."""
    return f"podhost-{node}"


def _agent(node: Node, plan: Topology, layout: Layout, python: str) -> Program:
    files = layout.node(node.name)
    flags: dict[str, str | Path] = {
        "node-name": node.name,
        "state-dir": files.state,
        "socket": files.cni_socket,
        "listen": f"unix:{files.agent_socket}",
        "admin": f"unix:{files.agent_admin}",
        "registry": _targets("endpoints", plan, layout),
        "ipam": _targets("ipam", plan, layout),
        "slicer": _targets("slicer", plan, layout),
        "zone": plan.zone(node),
        "uplink": "uplink",
        "routing": plan.routing,
        "external-mode": plan.external_mode,
        "trace-ratio": str(plan.trace_ratio),
        "node-ipv4": node.uplink_ipv4,
        "node-ipv6": node.uplink_ipv6,
    }
    if plan.in_memory:
        flags |= {"data-plane": "memory"}
    else:
        flags |= {
            "pin-dir": files.pins,
            "cgroup": plan.group(node.name) or "none",
            "netns": f"/run/netns/{node.namespace}",
        }
    argv = [python, "-m", "nodeagent"]
    for flag, value in flags.items():
        argv += [f"--{flag}", str(value)]
    argv += _security(plan, layout, f"node/{node.name}")
    return Program(name=agent_name(node.name), argv=tuple(argv), stage=Stage.NODES)


def _podhost(node: Node, plan: Topology, layout: Layout, python: str) -> Program:
    argv = [python, "-m", "lab.podhost", "--lab", layout.lab, "--node", node.name]
    if group := plan.group(node.name):
        argv += ["--cgroup", group]
    # It needs nobody: it may load while etcd makes its files.
    return Program(name=podhost_name(node.name), argv=tuple(argv), stage=Stage.STORE)


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """What the programs inherit: neither the caller's settings of Deltaplane and etcd, nor a proxy.

    gRPC would send calls to 198.18.0.1 through an http_proxy.
    """
    proxies = {"http_proxy", "https_proxy", "grpc_proxy", "all_proxy"}
    kept = {
        key: value
        for key, value in inherited.items()
        if key.lower() not in proxies and not key.startswith(("DELTAPLANE_", "ETCD_"))
    }
    return {**kept, "no_proxy": "*", "PYTHONUNBUFFERED": "1"}
