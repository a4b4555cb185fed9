"""What the CNI commands mean to this agent."""

import sqlite3

from deltaplane.errors import DeltaplaneError, Exhausted
from deltaplane.runtime import tracing
from deltaplane.runtime.clock import Clock
from nodeagent.apply import Applier
from nodeagent.blocks import Blocks
from nodeagent.choosing import is_available, shortage
from nodeagent.cni import conversion, result
from nodeagent.cni.netconf import Attachment, Call
from nodeagent.cni.result import CniError, Code
from nodeagent.cni.spool import Spool
from nodeagent.delegated import GATEWAY_OFFSET
from nodeagent.entries import Kind
from nodeagent.interfaces import Interfaces
from nodeagent.journal import Journal, State
from nodeagent.netlink import namespace
from nodeagent.pods import PodLinks
from nodeagent.releases import Releases
from nodeagent.stream import SlicerStream

STREAM_GRACE_SECONDS = 5.0
"""For a slicer to restart or another to take over before STATUS sends pods elsewhere."""


class Plugin:
    """Handles calls; see `nodeagent.cni.server.Handler`."""

    def __init__(
        self,
        *,
        interfaces: Interfaces,
        releases: Releases,
        journal: Journal,
        blocks: Blocks,
        applier: Applier,
        stream: SlicerStream,
        spool: Spool,
        links: PodLinks,
        clock: Clock,
    ) -> None:
        self._interfaces = interfaces
        self._releases = releases
        self._journal = journal
        self._blocks = blocks
        self._clock = clock
        self._applier = applier
        self._stream = stream
        self._spool = spool
        self._links = links

    async def handle(self, call: Call, netns: int | None) -> bytes:
        """Runs a command and returns what the plugin prints.

        Raises:
            CniError: the command failed; nothing is left of it.
        """
        match call.command:
            case "ADD":
                with tracing.root("cni ADD", _facts(call)):
                    return await self._begin(call, netns)
            case "DEL":
                await self._delete(call.attachment)
            case "GC":
                await self._collect(call)
            case "STATUS" if call.delegated:
                self._check_pools()
            case "STATUS":
                self._check_status()
            case "CHECK" if call.delegated:
                await self._check_held(call)
            case "CHECK":
                await self._check(call, netns)
            case command:
                raise CniError(
                    Code.INVALID_ENVIRONMENT, f"{command} is not supported by deltaplane"
                )
        return b""

    async def _begin(self, call: Call, netns: int | None) -> bytes:
        try:
            return await (self._hold(call) if call.delegated else self._add(call, netns))
        except sqlite3.OperationalError as error:
            # As a rule the disk is full: no fault of ours, and what is left of it DEL takes away.
            reason = "the agent cannot write its state"
            raise CniError(Code.IO_FAILURE, reason, str(error)) from error

    async def _add(self, call: Call, netns: int | None) -> bytes:
        if netns is None:
            raise CniError(
                Code.UNKNOWN_CONTAINER, "the network namespace does not exist", call.netns
            )
        if not namespace.is_network_namespace(netns):
            raise CniError(Code.INVALID_NETNS, "CNI_NETNS is no network namespace", call.netns)
        if self._links.is_home(netns):
            raise CniError(Code.INVALID_NETNS, "CNI_NETNS is the node's own", call.netns)
        if call.pod is None:
            raise CniError(
                Code.INVALID_ENVIRONMENT,
                "CNI_ARGS does not name the pod",
                "K8S_POD_NAMESPACE and K8S_POD_NAME are needed",
            )
        if not self._applier.tracker.node_index:
            raise CniError(Code.TRY_AGAIN, "this node is not registered yet")
        # A DEL of the same attachment may have come while the agent was away.
        await self._spool.replay()
        interface = await self._interfaces.add(call, call.pod, netns)
        made = result.of_interface(interface)
        if call.previous is not None:
            made = result.behind(call.previous, made)
        return conversion.success(call.version, made)

    async def _hold(self, call: Call) -> bytes:
        """ADD of the IPAM-only mode."""
        if not self._applier.tracker.node_index:
            raise CniError(Code.TRY_AGAIN, "this node is not registered yet")
        await self._spool.replay()
        record = await self._interfaces.add_addresses(call.attachment, call.pod)
        held = []
        for address in record.addresses:
            block = self._journal.ledger.block_of(address)
            if block is None:
                raise CniError(Code.TRY_AGAIN, "the block was lost meanwhile", str(address))
            gateway = block.prefix.nth(GATEWAY_OFFSET)
            held.append((address, block.prefix.length, gateway))
        return conversion.success(call.version, result.of_addresses(held))

    async def _check_held(self, call: Call) -> None:
        if call.previous is None:
            raise CniError(Code.INVALID_CONFIG, "prevResult is missing", "CHECK compares with it")
        if problems := await self._interfaces.check_addresses(call.attachment, call.previous):
            raise CniError(Code.NOT_AS_ADDED, "the addresses are not held", "; ".join(problems))

    async def _check(self, call: Call, netns: int | None) -> None:
        if call.previous is None:
            raise CniError(Code.INVALID_CONFIG, "prevResult is missing", "CHECK compares with it")
        if netns is None or not namespace.is_network_namespace(netns):
            raise CniError(
                Code.NOT_AS_ADDED, "the network namespace is gone", f"CNI_NETNS={call.netns}"
            )
        if problems := await self._interfaces.check(call, call.previous, netns):
            raise CniError(
                Code.NOT_AS_ADDED, "the interface is not as ADD has made it", "; ".join(problems)
            )

    async def _delete(self, attachment: Attachment) -> None:
        self._check_known()
        try:
            await self._releases.delete(attachment)
        except (DeltaplaneError, OSError, sqlite3.Error) as error:
            raise CniError(Code.TRY_AGAIN, "the interface is not gone yet", str(error)) from error

    async def _collect(self, call: Call) -> None:
        """Deletes what the runtime does not know; goes on after a failure and reports it."""
        if call.valid_attachments is None:
            # Taking "no list" for "nothing is valid" would empty the node.
            raise CniError(Code.INVALID_CONFIG, "cni.dev/valid-attachments is missing")
        self._check_known()
        stale = [
            record.attachment
            for record in self._journal.interfaces.values()
            if record.state in (State.READY, State.LOST)
            and record.kind is (Kind.IPAM if call.delegated else Kind.POD)
            and record.attachment.network == call.attachment.network
            and (record.attachment.container_id, record.attachment.ifname)
            not in call.valid_attachments
        ]
        failures = []
        for attachment in stale:
            try:
                await self._delete(attachment)
            except CniError as error:
                failures.append(f"{attachment}: {error}")
        if failures:
            raise CniError(Code.TRY_AGAIN, "some attachments are left", "; ".join(failures))

    def _check_known(self) -> None:
        """A journal that was lost says nothing about what there is."""
        if self._journal.ledger.is_new:
            raise CniError(
                Code.TRY_AGAIN, "this node does not know its interfaces yet", "no registry so far"
            )

    def _check_pools(self) -> None:
        """STATUS of the IPAM-only mode, which claims what it needs when it needs it."""
        if not self._applier.tracker.node_index:
            raise CniError(Code.NOT_AVAILABLE, "this node is not registered yet")
        try:
            self._blocks.requests()
        except Exhausted as error:
            raise CniError(Code.NOT_AVAILABLE, "no address is free", str(error)) from error

    def _check_status(self) -> None:
        if not self._applier.tracker.node_index:
            raise CniError(Code.NOT_AVAILABLE, "this node is not registered yet")
        if not self._applier.complete:
            raise CniError(
                Code.NOT_AVAILABLE, "no slicer has told the policies yet", self._stream.last_error
            )
        lost_at = self._stream.lost_at
        if lost_at is not None and self._clock.now() - lost_at > STREAM_GRACE_SECONDS:
            # Pods that are there keep their connections: not code 51.
            raise CniError(Code.NOT_AVAILABLE, "no slicer is reachable", self._stream.last_error)
        try:
            requests = self._blocks.requests()
        except Exhausted as error:
            raise CniError(Code.NOT_AVAILABLE, "no address is free", str(error)) from error
        ledger = self._journal.ledger
        empty = [
            shortage(ledger, request) for request in requests if not is_available(ledger, request)
        ]
        if empty:
            raise CniError(Code.NOT_AVAILABLE, "no address is free", "; ".join(empty))


def _facts(call: Call) -> tracing.Attributes:
    pod = "" if call.pod is None else f"{call.pod.namespace}/{call.pod.name}"
    return {"pod": pod, "container": call.attachment.container_id}
