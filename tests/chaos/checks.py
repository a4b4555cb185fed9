"""What must hold once every fault has ended."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

from deltaplane.cli.looking import Looker
from deltaplane.model.addresses import format_address
from deltaplane.model.identity import FIRST_IDENTITY
from deltaplane.v1 import agent_pb2, registry_pb2
from lab import Lab
from lab.pods import Pod
from lab.probe import Call
from nodeagent.dataplane import loader, maps, records
from tests.chaos.churn import apps_served
from tests.chaos.world import OPEN, STILL, World

CALLS = 4


def addresses(lab: Lab) -> Iterator[str]:
    """Etcd, journals and kernels agree about addresses, on every node."""
    agents = [
        (node.name, f"unix:{lab.layout.node(node.name).agent_socket}")
        for node in lab.topology.nodes
    ]
    look = Looker(lab.client, agents).settled()
    for finding in look.findings:
        yield f"ipam check: {finding.kind} on {finding.node}: {finding.subject}: {finding.seen}"
    if len(look.views) != len(agents):
        yield f"ipam check: {len(look.views)} of {len(agents)} agents were asked"


def kernels(lab: Lab) -> Iterator[str]:
    """What a node's programs take an address for is what the registry says, for every address."""
    answer = lab.client.registry.ListEndpoints(registry_pb2.ListEndpointsRequest())
    wanted = {
        address: (item.identity, item.node_index)
        for item in answer.endpoints
        for address in (item.addresses.ipv4, item.addresses.ipv6)
        if address
    }
    for node in lab.topology.nodes:
        path = loader.schema_folder(lab.layout.node(node.name).pins) / "mappings"
        with closing(maps.KernelMap("mappings", maps.open_pinned(path))) as opened:
            found = [records.to_mapping(item) for item in opened.entries()]
        held = 0
        for entry in found:
            if entry.identity < FIRST_IDENTITY:
                continue
            held += 1
            key = entry.address.removeprefix(records.V4_MAPPED)
            if wanted.get(key) != (entry.identity, entry.node_index):
                yield (
                    f"{node.name}'s kernel takes {key.hex()} for {entry.identity} on node "
                    f"{entry.node_index}; the registry says {wanted.get(key)}"
                )
        if not held:
            yield f"{node.name}'s kernel knows nobody"


def agents(lab: Lab) -> Iterator[str]:
    """Every agent agrees with the registry up to now, and holds nothing back."""
    for node in lab.topology.nodes:
        stub = lab.client.agent(f"unix:{lab.layout.node(node.name).agent_socket}")
        status = stub.GetStatus(agent_pb2.GetStatusRequest())
        if not status.connected:
            yield f"{node.name} has no stream"
        if status.held_entries:
            yield f"{node.name} holds {status.held_entries} entries back"
        yield from (f"{node.name} refuses {text}" for text in status.refused)


def packets(lab: Lab, told: list[str]) -> Iterator[str]:
    """Who reaches whom is what the policies say, for all pods, ports and families."""
    result = lab.probe()
    told.append(f"{len(result.rows)} probes, {result.allowed} allowed")
    if not result.stable:
        yield "the probes never gave the same answers twice"
    yield from result.wrong
    yield from lab.contradictions(result)
    if not 0 < result.allowed < len(result.rows):
        yield f"{result.allowed} of {len(result.rows)} probes were allowed: that shows nothing"


def services(lab: Lab, world: World) -> Iterator[str]:
    """A service answers with its pods, and with nobody where these are shut."""
    listed = lab.client.registry.ListServices(registry_pb2.ListServicesRequest()).services
    addresses_of = {f"{item.namespace}/{item.name}": item.cluster_ips for item in listed}
    still = [pod for pod in lab.pods if pod.namespace == STILL]
    for app in apps_served(world):
        backends = {
            guest.reference
            for guest in world.guests.values()
            if guest.namespace == OPEN and guest.app == app
        }
        for source in still:
            for address in addresses_of[f"{OPEN}/{app}"]:
                yield from _called(lab, source, address, backends, shut=app in world.shut)


def _called(
    lab: Lab, source: Pod, address: bytes, backends: set[str], *, shut: bool
) -> Iterator[str]:
    text = format_address(address)
    wanted = backends if backends and not shut else {"timeout", "refused"}
    # What is dropped is silent: waiting for that once is enough.
    what = Call(address=text, port=80, times=CALLS, seconds=3.0)
    if shut or not backends:
        what = replace(what, times=1, seconds=0.3)
    for answer in lab.call(source, what):
        if answer not in wanted:
            yield f"{source.reference} called {text}: {answer}, not one of {sorted(wanted)}"
