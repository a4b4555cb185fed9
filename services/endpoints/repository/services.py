"""Services: numbers, addresses and node ports by compare-and-swap.

Each address and node port has a key of its own whose value names the service, and which every
transaction that takes or frees it compares: two services never get one, however many replicas
write. Numbers come from a counter and are never given twice.

A call is planned as a whole, so that one service that cannot be had keeps all out, and written in
as few transactions as etcd takes. Somebody who was faster makes all of it begin again; what has
been written by then is found as it should be.
"""

import asyncio
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

from deltaplane import servicewire
from deltaplane.errors import Exhausted, Invalid, Refused
from deltaplane.store import keys
from deltaplane.store.port import (
    MAX_TRANSACTION_OPERATIONS,
    Delete,
    KeyValue,
    Put,
    Store,
)
from deltaplane.store.retry import compare_and_swap
from deltaplane.v1 import service_pb2
from services.endpoints.demand import Demand
from services.endpoints.placing import Names, Placement
from services.endpoints.ranges import Ranges
from services.endpoints.repository.paging import page
from services.endpoints.repository.transactions import MAX_BYTES, as_read
from services.endpoints.settling import settle
from services.endpoints.wire.records import encode, with_meta, written
from services.endpoints.wire.services import PageRequest, demand_from_record

NAMES = Names(keys.cluster_ip, keys.node_port)

ROUNDS = 4
"""How often what was chosen may turn out to be taken before all that is taken is read."""

OPERATIONS = MAX_TRANSACTION_OPERATIONS - 1
"""Of a transaction, besides the counter."""

SERVICES_AT_ONCE = 20
"""Looked at before other calls get a turn: registrations of pods wait for nobody."""

MAX_TAKEN = 45
"""Addresses and node ports of one service: it may change all of them in one transaction."""

LAST_NUMBER = (1 << 32) - 1


@dataclass(slots=True)
class _Known:
    """What has been read, and what was written since.

    Attributes:
        records: by key; None: there is none.
        revision: of the newest read or write.
        is_complete: everything that is taken has been read.
    """

    records: dict[str, KeyValue | None]
    revision: int = 0
    is_complete: bool = False

    @property
    def number(self) -> int:
        """The highest number given so far, where it was read."""
        counter = self.records.get(keys.SERVICE_COUNTER)
        return 0 if counter is None else int(counter.value)

    @property
    def owners(self) -> dict[str, str]:
        """Who has which address or node port; "": nobody."""
        return {
            key: "" if item is None else item.value.decode().removeprefix(keys.SERVICES)
            for key, item in self.records.items()
            if key.startswith((keys.CLUSTER_IPS, keys.NODE_PORTS))
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """What becomes of one service.

    Attributes:
        key: of its record.
        value: the record; None: it goes.
        number: that it has.
        frees, takes: keys of addresses and node ports.
    """

    key: str
    value: bytes | None
    number: int = 0
    frees: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()


class Services:
    """Stored services. Namespaces, slices and pods that they name need not exist."""

    def __init__(self, store: Store, ranges: Ranges) -> None:
        self._store = store
        self._ranges = ranges

    async def apply(
        self, demands: Sequence[Demand], traceparent: str
    ) -> tuple[list[service_pb2.Service], int]:
        """Writes services; returns them as stored, and a revision that has them all.

        Those that change nothing are not written.

        Raises:
            Invalid: one of them cannot be had, or changes what may not change.
            Exhausted: there is no address or node port left.
        """

        async def attempt() -> tuple[list[service_pb2.Service], int] | None:
            return await self._try(demands, traceparent)

        return await compare_and_swap(attempt)

    async def delete(self, services: Sequence[tuple[str, str]]) -> int:
        """Removes services by (namespace, name), with what they took; a revision without them."""

        async def attempt() -> int | None:
            known = _Known({})
            await self._read(known, [keys.service(*item) for item in services])
            found = [item for item in known.records.values() if item is not None]
            steps = [await self._removal(item) for item in found]
            await self._read(known, [key for step in steps for key in step.frees])
            return known.revision if await self._write(known, steps) else None

        return await compare_and_swap(attempt)

    async def delete_all_of(self, namespace: str) -> None:
        """Removes the services of a namespace; those that come meanwhile may stay."""
        listing = await self._store.list(keys.services_of(namespace))
        names = [item.key.rpartition("/")[2] for item in listing.items]
        await self.delete([(namespace, name) for name in names])

    async def page(self, request: PageRequest) -> tuple[list[service_pb2.Service], str, int]:
        """One page: the services, the token of the next page, the revision.

        Raises:
            Invalid: the token is of another listing.
            Compacted: the listing took so long that its revision is gone; begin again.
        """
        key = keys.service(request.namespace, request.name)
        found, token, revision = await page(
            self._store,
            keys.services_of(request.namespace) if request.namespace else keys.SERVICES,
            size=request.size,
            start_key=request.start_key,
            revision=request.revision,
            keep=(lambda item: item.key == key) if request.name else None,
        )
        return [with_meta(service_pb2.Service, item) for item in found], token, revision

    # --- one attempt -----------------------------------------------------------------------------

    async def _try(
        self, demands: Sequence[Demand], traceparent: str
    ) -> tuple[list[service_pb2.Service], int] | None:
        known = _Known({})
        wanted = [keys.service(it.service.namespace, it.service.name) for it in demands]
        await self._read(known, [keys.SERVICE_COUNTER, *wanted])
        steps = await self._plan(demands, known, traceparent)
        if not await self._write(known, steps):
            return None
        records = (known.records[key] for key in wanted)
        return [with_meta(service_pb2.Service, it) for it in records if it], known.revision

    async def _plan(
        self, demands: Sequence[Demand], known: _Known, traceparent: str
    ) -> list[_Step]:
        """Chooses until all that was chosen is known to be free."""
        seed = secrets.randbits(64)
        rounds = 0
        while True:
            # The same seed each time: what turned out to be free is chosen again.
            below = Random(seed).randrange  # noqa: S311 - no secret
            placement = Placement.over(NAMES, self._ranges, known.owners, below)
            steps = await self._steps(demands, known, placement, traceparent)
            missing = [name for name in placement.asked if name not in known.records]
            if not missing:
                return [step for step in steps if not _is_stored(step, known)]
            if known.is_complete:
                known.records.update(dict.fromkeys(missing))
            elif rounds < ROUNDS:
                await self._read(known, missing)
            else:
                await self._read_all(known)
            rounds += 1

    async def _steps(
        self, demands: Sequence[Demand], known: _Known, placement: Placement, traceparent: str
    ) -> list[_Step]:
        number = known.number
        steps = []
        for index, demand in enumerate(demands):
            if index % SERVICES_AT_ONCE == SERVICES_AT_ONCE - 1:
                await asyncio.sleep(0)
            path = f"services[{index}]"
            key = keys.service(demand.service.namespace, demand.service.name)
            record = known.records[key]
            stored = None if record is None else demand_from_record(record)
            before = None if stored is None else stored.service
            settled = settle(demand, stored, self._ranges, path)
            service = placement.place(settled, before, path)
            if not service.number:
                number += 1
                service = replace(service, number=number)
            takes, had = NAMES.of(service), NAMES.of(before) if before else ()
            if len(takes) > MAX_TAKEN:
                raise Invalid(path, f"has {len(takes)} addresses and node ports, not {MAX_TAKEN}")
            message = servicewire.service_to_proto(service)
            message.families.extend(settled.families)
            message.traceparent = traceparent
            value = encode(message)
            steps.append(_Step(key=key, value=value, number=number, frees=had, takes=takes))
        if number > LAST_NUMBER:
            raise Exhausted("there is no number left for another service")
        return steps

    async def _read(self, known: _Known, wanted: Sequence[str]) -> None:
        for start in range(0, len(wanted), MAX_TRANSACTION_OPERATIONS):
            part = wanted[start : start + MAX_TRANSACTION_OPERATIONS]
            found, known.revision = await self._store.get_many(part)
            known.records.update(zip(part, found, strict=True))
        known.revision = known.revision or await self._store.head()

    async def _removal(self, stored: KeyValue) -> _Step:
        """One that cannot be read frees what names it."""
        try:
            frees = NAMES.of(demand_from_record(stored).service)
        except Refused:
            known = _Known({})
            await self._read_all(known)
            owner = stored.key.encode()
            frees = tuple(key for key, it in known.records.items() if it and it.value == owner)
        return _Step(key=stored.key, value=None, frees=frees)

    async def _read_all(self, known: _Known) -> None:
        for prefix in (keys.CLUSTER_IPS, keys.NODE_PORTS):
            listing = await self._store.list(prefix)
            known.records.update((item.key, item) for item in listing.items)
        known.is_complete = True

    async def _write(self, known: _Known, steps: Sequence[_Step]) -> bool:
        """Writes steps in as few transactions as possible; False: somebody was faster."""
        for batch in _batches(steps):
            operations = _operations(batch, known)
            # Records that stay as they are, too: no pointer is written for a service that is gone.
            touched = dict.fromkeys([*(step.key for step in batch), *(it.key for it in operations)])
            committed = await self._store.transact(
                [as_read(key, known.records[key]) for key in touched], operations
            )
            if not committed.succeeded:
                return False
            known.revision = committed.revision
            for it in operations:
                before = known.records[it.key]
                known.records[it.key] = (
                    written(it.key, it.value, committed.revision, before)
                    if isinstance(it, Put)
                    else None
                )
        return True


def _operations(batch: Sequence[_Step], known: _Known) -> list[Put | Delete]:
    """What differs afterwards from what is stored: one may take what another one of them frees."""
    after: dict[str, bytes | None] = {}
    for step in batch:
        after[step.key] = step.value
        owner = step.key.encode()
        for name in step.frees:
            before = known.records[name]
            if after.get(name, before.value if before else None) == owner:
                after[name] = None
        after.update(dict.fromkeys(step.takes, owner))
        if step.number > known.number:
            after[keys.SERVICE_COUNTER] = str(step.number).encode()
    operations: list[Put | Delete] = []
    for key, value in after.items():
        before = known.records[key]
        if value is None and before is not None:
            operations.append(Delete(key))
        elif value is not None and (before is None or before.value != value):
            operations.append(Put(key, value))
    return operations


def _batches(steps: Sequence[_Step]) -> Iterator[Sequence[_Step]]:
    """Cuts steps into transactions, in order."""
    start = size = written_bytes = 0
    for position, step in enumerate(steps):
        weight = 1 + len({*step.frees, *step.takes})
        more = len(step.value or b"")
        if position > start and (size + weight > OPERATIONS or written_bytes + more > MAX_BYTES):
            yield steps[start:position]
            start, size, written_bytes = position, 0, 0
        size += weight
        written_bytes += more
    if start < len(steps):
        yield steps[start:]


def _is_stored(step: _Step, known: _Known) -> bool:
    """Whether all of a step is there already. Traces are no reason to write, lost pointers are."""
    stored = known.records[step.key]
    if stored is None or step.value is None:
        return False
    pointers = (known.records[name] for name in step.takes)
    owner = step.key.encode()
    return _untraced(stored.value) == _untraced(step.value) and all(
        pointer is not None and pointer.value == owner for pointer in pointers
    )


def _untraced(value: bytes) -> bytes:
    record = service_pb2.Service.FromString(value)
    record.traceparent = ""
    return encode(record)
