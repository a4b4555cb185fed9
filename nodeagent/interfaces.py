"""The life of a pod's interface: ADD, DEL, and what a restart has to finish.

The journal comes first and goes last, so that whatever stops the agent in between is found again.
In ADD the link is made while the registry is asked; in DEL the interface is closed, then its link
goes, then its registration, then its addresses wait until every node knows that.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace

from deltaplane.errors import (
    Conflict,
    DeltaplaneError,
    Exhausted,
    Internal,
    NotFound,
    Refused,
    Unavailable,
)
from deltaplane.model.addresses import format_address
from deltaplane.runtime import log, metrics
from deltaplane.runtime.clock import Clock
from nodeagent import check
from nodeagent.apply import Applier
from nodeagent.blocks import Blocks
from nodeagent.cni.netconf import Attachment, Call, PodName
from nodeagent.cni.result import CniError, Code, Interface, Result
from nodeagent.control import ControlPlane, NodeFacts, Registration, Wanted
from nodeagent.delegated import NOBODY
from nodeagent.entries import Begun, InterfaceRecord, Kind, State
from nodeagent.hints import Hints
from nodeagent.journal import Journal
from nodeagent.ledger import strays
from nodeagent.netlink.links import PodLink
from nodeagent.pods import PodLinks
from nodeagent.pools import Request, Wish
from nodeagent.stages import Stage, timed
from nodeagent.state import LocalInterface
from nodeagent.tracker import NEVER_OPEN
from nodeagent.worker import Worker

OPEN_SECONDS = 1.0
"""Longest that ADD waits for the pod's policies, or for its pod record."""

REGISTER_RETRY_SECONDS = (0.5, 10.0)
"""First and longest pause between attempts to register again what a restart has found."""

RELEASE_RETRY_SECONDS = (1.0, 30.0)
"""First and longest pause between attempts to release what the registry still holds."""

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


@dataclass(slots=True)
class _Turn:
    """A lock and how many hold it or wait for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Interfaces:
    """All interfaces of this node."""

    def __init__(
        self,
        *,
        journal: Journal,
        writer: Worker,
        links: PodLinks,
        applier: Applier,
        blocks: Blocks,
        control: ControlPlane,
        node: NodeFacts,
        mtu: int,
        lineage: Callable[[], bytes],
        clock: Clock,
    ) -> None:
        self._journal = journal
        self._writer = writer
        self._links = links
        self._applier = applier
        self._blocks = blocks
        self._control = control
        self._node = node
        self._mtu = mtu
        self._lineage = lineage
        self._hints = Hints()
        self._clock = clock
        self._turns: dict[Attachment, _Turn] = {}
        self._releasing = asyncio.Event()

    # --- ADD -------------------------------------------------------------------------------------

    async def add(self, call: Call, pod: PodName, netns: int) -> Interface:
        """Makes an interface, or leaves nothing.

        Raises:
            CniError: with the code for the runtime.
        """
        started = self._clock.now()
        try:
            async with self._alone(call.attachment):
                record = await self._add(call.attachment, pod, netns)
        except CniError:
            _ADD_SECONDS.labels("failed").observe(self._clock.now() - started)
            raise
        _ADD_SECONDS.labels("ok").observe(self._clock.now() - started)
        link = self._link(record)
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
        async with self._alone(attachment):
            return await self._add(attachment, pod or NOBODY, None)

    async def _add(
        self, attachment: Attachment, pod: PodName, netns: int | None
    ) -> InterfaceRecord:
        """Starts over with what the pod asks for, should that be something else."""
        wish = self._hints.get(pod.namespace)
        for _ in range(MAX_WISHES):
            try:
                return await self._attempt(attachment, pod, netns, wish)
            except _OtherWish as other:
                wish = other.wish
                # An address is one pod's wish; a pool is perhaps its namespace's.
                self._hints.put(pod.namespace, replace(wish, addresses=()))
        raise CniError(Code.TRY_AGAIN, "what the pod asks for keeps changing", str(wish))

    async def _attempt(
        self, attachment: Attachment, pod: PodName, netns: int | None, wish: Wish
    ) -> InterfaceRecord:
        with timed(Stage.ADDRESS):
            network = attachment.network if netns is None else ""
            record = await self._begin(attachment, pod, wish, network)
        try:
            if netns is None:
                await self._announce(record)
            else:
                await self._make(record, netns)
        except _OtherWish:
            await asyncio.shield(self._undo(record))
            raise
        except (DeltaplaneError, OSError) as error:
            await self._undo(record)
            raise _to_cni(error) from error
        except BaseException:
            await asyncio.shield(self._undo(record))
            raise
        return record

    async def _begin(
        self, attachment: Attachment, pod: PodName, wish: Wish, network: str
    ) -> InterfaceRecord:
        """Opens the journal entry; claims what is missing. network: of the IPAM-only mode."""
        try:
            wanted = await self._blocks.find_requests(wish)
            if network:
                wanted = tuple(replace(request, network=network) for request in wanted)
            for request in wanted:
                # A single address has no gateway beside it.
                if request.address is not None and not network:
                    await self._blocks.claim_address(request.address, attachment)
            begun = await self._write_entry(attachment, pod, wanted)
        except DeltaplaneError as error:
            raise _to_cni(error) from error
        finally:
            self._blocks.changed()
        for address in begun.past_fence:
            _PAST_FENCE.inc()
            log.get().warning(
                "address_reused_past_fence",
                address=format_address(address),
                number=begun.record.number,
                strict_watermark=self._journal.ledger.progress.strict,
            )
        return begun.record

    async def _write_entry(
        self, attachment: Attachment, pod: PodName, wanted: tuple[Request, ...]
    ) -> Begun:
        """Waits only for an address that was claimed by number: nothing else will do."""
        deadline = self._clock.now() + OPEN_SECONDS
        claimed, fixed = False, any(request.address for request in wanted)
        while True:
            seen = self._blocks.barriers
            try:
                return await self._writer.call(
                    self._journal.begin,
                    attachment,
                    attempt=secrets.token_hex(8),
                    pod=pod,
                    requests=wanted,
                )
            except Exhausted:
                if not claimed:
                    claimed = True
                    await self._blocks.claim_for(wanted)
                    continue
                left = deadline - self._clock.now()
                if not fixed or not await self._blocks.wait_progress(seen, left):
                    raise

    async def _announce(self, record: InterfaceRecord) -> None:
        """Tells the registry of addresses that a pod uses: other nodes map them to it."""
        if record.is_registered:
            found = await self._register(record)
            if isinstance(found, Wanted):
                raise _OtherWish(found.wish)
        await self._writer.call(self._journal.commit, record.number)

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

    async def _register(self, record: InterfaceRecord) -> Registration | Wanted:
        with timed(Stage.REGISTER):
            return await self._control.register(record, self._node)

    async def _make_link(self, record: InterfaceRecord, netns: int) -> None:
        link = self._link(record)
        with timed(Stage.LINK):
            ifindex = await self._links.create(link, netns)
        with timed(Stage.PROGRAM):
            await self._applier.prepare(_local(record, link, ifindex))

    async def _open(self, record: InterfaceRecord, registration: Registration) -> None:
        """Waits until the pod's own policies are in force, within bounds, and makes it durable."""
        number, has_pod = record.number, registration.has_pod
        await self._applier.registered(number, registration.identity, registration.revision)
        try:
            async with asyncio.TaskGroup() as group:
                # Without a pod record it may come to nothing: a crash must find it half made then.
                if has_pod:
                    group.create_task(self._commit(record))
                with timed(Stage.POLICY):
                    is_open = await self._applier.wait_open(number, OPEN_SECONDS)
        except ExceptionGroup as failures:
            raise _first(failures) from failures
        if not is_open:
            self._note_closed(record, has_pod=has_pod)
        if not has_pod:
            await self._commit(record)

    def _note_closed(self, record: InterfaceRecord, *, has_pod: bool) -> None:
        """Raises Unavailable if there is nothing that could ever open the interface."""
        local = self._applier.tracker.locals[record.number]
        if self._applier.tracker.wanted_identity(local) in NEVER_OPEN and not has_pod:
            raise Unavailable(f"there is no pod record of {record.pod.namespace}/{record.pod.name}")
        _OPENED_LATE.inc()
        log.get().warning("interface_still_closed", number=record.number, pod=record.pod.name)

    async def _commit(self, record: InterfaceRecord) -> None:
        with timed(Stage.COMMIT):
            await self._writer.call(self._journal.commit, record.number)

    async def _undo(self, record: InterfaceRecord) -> None:
        """Takes back a half-made interface; what the registry holds may go later."""
        try:
            await self._writer.call(self._journal.retire, record.number)
            await self._release(record)
        except (DeltaplaneError, OSError) as error:
            log.get().warning("release_postponed", number=record.number, reason=str(error))
            self._releasing.set()

    # --- DEL -------------------------------------------------------------------------------------

    async def delete(self, attachment: Attachment) -> None:
        """Removes an interface; an unknown one is fine.

        With the registry away the rest follows later.
        """
        async with self._alone(attachment):
            record = self._journal.find(attachment)
            if record is None:
                return
            # Once this is written, the interface goes whatever happens to the caller.
            await self._writer.call(self._journal.retire, record.number)
            try:
                await self._release(record)
            except DeltaplaneError as error:
                log.get().warning("release_postponed", number=record.number, reason=str(error))
                self._releasing.set()

    async def retire(self, attachment: Attachment) -> None:
        """Makes durable that an interface goes, and leaves the rest to `run_releases`.

        An unknown one is fine.
        """
        async with self._alone(attachment):
            record = self._journal.find(attachment)
            if record is not None:
                await self._writer.call(self._journal.retire, record.number)
                self._releasing.set()

    async def _release(self, record: InterfaceRecord) -> None:
        """Undoes a RELEASING interface; may be repeated.

        Raises:
            DeltaplaneError: the registry could not be told.
            OSError: the link could not be removed.
        """
        await self._take_off(record)
        await self._unregister(record)

    async def _take_off(self, record: InterfaceRecord) -> None:
        """Nothing passes any more, and the link is gone. A foreign link of that name stays."""
        if record.kind is Kind.POD:
            await self._applier.detach(record.number)
            await self._links.remove(self._link(record))

    async def _unregister(self, record: InterfaceRecord) -> None:
        """The last steps: nobody has the addresses any more."""
        # Asked before: should the stream change to another store meanwhile, the answer is not of
        # that.
        lineage, revision = self._lineage(), 0
        try:
            if record.is_registered:
                revision = await self._control.release([record], self._node)
        except (Conflict, NotFound, Refused) as error:
            # This node is not registered any more: what it had went with it, nobody says when.
            log.get().warning("release_refused", number=record.number, reason=str(error))
            lineage, revision = b"", self._journal.ledger.progress.head
        await self._writer.call(
            self._journal.erase,
            record.number,
            revision=revision,
            lineage=lineage,
            now=self._clock.wall_ns() / 1e9,
        )
        self._blocks.changed()

    async def run_releases(self) -> None:
        """Finishes postponed releases, for ever."""
        pause, longest = RELEASE_RETRY_SECONDS
        while True:
            pending = [
                record
                for record in self._journal.interfaces.values()
                if record.state is State.RELEASING
            ]
            # What can be done here is done for all, also while the registry is away.
            failures = await self._each(pending, self._take_off)
            failures += await self._each(pending, self._unregister, gives_up=True)
            if failures:
                reason = str(failures[0])
                log.get().info("release_failed", pending=len(pending), reason=reason)
                await asyncio.sleep(pause)
                pause = min(pause * 2, longest)
                continue
            pause = RELEASE_RETRY_SECONDS[0]
            await self._releasing.wait()
            self._releasing.clear()

    async def _each(
        self,
        records: list[InterfaceRecord],
        work: Callable[[InterfaceRecord], Awaitable[None]],
        *,
        gives_up: bool = False,
    ) -> list[Exception]:
        """Does something with each, also after a failure, unless somebody is away; what failed."""
        failures: list[Exception] = []
        for record in records:
            async with self._alone(record.attachment):
                # The call that retired it may have finished it meanwhile.
                if record.number not in self._journal.interfaces:
                    continue
                try:
                    await work(record)
                except (DeltaplaneError, OSError) as error:
                    failures.append(error)
                    if gives_up and isinstance(error, Unavailable):
                        break
        return failures

    # --- CHECK -----------------------------------------------------------------------------------

    async def check(self, call: Call, previous: Result, netns: int) -> list[str]:
        """What is not as ADD has left it, for people.

        Raises:
            CniError: there is no such interface, or it cannot be looked at.
        """
        async with self._alone(call.attachment):
            record = self._journal.find(call.attachment)
            if record is not None and record.state is State.LOST:
                return [f"this node does not own {record.addresses} any more: the pod is closed"]
            if record is None or record.state is not State.READY:
                raise CniError(Code.UNKNOWN_CONTAINER, "no such interface", str(call.attachment))
            link = self._link(record)
            try:
                found = await self._links.inspect(link, netns)
            except OSError as error:
                raise _to_cni(error) from error
            problems = check.differences(link, call.netns, previous, found)
            local = self._applier.tracker.locals.get(record.number)
            if local is None or (found.host is not None and local.ifindex != found.host.index):
                problems.append("the data path does not serve the interface")
            return problems

    async def check_addresses(self, attachment: Attachment, previous: Result) -> list[str]:
        """What is wrong with addresses that another plugin uses, for people."""
        async with self._alone(attachment):
            record = self._journal.find(attachment)
            if record is None or record.kind is not Kind.IPAM:
                return [f"no address is held for {attachment}"]
            if record.state is not State.READY:
                return [f"this node does not own {record.addresses} any more"]
            return check.missing_addresses(record.addresses, previous)

    # --- start -----------------------------------------------------------------------------------

    async def resume(self) -> None:
        """After a start: retires half-made interfaces, adopts whole ones, removes other links."""
        present = await self._links.ours(self._node.uid)
        for record in list(self._journal.interfaces.values()):
            if record.state is State.ALLOCATING:
                await self._writer.call(self._journal.retire, record.number)
                continue
            if record.kind is not Kind.POD:
                continue
            link = self._link(record)
            ifindex = present.pop(link.host_name, None)
            if record.state is State.READY and ifindex is not None:
                await self._applier.attach(_local(record, link, ifindex))
        known = {self._link(record).host_name for record in self._journal.interfaces.values()}
        for name in present.keys() - known:
            log.get().warning("orphaned_link_removed", link=name)
            await self._links.delete(name)
        self._releasing.set()

    async def remove_strangers(self) -> None:
        """Removes links that an agent of another UID has left in this namespace.

        Called after the registration: that only works once the old node is deleted, and then its
        addresses are nobody's any more.
        """
        for name in await self._links.strangers(self._node.uid):
            try:
                await self._links.delete(name)
            except OSError as error:
                log.get().error("strange_link_left", link=name, reason=str(error))
            else:
                log.get().warning("strange_link_removed", link=name)

    async def close_strays(self) -> None:
        """Closes interfaces whose addresses are not this node's any more, for good."""
        for number in strays(self._journal.ledger):
            record = self._journal.interfaces[number]
            async with self._alone(record.attachment):
                now = self._journal.interfaces.get(number)
                if now is None or now.state is not State.READY:
                    continue
                await self._writer.call(self._journal.lose, number)
                await self._applier.detach(number)
                log.get().error(
                    "interface_lost",
                    number=number,
                    pod=f"{record.pod.namespace}/{record.pod.name}",
                    addresses=str(record.addresses),
                )

    async def register_again(self) -> None:
        """Tells the registry about every interface that is ready, for as long as it takes.

        It may have lost some with the node.
        """
        pending = {
            record.number: record
            for record in self._journal.interfaces.values()
            if record.state is State.READY and record.is_registered
        }
        pause, longest = REGISTER_RETRY_SECONDS
        while True:
            try:
                for number, record in list(pending.items()):
                    await self._register_again(record)
                    del pending[number]
            except (Unavailable, Internal) as error:
                log.get().warning("registration_postponed", pending=len(pending), reason=str(error))
                await asyncio.sleep(pause)
                pause = min(pause * 2, longest)
            else:
                return

    async def _register_again(self, record: InterfaceRecord) -> None:
        """Raises Unavailable or Internal when it is worth another attempt."""
        # In turn with DEL: registered after its release, the interface would stay for ever.
        async with self._alone(record.attachment):
            now = self._journal.interfaces.get(record.number)
            if now is None or now.state is not State.READY:
                return
            try:
                found = await self._control.register(record, self._node)
            except (Unavailable, Internal):
                raise
            except DeltaplaneError as error:
                log.get().warning(
                    "interface_not_registered", number=record.number, reason=str(error)
                )
                return
            if isinstance(found, Wanted):
                log.get().warning("interface_not_as_wanted", number=record.number, wish=found.wish)
                return
            await self._applier.registered(record.number, found.identity, found.revision)

    async def mend(self, number: int, restore: Callable[[PodLink], Awaitable[None]]) -> None:
        """Registers a working interface, and restores what the node knows of its link.

        Nothing happens for one that does not work any more.

        Raises:
            DeltaplaneError: the registry refuses it, wants other addresses, or is away.
            OSError: what restores it fails.
        """
        record = self._journal.interfaces.get(number)
        if record is None:
            return
        # In turn with DEL, as `_register_again`.
        async with self._alone(record.attachment):
            now = self._journal.interfaces.get(number)
            if now is None or now.state is not State.READY:
                return
            await restore(self._link(now))
            found = await self._control.register(now, self._node)
            if isinstance(found, Wanted):
                raise Refused(f"the pod asks for other addresses: {found.wish}")
            await self._applier.registered(number, found.identity, found.revision)

    # --- inside ----------------------------------------------------------------------------------

    def _link(self, record: InterfaceRecord) -> PodLink:
        return PodLink(
            number=record.number,
            node_uid=self._node.uid,
            ifname=record.attachment.ifname,
            addresses=record.addresses,
            mtu=self._mtu,
        )

    @contextlib.asynccontextmanager
    async def _alone(self, attachment: Attachment) -> AsyncIterator[None]:
        """One call at a time for one attachment."""
        turn = self._turns.setdefault(attachment, _Turn())
        turn.users += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[attachment]


def _local(record: InterfaceRecord, link: PodLink, ifindex: int) -> LocalInterface:
    return LocalInterface(
        number=record.number,
        ifindex=ifindex,
        addresses=record.addresses,
        pod_mac=link.pod_mac,
        host_mac=link.host_mac,
    )


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
