"""Blocks of the IPAM-only mode: those whose addresses another plugin puts on interfaces. Pure.

A plugin such as `bridge` makes a block an Ethernet segment, with an address of the node on it: the
gateway. So such a block belongs to one network as a whole, its edges stay unused (the all-zeros
address, in IPv4 also the broadcast address), and its second address is the gateway's for as long as
the node owns the block: the plugin may leave it on the node when the last pod has gone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from deltaplane.model.addresses import AddressPair
from nodeagent.addressing import Block, Progress, find_released
from nodeagent.cni.netconf import Attachment, PodName
from nodeagent.entries import InterfaceRecord, Kind, State

GATEWAY_OFFSET = 1
SMALLEST_BLOCK = 4
"""Edges, the gateway, and one pod."""

NOBODY = PodName(namespace="", name="", uid="")
"""Of interfaces that no pod is named for."""


def not_for_pods(block: Block) -> int:
    """Mask of the addresses that no pod may have: the edges and the gateway's."""
    broadcast = 1 << block.prefix.size - 1 if block.prefix.is_ipv4 else 0
    return 1 | 1 << GATEWAY_OFFSET | broadcast


def can_serve(block: Block, progress: Progress) -> bool:
    """Whether the block may become a network's: no pod has an address of it."""
    gone = find_released(block, GATEWAY_OFFSET)
    return (
        not block.fixed
        and not block.network
        and not block.held
        and block.prefix.size >= SMALLEST_BLOCK
        and not (block.reserved | block.foreign) >> GATEWAY_OFFSET & 1
        and (gone is None or progress.passed(gone.lineage, gone.revision))
    )


def serve(block: Block, network: str) -> Block:
    """The block as one of a network."""
    return replace(block, network=network, reserved=block.reserved | not_for_pods(block))


def gateway(block: Block, network: str, number: int) -> InterfaceRecord:
    """What holds the gateway's address."""
    address = block.prefix.nth(GATEWAY_OFFSET)
    return InterfaceRecord(
        number=number,
        state=State.READY,
        attachment=Attachment(network=network, container_id="gateway", ifname=address.hex()),
        attempt=f"gateway-{address.hex()}",
        pod=NOBODY,
        addresses=AddressPair(**{"ipv4" if block.prefix.is_ipv4 else "ipv6": address}),
        kind=Kind.GATEWAY,
    )


def networks(records: Iterable[InterfaceRecord]) -> Mapping[bytes, str]:
    """Gateway address → network."""
    return {
        address: record.attachment.network
        for record in records
        if record.kind is Kind.GATEWAY
        for address in record.addresses
    }


def recognize(block: Block, known: Mapping[bytes, str]) -> Block:
    """The block as one of the network that has its gateway, if there is one."""
    if block.fixed or block.prefix.size < SMALLEST_BLOCK:
        return block
    network = known.get(block.prefix.nth(GATEWAY_OFFSET), "")
    return serve(block, network) if network else block
