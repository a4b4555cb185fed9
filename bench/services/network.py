"""Two nodes, a client behind one and a server with all backends' addresses behind the other.

    client ─── node-1 (rules) ─── uplink ─── node-2 ─── server

Every address of the shape is the server's, so whatever backend is drawn answers.
"""

import enum
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.datapath import world
from bench.datapath.network import CLIENT_NODE, SERVER_NODE, Network, addresses, plain
from bench.services import rules
from bench.services.shape import BACKENDS, PORT, TARGET_PORT, BenchService
from deltaplane.errors import Internal
from deltaplane.model.addresses import format_address, to_mapped
from lab import netns
from nodeagent.dataplane import bpffs, cgroups
from nodeagent.dataplane.balancing import Backend, Frontend, FrontendKey, Slot
from nodeagent.dataplane.config import DataPlaneConfig
from nodeagent.dataplane.kernel import KernelDataPlane

_SECONDS_TO_LOAD = 120
_TCP = 6


class Proxy(enum.StrEnum):
    """What translates services. DIRECT: nothing, clients connect to a backend."""

    DIRECT = "direct"
    SOCKETS = "deltaplane"
    IPTABLES_LEGACY = "iptables-legacy"
    IPTABLES_NFT = "iptables-nft"
    NFTABLES = "nftables"


RESTORE = {
    (Proxy.IPTABLES_LEGACY, 4): ("iptables-legacy-restore",),
    (Proxy.IPTABLES_LEGACY, 6): ("ip6tables-legacy-restore",),
    (Proxy.IPTABLES_NFT, 4): ("iptables-nft-restore",),
    (Proxy.IPTABLES_NFT, 6): ("ip6tables-nft-restore",),
    (Proxy.NFTABLES, 4): ("nft", "-f", "-"),
    (Proxy.NFTABLES, 6): ("nft", "-f", "-"),
}


@contextmanager
def served(
    name: str, proxy: Proxy, shape: dict[int, tuple[BenchService, ...]]
) -> Iterator[Network]:
    """The nodes, with a proxy's rules at the client's.

    Args:
        name: what the names of the namespaces begin with.
        proxy: whose rules.
        shape: services by family, 4 and 6.

    Raises:
        OSError: no privilege, or a tool is missing.
        Internal: the rules are refused.
        Unavailable: nothing passes.
    """
    with plain(name) as network:
        _open(network)
        for family, services in shape.items():
            load_rules(network, proxy, family, services)
        yield network


def load_rules(
    network: Network, proxy: Proxy, family: int, services: tuple[BenchService, ...]
) -> None:
    """Puts the rules of a proxy at the client's node, in the place of older ones.

    Raises:
        OSError: the tool is missing.
        Internal: it refuses them.
    """
    if proxy in (Proxy.DIRECT, Proxy.SOCKETS):
        return
    make = rules.nftables if proxy is Proxy.NFTABLES else rules.iptables
    restore(network, RESTORE[proxy, family], make(services, family))


def restore(network: Network, command: Sequence[str], text: str) -> None:
    """Gives rules to a tool at the client's node.

    Raises:
        OSError: the tool is missing.
        Internal: it refuses them.
    """
    with netns.entered(network.node(CLIENT_NODE)):
        ended = subprocess.run(
            command,
            input=text,
            text=True,
            capture_output=True,
            check=False,
            timeout=_SECONDS_TO_LOAD,
        )
    if ended.returncode != 0:
        raise Internal(f"{' '.join(command)}: {ended.stderr.strip()[:500]}")


def _open(network: Network) -> None:
    """All backends' addresses lead to the server, and are its own."""
    hop = world.uplink(SERVER_NODE)
    pod = addresses(SERVER_NODE)
    with netns.entered(network.node(SERVER_NODE)):
        (link,) = (name for _, name in socket.if_nameindex() if name not in ("lo", "uplink"))
    for family, word, uplink in ((4, "ipv4", hop.ipv4), (6, "ipv6", hop.ipv6)):
        assert uplink is not None, "all of this world have both families"
        there = f"route add {BACKENDS[family]}"
        to_node = f"{there} via {format_address(uplink)} dev uplink"
        netns.ip_batch(network.node(CLIENT_NODE), [to_node])
        netns.ip_batch(network.node(SERVER_NODE), [f"{there} via {pod[word]} dev {link} onlink"])
        own = f"route add local {BACKENDS[family]} dev lo"
        netns.ip_batch(network.pod(SERVER_NODE), [own])


@contextmanager
def balanced(
    name: str, mount: Path, cgroup: Path, shape: dict[int, tuple[BenchService, ...]]
) -> Iterator[Network]:
    """The same nodes; sockets of a cgroup find the services by themselves.

    Args:
        name: what the names of the namespaces begin with.
        mount: a bpffs, for pins that no other process sees.
        cgroup: folder of one that is made here, and removed at the end; nobody else is in it.
        shape: services by family, 4 and 6.

    Raises:
        OSError: no privilege, no cgroup of version 2, or the kernel refuses the programs.
        Internal: a link cannot be made.
        Unavailable: nothing passes.
    """
    with ExitStack() as stack:
        network = stack.enter_context(served(name, Proxy.DIRECT, shape))
        cgroup.mkdir()
        stack.callback(cgroup.rmdir)
        pins = mount / name
        stack.callback(bpffs.remove_pins, pins)
        with netns.entered(network.node(CLIENT_NODE)):
            plane = KernelDataPlane(pins, config=DataPlaneConfig(refusal=cgroups.refusal()))
        stack.callback(plane.close)
        for family, services in shape.items():
            plane.upsert_slots(list(_slots(family, services)))
            plane.upsert_frontends(list(_frontends(family, services)))
        stack.callback(cgroups.detach, pins)
        plane.attach_sockets(cgroup)
        yield network


def _list_id(family: int, service: BenchService) -> int:
    return 2 * service.number + (family == 6)


def _slots(family: int, services: tuple[BenchService, ...]) -> Iterator[Slot]:
    for service in services:
        for place, address in enumerate(service.backends):
            backend = Backend(address=to_mapped(address), port=TARGET_PORT)
            yield Slot(list_id=_list_id(family, service), slot=place, backend=backend)


def _frontends(family: int, services: tuple[BenchService, ...]) -> Iterator[Frontend]:
    for service in services:
        key = FrontendKey(address=to_mapped(service.address), protocol=_TCP, port=PORT)
        yield Frontend(
            key=key,
            service=service.number,
            list_id=_list_id(family, service),
            count=len(service.backends),
        )
