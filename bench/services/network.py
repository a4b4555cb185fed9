"""Two nodes, a client behind one and a server with all backends' addresses behind the other.

    client ─── node-1 (rules) ─── uplink ─── node-2 ─── server

Every address of the shape is the server's, so whatever backend is drawn answers.
"""

import enum
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from bench.datapath import world
from bench.datapath.network import CLIENT_NODE, SERVER_NODE, Network, addresses, plain
from bench.services import rules
from bench.services.shape import BACKENDS, BenchService
from deltaplane.errors import Internal
from deltaplane.model.addresses import format_address
from lab import netns

_SECONDS_TO_LOAD = 120


class Proxy(enum.StrEnum):
    """What translates services. DIRECT: nothing, clients connect to a backend."""

    DIRECT = "direct"
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
    if proxy is Proxy.DIRECT:
        return
    make = rules.nftables if proxy is Proxy.NFTABLES else rules.iptables
    command = RESTORE[proxy, family]
    with netns.entered(network.node(CLIENT_NODE)):
        ended = subprocess.run(
            command,
            input=make(services, family),
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
