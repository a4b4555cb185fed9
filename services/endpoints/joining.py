"""How an endpoint, its pod record and its namespace record become one identity.

                     no record          record of this pod     record of another pod or node
    registering      waits, closed      its label set          refused
    registered       stays as it is     its label set          stays as it is

So an endpoint never gets the labels of another pod that took over its name, and one whose record is
deleted first keeps working until the CNI releases it.
"""

from collections.abc import Mapping

from deltaplane.errors import Refused
from deltaplane.model.identity import LabelSet
from services.endpoints.identity import LabelFilter
from services.endpoints.records import Pod, Request


def mismatch(request: Request, pod: Pod) -> str | None:
    """Why a pod record is not the one of this endpoint; None when it is."""
    if request.pod_uid and request.pod_uid != pod.uid:
        return f"its record has UID {pod.uid}, the endpoint names {request.pod_uid}"
    if request.node != pod.node:
        return f"its record binds it to node {pod.node}, the endpoint is on {request.node}"
    return None


def join(
    request: Request, pod: Pod | None, namespace_labels: Mapping[str, str], labels: LabelFilter
) -> LabelSet | None:
    """What a new endpoint's identity stands for; None: it waits for its pod record, closed.

    Raises:
        Refused: there is a record under this name, but of another pod or on another node.
    """
    if pod is None:
        return None
    if reason := mismatch(request, pod):
        raise Refused(f"pod {request.namespace}/{request.pod}: {reason}")
    return labels.label_set(pod, namespace_labels)


def follow(
    request: Request, pod: Pod | None, namespace_labels: Mapping[str, str], labels: LabelFilter
) -> LabelSet | None:
    """What a registered endpoint's identity stands for now; None: it stays as it is."""
    if pod is None or mismatch(request, pod):
        return None
    return labels.label_set(pod, namespace_labels)
