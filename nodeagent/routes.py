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

    via: the owning node's uplink address; None: unreachable, the block is ours.
    """

    prefix: Prefix
    via: bytes | None

    def __str__(self) -> str:
        if self.via is None:
            return f"unreachable {self.prefix}"
        return f"{self.prefix} via {format_address(self.via)}"


def route(prefix: Prefix, owner: AddressPair | None, *, own: bool) -> Route | None:
    """The route to a block.

    Args:
        prefix: the block.
        owner: uplink addresses of the owning node; None while it is not known.
        own: whether the block is this node's.

    Returns:
        None when the owner cannot be reached by the block's family.
    """
    if own:
        return Route(prefix, None)
    if owner is None:
        return None
    via = owner.ipv4 if prefix.is_ipv4 else owner.ipv6
    return None if via is None else Route(prefix, via)
