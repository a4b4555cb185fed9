"""A host beside the nodes of a lab, outside the cluster."""

import asyncio
import socket

from lab import Lab, netns, prober
from lab.probe import Call
from lab.prober import Probe

WORLD = {socket.AF_INET: "198.19.255.1", socket.AF_INET6: "fd99::ffff"}


def make_world(lab: Lab) -> str:
    """A host that knows nobody's addresses but the nodes'. It goes with the lab."""
    name = f"dp-{lab.layout.lab}-world"
    netns.create(name)
    netns.write_sysctls(name, [("net/ipv6/conf/default/accept_dad", "0")])
    mtu = lab.topology.mtu
    peer = f"peer name uplink mtu {mtu} netns {name}"
    netns.ip_batch(
        lab.topology.fabric,
        [f"link add world mtu {mtu} type veth {peer}", "link set world master fabric up"],
    )
    netns.ip_batch(
        name,
        [
            "link set lo up",
            f"addr add {WORLD[socket.AF_INET]}/16 dev uplink",
            f"addr add {WORLD[socket.AF_INET6]}/64 dev uplink nodad",
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
