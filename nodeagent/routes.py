"""Which kernel routes this node needs, so that its own stack reaches the blocks of every node.

Pure.

Own blocks are unreachable but for the pods' own routes: a packet to an address that nobody holds
ends here instead of going out by the default route and coming back.
"""

from dataclasses import dataclass

from deltaplane.model.addresses import AddressPair, Prefix, format_address


@dataclass(frozen=True, slots=True)
class Route:
    """A route to a block.

    Attributes:
        prefix: the block.
        via: the owning node's uplink address; None: unreachable, the block is ours.
        wrapped: through the tunnel to `via`, whose family then need not be the block's.
    """

    prefix: Prefix
    via: bytes | None
    wrapped: bool = False

    def __str__(self) -> str:
        if self.via is None:
            return f"unreachable {self.prefix}"
        return f"{self.prefix} {'wrapped to' if self.wrapped else 'via'} {format_address(self.via)}"


def tunnel_end(own: AddressPair, other: AddressPair) -> bytes | None:
    """Where packets to another node are wrapped to: IPv4 if both have it; None: nowhere.

    The data path (bpf/include/deliver.h) decides by the same rule.
    """
    if own.ipv4 is not None and other.ipv4 is not None:
        return other.ipv4
    return other.ipv6 if own.ipv6 is not None else None


def route(
    prefix: Prefix, owner: AddressPair | None, *, own: bool, tunnel: AddressPair | None = None
) -> Route | None:
    """The route to a block.

    Args:
        prefix: the block.
        owner: uplink addresses of the owning node; None while it is not known.
        own: whether the block is this node's.
        tunnel: uplink addresses of this node if it wraps what goes to others; None: it does not.

    Returns:
        None when the owner cannot be reached: natively by the block's family, wrapped by any.
    """
    if own:
        return Route(prefix, None)
    if owner is None:
        return None
    if tunnel is not None:
        via = tunnel_end(tunnel, owner)
    else:
        via = owner.ipv4 if prefix.is_ipv4 else owner.ipv6
    return None if via is None else Route(prefix, via, wrapped=tunnel is not None)
