"""A host beside the nodes of a lab, outside the cluster."""

import asyncio
import socket

from lab import Lab, netns, prober
from lab.probe import Call
from lab.prober import Probe

Addresses = dict[socket.AddressFamily, str]

WORLD: Addresses = {socket.AF_INET: "198.19.255.1", socket.AF_INET6: "fd99::ffff"}
STRANGER: Addresses = {socket.AF_INET: "198.19.255.2", socket.AF_INET6: "fd99::fffe"}


def make_world(lab: Lab, host: str = "world", addresses: Addresses = WORLD) -> str:
    """A host that knows nobody's addresses but the nodes'. It goes with the lab."""
    name = f"dp-{lab.layout.lab}-{host}"
    netns.create(name)
    netns.write_sysctls(name, [("net/ipv6/conf/default/accept_dad", "0")])
    mtu = lab.topology.mtu
    peer = f"peer name uplink mtu {mtu} netns {name}"
    netns.ip_batch(
        lab.topology.fabric,
        [f"link add {host} mtu {mtu} type veth {peer}", f"link set {host} master fabric up"],
    )
    netns.ip_batch(
        name,
        [
            "link set lo up",
            f"addr add {addresses[socket.AF_INET]}/16 dev uplink",
            f"addr add {addresses[socket.AF_INET6]}/64 dev uplink nodad",
            "link set uplink up",
        ],
    )
    return name


def call_from(namespace: str, what: Call) -> list[str]:
    """As `Lab.call`, from any network namespace, by this process."""
    probe = Probe(
        netns=namespace,
        address=what.address,
        port=what.port,
        protocol=what.protocol,
        http=what.http,
    )
    return asyncio.run(prober.call(probe, times=what.times, timeout=what.seconds))
