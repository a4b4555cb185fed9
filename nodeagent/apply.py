"""Makes the kernel agree with the tracker.

Plans, runs the steps in one worker thread, remembers the outcome.

What cannot be applied (a full map, a refused route) is held closed, reported, and tried again at
the next barrier; the rest is applied. The executor makes no choices: after a failure the kernel is
read back and a new plan is made without what failed.
"""

import asyncio
import time

from deltaplane.delta.changes import ObjectKey
from deltaplane.errors import Conflict, Refused, Unavailable
from deltaplane.model.addresses import AddressPair, to_mapped
from deltaplane.model.objects import Kind
from deltaplane.runtime import log, metrics
from nodeagent import steps as s
from nodeagent.brake import Brake, sweep
from nodeagent.counting import RuleHits
from nodeagent.dataplane.port import Actual, Applied, CapacityError, DataPlane, RuleCount
from nodeagent.execute import RouteTable, StepFailed, execute
from nodeagent.masquerade import Masquerade, NoMasquerade
from nodeagent.plan import Numbers, plan
from nodeagent.policy import RuleName
from nodeagent.room import Crowded, crowded_out
from nodeagent.state import Kernel, LocalInterface, Touched, Wanted, everything_in, from_dump
from nodeagent.stream import ApplyResult, BarrierReached, Refusal
from nodeagent.tracker import Tracker
from nodeagent.worker import Worker

_RULE_HITS = metrics.counter(
    "policy_hits",
    "New connections and denied packets by what policies said; under audit, what they would deny",
    ("direction", "action", "audit"),
)

_HELD = metrics.gauge("held_entries", "Entries that a snapshot or repair would remove and may not")

MAX_ATTEMPTS = 8
"""Plans per call; each attempt holds back what failed in the one before."""


class Applier:
    """The only one that changes the data path after start. `load` comes first, then `run`.

    Attributes:
        tracker: what should be.
        kernel: what is.
        applied: revision that the kernel agrees with; 0 before the first barrier of this process.
        complete: a complete view has been applied since the start.
        refused: objects that are held closed.
        brake: whether anything is removed at all.
    """

    def __init__(
        self,
        dataplane: DataPlane,
        table: RouteTable,
        worker: Worker,
        *,
        tunnel: AddressPair | None = None,
        masquerade: Masquerade | None = None,
    ) -> None:
        self.tracker = Tracker(tunnel, masquerades=masquerade is not None)
        self.kernel = Kernel()
        self.applied = 0
        self.complete = False
        self.refused: tuple[Refusal, ...] = ()
        self.brake = Brake()
        self._weighs = False
        self._dataplane = dataplane
        self._table = table
        self._masquerade = masquerade or NoMasquerade()
        self._worker = worker
        self._numbers = Numbers(1, 1)
        self._pending = Touched()
        self._work = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._current: list[asyncio.Future[None]] = []
        self._onlookers: list[asyncio.Future[None]] = []
        self._unresolved: dict[ObjectKey, Refusal] = {}
        self._reread = False
        self._stopped = False
        self._hits = RuleHits()

    async def load(self) -> Applied:
        """Reads what is in the kernel and adopts it untouched; returns what it stems from."""
        actual = await self._read_back()
        last_set = max((held.set_id for held in actual.policy_sets), default=0)
        last_epoch = max((subject.epoch for subject in actual.subjects), default=0)
        # Connections remember epochs of subjects that are gone by now: start above what time alone
        # could have reached. Tenths of a second since boot fill 32 bits in 13 years.
        since_boot = int(time.clock_gettime(time.CLOCK_BOOTTIME) * 10)
        self._numbers = Numbers(last_set + 1, max(last_epoch, since_boot) + 1)
        return actual.applied

    async def barrier(self, reached: BarrierReached, *, replaced: bool = False) -> ApplyResult:
        """Applies a barrier; see `nodeagent.stream`. Before a complete view nothing is touched.

        Args:
            reached: the barrier.
            replaced: a snapshot or repair is part of what has changed: what is gone may be too
                much.
        """
        if not reached.complete:
            return ApplyResult()
        first, self.complete = not self.complete, True
        self._weighs |= first or replaced
        if first:
            log.get().info("view_complete", revision=reached.revision, objects=len(reached.view))
            keys = frozenset((held.value.kind, held.value.key) for held in reached.view)
            self._pending.add(self.tracker.advance(reached.view, reached.revision, keys))
            self._pending.add(self.tracker.everything())
            self._pending.add(everything_in(self.kernel))
        else:
            changed = self.tracker.advance(reached.view, reached.revision, reached.changed)
            self._pending.add(changed)
        await self.settle()
        if (held := self.brake.sweep) is not None:
            refusal = held.refusal(self.tracker.node_index)
            return ApplyResult(refused=(*self.refused, refusal), held=True)
        if reached.changed or first or reached.revision != self.applied:
            state = Applied(lineage=reached.lineage, revision=reached.revision)
            await self._worker.call(self._dataplane.set_applied, state)
        self.applied = reached.revision
        return ApplyResult(refused=self.refused)

    async def run(self) -> None:
        """Applies what is pending, until cancelled. Waiting callers may be cancelled."""
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                self._current, self._waiting = self._waiting, []
                touched, self._pending = self._pending, Touched()
                if self._reread:
                    self._reread = False
                    await self._read_back()
                    touched.add(everything_in(self.kernel))
                if touched:
                    self._pending.add(await self._settle(touched))
                _resolve(self._current)
                _resolve(self._onlookers)
        finally:
            # Whoever waits must neither wait for ever nor believe that it was applied.
            self._stopped = True
            for future in (*self._current, *self._waiting, *self._onlookers):
                future.cancel()

    async def reread(self) -> None:
        """Reads the kernel back and makes it what it should be, whoever has written to it.

        Raises:
            Unavailable: the agent is stopping, or has no complete view to go by yet.
        """
        if not self.complete:
            raise Unavailable("no complete view has been applied yet")
        self._reread = True
        self._pending.add(self.tracker.everything())
        await self.settle()

    async def confirm_sweep(self, entries: int) -> None:
        """Removes what the brake holds, if it is so many entries or fewer.

        Raises:
            Refused: it holds nothing.
            Conflict: it holds more.
        """
        held = self.brake.sweep
        if held is None:
            raise Refused("nothing is held: there is no sweep to confirm")
        if held.entries <= entries:
            self.brake.confirm(entries)
            self._pending.add(held.gone)
            await self.settle()
        if (held := self.brake.sweep) is not None:
            raise Conflict(f"{held.entries} entries would go by now, not {entries}; look again")
        log.get().warning("sweep_confirmed", entries=entries)

    async def attach(self, local: LocalInterface) -> None:
        """Puts the programs on an interface and makes it known, closed or open as it should be."""
        await self.prepare(local)
        await self.settle()

    async def prepare(self, local: LocalInterface) -> None:
        """Puts the programs on an interface; nothing passes before the next plan."""
        await self._worker.call(self._dataplane.attach_pod, local.ifindex)
        self._pending.add(self.tracker.add_local(local))

    async def registered(self, number: int, identity: int, revision: int) -> None:
        """The registry has answered for an interface."""
        self._pending.add(self.tracker.registered(number, identity, revision))
        await self.settle()

    async def detach(self, number: int) -> None:
        """An interface goes: nothing passes any more when this returns."""
        self._pending.add(self.tracker.remove_local(number))
        await self.settle()

    def is_open(self, number: int) -> bool:
        """Whether an interface is judged by the policies of its newest identity."""
        local = self.tracker.locals.get(number)
        if local is None:
            return False
        in_force = self.kernel.endpoints.get(local.ifindex)
        identity = self.tracker.wanted_identity(local)
        return (
            in_force is not None
            and in_force.identity == identity
            and identity in self.kernel.subjects
        )

    def identities(self) -> dict[int, int]:
        """Endpoint number → identity in force, of open interfaces."""
        return {
            endpoint.endpoint_id: endpoint.identity
            # A copy, made at once: the worker thread writes meanwhile.
            for endpoint in tuple(self.kernel.endpoints.values())
            if endpoint.identity in self.kernel.subjects
        }

    async def wait_open(self, number: int, seconds: float) -> bool:
        """Waits until an interface is open; False when it is not in time."""
        try:
            async with asyncio.timeout(seconds):
                while not self.is_open(number):
                    # Also the plan that is being executed now may open it.
                    await _added_to(self._onlookers)
        except TimeoutError:
            return self.is_open(number)
        return True

    async def rule_hits(self) -> dict[RuleName, int]:
        """How often each rule has decided; for metrics it has to be asked now and then."""
        return await self._worker.call(self._read_hits)

    async def settle(self) -> None:
        """Returns when all that was pending at the call is applied or refused.

        Raises:
            Unavailable: the agent is stopping.
        """
        if self._stopped:
            raise Unavailable("the agent is stopping")
        settled = _added_to(self._waiting)
        self._work.set()
        await settled

    # --- inside ----------------------------------------------------------------------------------

    async def _settle(self, touched: Touched) -> Touched:
        """Plans and runs until a plan works; returns the keys that are to be tried again."""
        held_back, left = Touched(), Touched()
        refused: dict[ObjectKey, Refusal] = {}
        crowded = Crowded()
        wanted = Wanted()
        in_sync = self.complete and self._may_sweep(touched)
        for _ in range(MAX_ATTEMPTS):
            wanted = self.tracker.wanted(touched, self.kernel)
            wanted.leave_out(held_back)
            crowded = await self._crowded(wanted)
            wanted.leave_out(crowded.keys)
            steps = plan(wanted, self.kernel.cut(touched), self._numbers, in_sync=in_sync)
            try:
                await self._worker.call(self._run, steps, wanted)
            except StepFailed as failure:
                log.get().error(
                    "step_failed", step=type(failure.step).__name__, reason=failure.reason
                )
                keys = s.keys(failure.step)
                if isinstance(failure.step, s.DELETIONS):
                    touched.remove(keys)
                    left.add(keys)
                else:
                    held_back.add(keys)
                    refused |= self._refusals(keys, failure.reason)
                await self._read_back()
                continue
            # What had to be closed may have made room for what replaces it.
            if not crowded.reasons or not any(isinstance(step, s.DeleteSets) for step in steps):
                break
        self._check_closure(wanted)
        for identity, reason in crowded.reasons.items():
            log.get().error("policy_too_large", identity=identity, reason=reason)
            refused |= self._refusals(Touched(subjects={identity}), reason)
        refused |= self._unresolved
        self.refused = tuple(refused.values())
        left.add(held_back)
        left.add(crowded.keys)
        return left

    def _may_sweep(self, touched: Touched) -> bool:
        """Whether what is not wanted may go. What was held before is touched again."""
        before = self.brake.sweep
        if before is None and not self._weighs:
            return True
        self._weighs = False
        if before is not None:
            touched.add(before.gone)
        found = sweep(self.tracker.wanted(touched, self.kernel), self.kernel, touched)
        self.brake.weigh(found)
        _HELD.set(found.entries if self.brake.sweep else 0)
        if self.brake.sweep is not None:
            if before is None:
                log.get().error("braked", entries=found.entries, held=found.held)
            return False
        if before is not None:
            log.get().info("brake_released")
            touched.add(self.tracker.everything())
            touched.add(everything_in(self.kernel))
        return True

    async def _crowded(self, wanted: Wanted) -> Crowded:
        """Subjects whose sets do not fit: they stay closed."""
        if not wanted.subjects:
            return Crowded()
        room = await self._worker.call(self._dataplane.room)
        return Crowded(crowded_out(wanted, self.kernel, room))

    def _run(self, steps: tuple[s.Step, ...], wanted: Wanted) -> None:
        """In the worker thread. What is known of the kernel follows step by step."""
        for step in steps:
            try:
                counted = execute(step, self._dataplane, self._table, self._masquerade)
            except (CapacityError, OSError) as error:
                raise StepFailed(step, str(error)) from error
            s.record(self.kernel, step)
            if isinstance(step, s.DeleteSets):
                # Nothing counts in them any more: the grace period is over.
                self._count(counted)
                self._hits.retire(step.set_ids)
        if wanted.subjects:
            self._name_rules(wanted)

    def _name_rules(self, wanted: Wanted) -> None:
        """Says for which rules the sets in force count."""
        names = {
            set_id: content.names
            for identity, policies in wanted.subjects.items()
            for set_id, content in zip(
                self.kernel.subjects[identity].subject.sets, policies.sets, strict=True
            )
            if content is not None
        }
        if self._hits.renames(names):
            self._count(self._dataplane.rule_counts())
        self._hits.name(names)
        self._hits.prune()

    def _count(self, counts: tuple[RuleCount, ...]) -> None:
        for name, hits in self._hits.settle(counts).items():
            direction = "ingress" if name.ingress else "egress"
            _RULE_HITS.labels(direction, name.action.name.lower(), str(name.audit).lower()).inc(
                hits
            )

    def _read_hits(self) -> dict[RuleName, int]:
        """In the worker thread."""
        self._count(self._dataplane.rule_counts())
        return self._hits.totals()

    async def _read_back(self) -> Actual:
        actual = await self._worker.call(self._dataplane.dump)
        routes = await self._worker.call(self._table.dump)
        self.kernel = from_dump(actual, routes, await self._worker.call(self._masquerade.dump))
        # A half of an interface is none: it is written again, if there is to be one.
        wanted = {local.ifindex for local in self.tracker.locals.values()}
        for ifindex in wanted.intersection(await self._worker.call(self._halves, actual)):
            del self.kernel.endpoints[ifindex]
        return actual

    def _halves(self, actual: Actual) -> list[int]:
        """Links of interfaces that do not get the packets to all of their addresses."""
        return [
            endpoint.ifindex
            for endpoint in actual.local_endpoints
            if any(
                address and self._dataplane.holder_of(to_mapped(address)) != endpoint.ifindex
                for address in (endpoint.ipv4, endpoint.ipv6)
            )
        ]

    def _check_closure(self, wanted: Wanted) -> None:
        """Reports subjects whose policies name what the view lacks: those rules allow nothing."""
        for identity in wanted.subjects:
            key = (Kind.SUBJECT_POLICY, identity.to_bytes(4))
            missing = self.tracker.missing_peer_sets(identity)
            self._unresolved.pop(key, None)
            if missing:
                reason = f"peer sets are missing: {', '.join(name.hex() for name in missing)}"
                self._unresolved[key] = Refusal(
                    kind=key[0], key=key[1], reason=reason, retryable=False
                )
        for key in [
            k for k in self._unresolved if int.from_bytes(k[1]) not in self.kernel.subjects
        ]:
            del self._unresolved[key]

    def _refusals(self, keys: Touched, reason: str) -> dict[ObjectKey, Refusal]:
        """The objects behind keys that could not be applied."""
        objects = {(Kind.NODE, index.to_bytes(4)) for index in keys.next_hops}
        objects |= {(Kind.SUBJECT_POLICY, identity.to_bytes(4)) for identity in keys.subjects}
        found = [
            *(self.tracker.origins.object_of(address) for address in keys.mappings),
            *(self.tracker.origins.block_key(prefix) for prefix in keys.routes),
            *(self.tracker.origins.range_key(key) for key in keys.ranges),
            *(self.tracker.origins.member_key(member) for member in keys.members),
        ]
        objects |= {key for key in found if key is not None}
        return {
            key: Refusal(kind=key[0], key=key[1], reason=reason, retryable=True) for key in objects
        }


def _added_to(waiters: list[asyncio.Future[None]]) -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiters.append(future)
    return future


def _resolve(waiters: list[asyncio.Future[None]]) -> None:
    """Wakes all and empties the list."""
    for future in waiters:
        if not future.done():
            future.set_result(None)
    waiters.clear()
