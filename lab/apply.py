"""Carries out what `lab.workloads` planned: records, namespaces, the CNI plugin, servers."""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from deltaplane.cli.client import Client
from deltaplane.v1 import registry_pb2
from lab import cni, podhost
from lab import pods as podfile
from lab.layout import Layout
from lab.pods import Phase, Pod
from lab.records import pod_record, pod_reference
from lab.sandboxes import Sandboxes
from lab.workloads import Change

T = TypeVar("T")

AT_ONCE = max(2, os.cpu_count() or 1)
"""Plugin processes at a time; more would only measure how they wait for a CPU."""

RECORDS_PER_CALL = 500
ADD_SECONDS = 15.0
"""How long an ADD that is told to try again is tried."""

RETRY_SECONDS = 0.2
SYNC_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PodChanges:
    """What was done.

    Attributes:
        added: pods with their addresses.
        add_seconds: how long the plugin's ADD took, one each; tries that failed are left out.
        updated: pods whose labels or ports changed in place.
        removed: pods that are gone.
        revision: store revision at which all of it is in effect; 0 when nothing was written.
    """

    added: tuple[Pod, ...]
    add_seconds: tuple[float, ...]
    updated: tuple[Pod, ...]
    removed: tuple[Pod, ...]
    revision: int


@contextlib.contextmanager
def locked(layout: Layout) -> Iterator[None]:
    """One `apply` or `delete` at a time."""
    with layout.record.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Applier:
    """Carries out changes of one lab's pods. Hold `locked` around it.

    Args:
        layout: the lab's files.
        client: its services.
        sandboxes: of its nodes.
        drain: given all pods, returns once nobody new is sent to those that are terminating.
    """

    def __init__(
        self,
        layout: Layout,
        client: Client,
        sandboxes: Sandboxes,
        drain: Callable[[Sequence[Pod]], None],
    ) -> None:
        self._layout = layout
        self._client = client
        self._sandboxes = sandboxes
        self._drain = drain
        self._pods = {pod.uid: pod for pod in podfile.load(layout.pods)}
        self._revision = 0

    @property
    def pods(self) -> tuple[Pod, ...]:
        """All pods now."""
        return tuple(self._pods.values())

    def carry_out(self, change: Change, progress: Callable[[str], None]) -> PodChanges:
        """Removes, updates, then creates.

        Raises:
            CniError: the plugin refused a pod; the others are finished and the state file is right.
            DeltaplaneError: a service refused or is away.
        """
        if change.remove:
            progress(f"removing {len(change.remove)} pods")
            self._remove(change.remove)
        if change.update:
            progress(f"changing {len(change.update)} pods in place")
            self._send_records(change.update)
            self._keep(change.update)
        add_seconds: tuple[float, ...] = ()
        if change.create:
            progress(f"adding {len(change.create)} pods")
            add_seconds = self._create(change.create)
        self._sync(change.create + change.update)
        return PodChanges(
            added=tuple(self._pods[pod.uid] for pod in change.create),
            add_seconds=add_seconds,
            updated=change.update,
            removed=change.remove,
            revision=self._revision,
        )

    def terminate(self, pods: Iterable[Pod]) -> None:
        """Lets pods serve whom they serve already, and nobody new."""
        serving = [pod for pod in pods if pod.phase is Phase.RUNNING]
        if serving:
            self._keep(replace(pod, phase=Phase.TERMINATING) for pod in serving)
            self._drain(self.pods)

    def _save(self) -> None:
        podfile.save(self._layout.pods, self._pods.values())

    def _keep(self, pods: Iterable[Pod]) -> None:
        self._pods |= {pod.uid: pod for pod in pods}
        self._save()

    def _send_records(self, pods: Sequence[Pod]) -> None:
        for part in _parts(pods, RECORDS_PER_CALL):
            records = [pod_record(pod) for pod in part]
            answer = self._client.registry.ApplyPods(registry_pb2.ApplyPodsRequest(pods=records))
            self._revision = max(self._revision, answer.revision)

    def _sync(self, pods: Iterable[Pod]) -> None:
        """Lets the pod hosts of these pods' nodes, if any, agree with the state file."""
        if not self._sandboxes.have_servers:
            return
        nodes = sorted({pod.node for pod in pods})
        _each(
            lambda node: podhost.ask(
                self._layout.node(node).podhost_socket, {"op": "sync"}, seconds=SYNC_SECONDS
            ),
            nodes,
        )

    def _create(self, pods: Sequence[Pod]) -> tuple[float, ...]:
        # Remembered before anything is made, so that nothing is made that nobody remembers.
        self._keep(pods)
        self._send_records(pods)
        _each(self._sandboxes.create, pods)
        failures: list[cni.CniError] = []

        def add(pod: Pod) -> tuple[Pod, float] | None:
            try:
                added = _add_patiently(self._sandboxes, pod)
            except cni.CniError as error:
                failures.append(error)
                return None
            return replace(pod, phase=Phase.RUNNING, addresses=added.addresses), added.seconds

        done = [result for result in _each(add, pods) if result is not None]
        self._keep(pod for pod, _ in done)
        if failures:
            self._sync(pod for pod, _ in done)
            raise failures[0]
        return tuple(seconds for _, seconds in done)

    def _remove(self, pods: Sequence[Pod]) -> None:
        self.terminate(pods)
        # Not running any more: the servers go first, as containers end before their sandbox.
        self._keep(replace(pod, phase=Phase.ADDING) for pod in pods)
        self._sync(pods)
        _each(self._sandboxes.delete, pods)
        for part in _parts(pods, RECORDS_PER_CALL):
            answer = self._client.registry.DeletePods(
                registry_pb2.DeletePodsRequest(pods=[pod_reference(pod) for pod in part])
            )
            self._revision = max(self._revision, answer.revision)
        for pod in pods:
            self._sandboxes.remove(pod)
            del self._pods[pod.uid]
        self._save()


def _add_patiently(sandboxes: Sandboxes, pod: Pod) -> cni.Added:
    """ADD as kubelet does it: "try again later" is tried again."""
    deadline = time.monotonic() + ADD_SECONDS
    while True:
        try:
            return sandboxes.add(pod)
        except cni.CniError as error:
            if error.code != cni.TRY_AGAIN or time.monotonic() > deadline:
                raise
        time.sleep(RETRY_SECONDS)


R = TypeVar("R")


def _each(action: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Does it for all items, a few at a time; raises the first failure when all have ended."""
    with ThreadPoolExecutor(max_workers=AT_ONCE) as threads:
        return list(threads.map(action, items))


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
