"""Values of services ↔ keys and values of the maps. Pure."""

from collections.abc import Collection, Iterable
from socket import IPPROTO_SCTP, IPPROTO_UDP

from nodeagent.dataplane import abi
from nodeagent.dataplane.balancing import (
    Backend,
    Frontend,
    FrontendKey,
    Member,
    ServiceCount,
    Slot,
    SourceRange,
)
from nodeagent.dataplane.records import Item, number_key, number_of
from nodeagent.netlink.diag import Connected

PRESENT = number_key(1)
"""Value of `members` and `sources`: the key says it all."""

FORGETFUL = frozenset({IPPROTO_UDP, IPPROTO_SCTP})
"""Protocols whose clients may be given another backend without noticing."""

_SOURCE_BITS = 32
"""Bits of a source key in front of the address."""


def frontend_key(key: FrontendKey) -> bytes:
    """Key of `frontends`."""
    return abi.FrontendKey(address=key.address, port=key.port, protocol=key.protocol).pack()


def frontend_item(frontend: Frontend) -> Item:
    """Entry of `frontends`."""
    flags = abi.FrontendFlag.CHECK_SOURCE if frontend.check_source else 0
    flags |= abi.FrontendFlag.LOCAL if frontend.local else 0
    value = abi.Frontend(
        service=frontend.service,
        list=frontend.list_id,
        inside_count=frontend.count,
        outside_list=frontend.outside_list,
        outside_count=frontend.outside_count,
        affinity=frontend.affinity_seconds,
        flags=flags,
    )
    return frontend_key(frontend.key), value.pack()


def to_frontend(item: Item) -> Frontend:
    """Undoes `frontend_item`."""
    key, value = abi.FrontendKey.unpack(item[0]), abi.Frontend.unpack(item[1])
    return Frontend(
        key=FrontendKey(address=key.address, protocol=key.protocol, port=key.port),
        service=value.service,
        list_id=value.list,
        count=value.inside_count,
        outside_list=value.outside_list,
        outside_count=value.outside_count,
        affinity_seconds=value.affinity,
        check_source=bool(value.flags & abi.FrontendFlag.CHECK_SOURCE),
        local=bool(value.flags & abi.FrontendFlag.LOCAL),
    )


def backend_bytes(backend: Backend) -> bytes:
    """A backend as it stands in keys and values."""
    return abi.Backend(backend.address, backend.port).pack()


def to_backend(data: bytes) -> Backend:
    """Undoes `backend_bytes`."""
    value = abi.Backend.unpack(data)
    return Backend(address=value.address, port=value.port)


def slot_key(list_id: int, slot: int) -> bytes:
    """Key of `slots`."""
    return abi.SlotKey(list_id, slot).pack()


def slot_item(slot: Slot) -> Item:
    """Entry of `slots`."""
    return slot_key(slot.list_id, slot.slot), backend_bytes(slot.backend)


def to_slot(item: Item) -> Slot:
    """Undoes `slot_item`."""
    key = abi.SlotKey.unpack(item[0])
    return Slot(list_id=key.list, slot=key.slot, backend=to_backend(item[1]))


def member_key(member: Member) -> bytes:
    """Key of `members`."""
    return abi.MemberKey(list=member.list_id, backend=backend_bytes(member.backend)).pack()


def to_member(item: Item) -> Member:
    """Undoes `member_key`."""
    key = abi.MemberKey.unpack(item[0])
    return Member(list_id=key.list, backend=to_backend(key.backend))


def source_key(source: SourceRange) -> bytes:
    """Key of `sources`."""
    return abi.SourceKey(
        prefixlen=_SOURCE_BITS + source.length, service=source.service, address=source.address
    ).pack()


def to_source(item: Item) -> SourceRange:
    """Undoes `source_key`."""
    key = abi.SourceKey.unpack(item[0])
    return SourceRange(
        service=key.service, address=key.address, length=key.prefixlen - _SOURCE_BITS
    )


def table_parts(slots: bytes) -> list[bytes]:
    """Values of a table's map.

    Raises:
        ValueError: not all parts are whole, or there are none.
    """
    size = 2 * abi.TABLE_PART_SLOTS
    parts, rest = divmod(len(slots), size)
    if rest or not parts:
        raise ValueError(f"{len(slots)} bytes are no table: its parts have {size}")
    return [
        abi.TablePart(parts=parts, slots=slots[start : start + size]).pack()
        for start in range(0, len(slots), size)
    ]


def to_service_count(item: Item) -> ServiceCount:
    """What an entry of `service_counts` says."""
    value = abi.ServiceCount.unpack(item[1])
    return ServiceCount(service=number_of(item[0]), given=value.given, refused=value.refused)


def sockets_towards(items: Iterable[Item], gone: Collection[tuple[int, bytes]]) -> list[bytes]:
    """Keys of `sockets` that would send to a backend (protocol, `backend_bytes`) that is gone.

    The way back stays: what such a backend still answers comes from the service.
    """
    return [
        raw
        for raw, value in items
        if (key := abi.SocketKey.unpack(raw)).leg == abi.Leg.FORWARD
        and (key.protocol, abi.Socket.unpack(value).place) in gone
    ]


def sockets_connected(items: Iterable[Item], gone: Collection[tuple[int, bytes]]) -> set[Connected]:
    """UDP sockets of `sockets` that may be connected to a backend that is gone."""
    found = set()
    for raw, _ in items:
        key = abi.SocketKey.unpack(raw)
        if (
            key.leg == abi.Leg.BACK
            and key.protocol == IPPROTO_UDP
            and (key.protocol, key.place) in gone
        ):
            place = to_backend(key.place)
            found.add(Connected(key.cookie, place.address, place.port))
    return found


def translations_towards(items: Iterable[Item], gone: Collection[tuple[int, bytes]]) -> list[bytes]:
    """The same of `translations`."""
    found = []
    for raw, packed in items:
        key = abi.TranslationKey.unpack(raw)
        if key.leg != abi.Leg.FORWARD or key.protocol not in FORGETFUL:
            continue
        value = abi.Translation.unpack(packed)
        if (key.protocol, abi.Backend(value.daddr, value.dport).pack()) in gone:
            found.append(raw)
    return found
