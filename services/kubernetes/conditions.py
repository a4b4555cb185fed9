"""Conditions that the bridge writes: which objects lack them, and what they say. Pure.

NetworkUnavailable=False of a node: its agent has registered and has applied what it was sent. It is
never set to True again: a node whose agent is away goes on forwarding, and whether it is of use is
the kubelet's to say.

deltaplane.dev/network-ready=True of a pod with that readiness gate: every node that must know its
endpoint does.
"""

from collections.abc import Collection, Mapping

from services.kubernetes import kinds
from services.kubernetes.kinds import JsonObject
from services.kubernetes.ledger import Key
from services.kubernetes.pods import GATE, is_gated

NETWORK_UNAVAILABLE = "NetworkUnavailable"


class NodeConditions:
    """Follows nodes, and says whose condition is to be cleared."""

    def __init__(self) -> None:
        self._uncleared: set[Key] = set()

    def listed(self, objects: Mapping[Key, kinds.Object]) -> None:
        """These nodes are all there are."""
        self._uncleared &= objects.keys()
        for key, item in objects.items():
            self.changed(key, item)

    def changed(self, key: Key, item: kinds.Object | None) -> None:
        """A node is there, or changed, or gone (None)."""
        conditions = item.status.conditions if isinstance(item, kinds.Node) and item.status else ()
        said = {it.type: it.status for it in conditions or ()}
        if item is None or said.get(NETWORK_UNAVAILABLE) == "False":
            self._uncleared.discard(key)
        else:
            self._uncleared.add(key)

    def due(self, live: Collection[Key]) -> list[Key]:
        """Nodes that are live and do not say so yet."""
        return sorted(self._uncleared.intersection(live))


class GatedPods:
    """Follows pods that wait for our condition.

    Attributes:
        waiting: UIDs of pods that lack it, by key.
    """

    def __init__(self) -> None:
        self.waiting: dict[Key, str] = {}

    def listed(self, objects: Mapping[Key, kinds.Object]) -> None:
        """These pods are all there are."""
        for key in self.waiting.keys() - objects.keys():
            del self.waiting[key]
        for key, item in objects.items():
            self.changed(key, item)

    def changed(self, key: Key, item: kinds.Object | None) -> None:
        """A pod is there, or changed, or gone (None)."""
        if isinstance(item, kinds.Pod) and _waits(item):
            self.waiting[key] = item.metadata.uid
        else:
            self.waiting.pop(key, None)


def _waits(pod: kinds.Pod) -> bool:
    if not is_gated(pod) or pod.spec.host_network or not pod.spec.node_name:
        return False
    conditions = (pod.status.conditions if pod.status else None) or ()
    return not any(it.type == GATE and it.status == "True" for it in conditions)


def cleared(at: str) -> JsonObject:
    """The patch of a node's status. at: RFC 3339."""
    return _patch(
        {
            "type": NETWORK_UNAVAILABLE,
            "status": "False",
            "reason": "DeltaplaneIsUp",
            "message": "the node's agent has applied what the cluster has told it",
            "lastHeartbeatTime": at,
            "lastTransitionTime": at,
        }
    )


def ready(uid: str, at: str) -> JsonObject:
    """The patch of a pod's status, of this instance of the pod only. at: RFC 3339."""
    condition = {
        "type": GATE,
        "status": "True",
        "reason": "EndpointKnown",
        "message": "every node that must know the pod's addresses does",
        "lastTransitionTime": at,
    }
    return {"metadata": {"uid": uid}, **_patch(condition)}


def _patch(condition: JsonObject) -> JsonObject:
    return {"status": {"conditions": [condition]}}
