"""The life of a pod's interface: ADD and CHECK; `releases` ends it, `resuming` finds it again.

The journal comes first and goes last, so that whatever stops the agent in between is found again.
In ADD the link is made while the registry is asked.
"""

import asyncio
import secrets
from dataclasses import replace

from deltaplane.errors import (
    DeltaplaneError,
    Exhausted,
    Unavailable,
)
from deltaplane.model.addresses import format_address
from deltaplane.runtime import log, metrics
from nodeagent import check
from nodeagent.cni.netconf import Attachment, Call, HostPort, PodName
from nodeagent.cni.result import CniError, Code, Interface, Result
from nodeagent.control import Registration, Wanted
from nodeagent.delegated import NOBODY
from nodeagent.entries import Begun, InterfaceRecord, Kind, State
from nodeagent.hints import Hints
from nodeagent.pools import Request, Wish
from nodeagent.releases import Releases
from nodeagent.spanning import SpanWait
from nodeagent.stages import Stage, timed
from nodeagent.tracker import NEVER_OPEN
from nodeagent.workplace import Workplace, local_interface

OPEN_SECONDS = 1.0
"""Longest that ADD waits for the pod's policies, or for its pod record."""

MAX_WISHES = 3
"""How often an ADD starts over because the registry wants other addresses; annotations that change
meanwhile are as good as none.
"""

_ADD_SECONDS = metrics.histogram(
    "cni_add_seconds", "CNI ADD inside the agent, by outcome", ("outcome",)
)
_OPENED_LATE = metrics.counter(
    "cni_add_opened_late", "ADDs answered before the pod's policies were in force"
)
_PAST_FENCE = metrics.counter(
    "address_reuses_past_fence",
    "Addresses handed out that a fenced node may still map to their last owner",
)


class _OtherWish(Exception):
    """The registry wants other addresses."""

    def __init__(self, wish: Wish) -> None:
        super().__init__(str(wish))
        self.wish = wish


class Interfaces:
    """All interfaces of this node."""

    def __init__(
        self, place: Workplace, releases: Releases, span_wait: SpanWait | None = None
    ) -> None:
        """span_wait: ADD also waits until other nodes know the pod; None: it does not."""
        self._place = place
        self._span_wait = span_wait
        self._releases = releases
        self._hints = Hints()

    # --- ADD -------------------------------------------------------------------------------------

    async def add(self, call: Call, pod: PodName, netns: int) -> Interface:
        """Makes an interface, or leaves nothing.

        Raises:
            CniError: with the code for the runtime.
        """
        started = self._place.clock.now()
        try:
            async with self._place.alone(call.attachment):
                record = await self._add(call.attachment, pod, netns, call.host_ports)
        except CniError:
            _ADD_SECONDS.labels("failed").observe(self._place.clock.now() - started)
            raise
        _ADD_SECONDS.labels("ok").observe(self._place.clock.now() - started)
        link = self._place.link(record)
        return Interface(
            ifname=link.ifname,
            netns=call.netns,
            pod_mac=link.pod_mac,
            host_link=link.host_name,
            host_mac=link.host_mac,
            mtu=link.mtu,
            addresses=record.addresses,
        )

    async def add_addresses(self, attachment: Attachment, pod: PodName | None) -> InterfaceRecord:
        """Holds addresses for an interface that another plugin makes, or leaves nothing.

        Raises:
            CniError: with the code for the runtime.
        """
        async with self._place.alone(attachment):
            return await self._add(attachment, pod or NOBODY, None, ())

    async def _add(
        self,
        attachment: Attachment,
        pod: PodName,
        netns: int | None,
        ports: tuple[HostPort, ...],
    ) -> InterfaceRecord:
        """Starts over with what the pod asks for, should that be something else."""
        wish = self._hints.get(pod.namespace)
        for _ in range(MAX_WISHES):
            try:
                return await self._attempt(attachment, pod, netns, wish, ports)
            except _OtherWish as other:
                wish = other.wish
                # An address is one pod's wish; a pool is perhaps its namespace's.
                self._hints.put(pod.namespace, replace(wish, addresses=()))
        raise CniError(Code.TRY_AGAIN, "what the pod asks for keeps changing", str(wish))

    async def _attempt(
        self,
        attachment: Attachment,
        pod: PodName,
        netns: int | None,
        wish: Wish,
        ports: tuple[HostPort, ...],
    ) -> InterfaceRecord:
        with timed(Stage.ADDRESS):
            network = attachment.network if netns is None else ""
            record = await self._begin(attachment, pod, wish, network, ports)
        try:
            if netns is None:
                await self._announce(record)
            else:
                await self._make(record, netns)
        except _OtherWish:
            await asyncio.shield(self._releases.undo(record))
            raise
        except (DeltaplaneError, OSError) as error:
            await self._releases.undo(record)
            raise _to_cni(error) from error
        except BaseException:
            await asyncio.shield(self._releases.undo(record))
            raise
        return record

    async def _begin(
        self,
        attachment: Attachment,
        pod: PodName,
        wish: Wish,
        network: str,
        ports: tuple[HostPort, ...],
    ) -> InterfaceRecord:
        """Opens the journal entry; claims what is missing. network: of the IPAM-only mode."""
        try:
            wanted = await self._place.blocks.find_requests(wish)
            if network:
                wanted = tuple(replace(request, network=network) for request in wanted)
            for request in wanted:
                # A single address has no gateway beside it.
                if request.address is not None and not network:
                    await self._place.blocks.claim_address(request.address, attachment)
            begun = await self._write_entry(attachment, pod, wanted, ports)
        except DeltaplaneError as error:
            raise _to_cni(error) from error
        finally:
            self._place.blocks.changed()
        for address in begun.past_fence:
            _PAST_FENCE.inc()
            log.get().warning(
                "address_reused_past_fence",
                address=format_address(address),
                number=begun.record.number,
                strict_watermark=self._place.journal.ledger.progress.strict,
            )
        return begun.record

    async def _write_entry(
        self,
        attachment: Attachment,
        pod: PodName,
        wanted: tuple[Request, ...],
        ports: tuple[HostPort, ...],
    ) -> Begun:
        """Waits only for an address that was claimed by number: nothing else will do."""
        deadline = self._place.clock.now() + OPEN_SECONDS
        claimed, fixed = False, any(request.address for request in wanted)
        while True:
            seen = self._place.blocks.barriers
            try:
                return await self._place.writer.call(
                    self._place.journal.begin,
                    attachment,
                    attempt=secrets.token_hex(8),
                    pod=pod,
                    requests=wanted,
                    host_ports=ports,
                )
            except Exhausted:
                if not claimed:
                    claimed = True
                    await self._place.blocks.claim_for(wanted)
                    continue
                left = deadline - self._place.clock.now()
                if not fixed or not await self._place.blocks.wait_progress(seen, left):
                    raise

    async def _announce(self, record: InterfaceRecord) -> None:
        """Tells the registry of addresses that a pod uses: other nodes map them to it."""
        if record.is_registered:
            found = await self._register(record)
            if isinstance(found, Wanted):
                raise _OtherWish(found.wish)
        await self._place.writer.call(self._place.journal.commit, record.number)

    async def _make(self, record: InterfaceRecord, netns: int) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                registering = group.create_task(self._register(record))
                await self._make_link(record, netns)
                with timed(Stage.WAITING):
                    await asyncio.wait([registering])
        except ExceptionGroup as failures:
            raise _first(failures) from failures
        found = registering.result()
        if isinstance(found, Wanted):
            raise _OtherWish(found.wish)
        await self._open(record, found)
        await self._place.balancing.expose(record.number, record.addresses, record.host_ports)
        if self._span_wait is not None and found.has_pod:
            with timed(Stage.SPAN):
                await self._span_wait.wait(record.pod)

    async def _register(self, record: InterfaceRecord) -> Registration | Wanted:
        with timed(Stage.REGISTER):
            return await self._place.control.register(record, self._place.node)

    async def _make_link(self, record: InterfaceRecord, netns: int) -> None:
        link = self._place.link(record)
        with timed(Stage.LINK):
            ifindex = await self._place.links.create(link, netns)
        with timed(Stage.PROGRAM):
            await self._place.applier.prepare(local_interface(record, link, ifindex))

    async def _open(self, record: InterfaceRecord, registration: Registration) -> None:
        """Waits until the pod's own policies are in force, within bounds, and makes it durable."""
        number, has_pod = record.number, registration.has_pod
        await self._place.applier.registered(number, registration.identity, registration.revision)
        try:
            async with asyncio.TaskGroup() as group:
                # Without a pod record it may come to nothing: a crash must find it half made then.
                if has_pod:
                    group.create_task(self._commit(record))
                with timed(Stage.POLICY):
                    is_open = await self._place.applier.wait_open(number, OPEN_SECONDS)
        except ExceptionGroup as failures:
            raise _first(failures) from failures
        if not is_open:
            self._note_closed(record, has_pod=has_pod)
        if not has_pod:
            await self._commit(record)

    def _note_closed(self, record: InterfaceRecord, *, has_pod: bool) -> None:
        """Raises Unavailable if there is nothing that could ever open the interface."""
        local = self._place.applier.tracker.locals[record.number]
        if self._place.applier.tracker.wanted_identity(local) in NEVER_OPEN and not has_pod:
            raise Unavailable(f"there is no pod record of {record.pod.namespace}/{record.pod.name}")
        _OPENED_LATE.inc()
        log.get().warning("interface_still_closed", number=record.number, pod=record.pod.name)

    async def _commit(self, record: InterfaceRecord) -> None:
        with timed(Stage.COMMIT):
            await self._place.writer.call(self._place.journal.commit, record.number)

    # --- CHECK -----------------------------------------------------------------------------------

    async def check(self, call: Call, previous: Result, netns: int) -> list[str]:
        """What is not as ADD has left it, for people.

        Raises:
            CniError: there is no such interface, or it cannot be looked at.
        """
        async with self._place.alone(call.attachment):
            record = self._place.journal.find(call.attachment)
            if record is not None and record.state is State.LOST:
                return [f"this node does not own {record.addresses} any more: the pod is closed"]
            if record is None or record.state is not State.READY:
                raise CniError(Code.UNKNOWN_CONTAINER, "no such interface", str(call.attachment))
            link = self._place.link(record)
            try:
                found = await self._place.links.inspect(link, netns)
            except OSError as error:
                raise _to_cni(error) from error
            problems = check.differences(link, call.netns, previous, found)
            local = self._place.applier.tracker.locals.get(record.number)
            if local is None or (found.host is not None and local.ifindex != found.host.index):
                problems.append("the data path does not serve the interface")
            return problems

    async def check_addresses(self, attachment: Attachment, previous: Result) -> list[str]:
        """What is wrong with addresses that another plugin uses, for people."""
        async with self._place.alone(attachment):
            record = self._place.journal.find(attachment)
            if record is None or record.kind is not Kind.IPAM:
                return [f"no address is held for {attachment}"]
            if record.state is not State.READY:
                return [f"this node does not own {record.addresses} any more"]
            return check.missing_addresses(record.addresses, previous)


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """The first leaf of a group."""
    error: Exception = group
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _to_cni(error: DeltaplaneError | OSError) -> CniError:
    """The error object for what stopped an ADD."""
    match error:
        case Unavailable() | Exhausted():
            return CniError(Code.TRY_AGAIN, "not possible now", str(error))
        case DeltaplaneError():
            return CniError(Code.FAILED, "refused", str(error))
        case _:
            return CniError(Code.FAILED, "the kernel refuses the interface", str(error))
