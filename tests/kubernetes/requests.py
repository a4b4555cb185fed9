"""Requests for certificates, as an API server treats them: certificates.k8s.io/v1."""

import json
from collections.abc import Mapping

from tests.kubernetes.storing import Object, Refusal

WRITTEN_BY_SERVER = ("username", "extra", "uid", "groups")
TIME = "2026-01-01T00:00:00Z"
BY_APPROVAL = {"Approved", "Denied"}


def asked(value: Object, user: Object) -> Object:
    """A new request: who asks is written by the server, and nothing has become of it."""
    spec = {name: it for name, it in value["spec"].items() if name not in WRITTEN_BY_SERVER}
    if not spec.get("request") or not spec.get("signerName") or not spec.get("usages"):
        raise Refusal(422, "Invalid", "spec: request, signerName and usages are required")
    return {**value, "spec": spec | user, "status": {}}


def written(old: Object, new: Object, subresource: str) -> Object:
    """What a write of a subresource makes of it."""
    before, status = old.get("status", {}), new.get("status", {})
    if subresource == "approval":
        status = {**before, "conditions": status.get("conditions", [])}
    first, then = ({it["type"]: it for it in p.get("conditions", ())} for p in (before, status))
    if any(then.get(kind) != it for kind, it in first.items()):
        raise Refusal(422, "Invalid", "status.conditions: Forbidden: updates may not modify them")
    if then.keys() >= BY_APPROVAL:
        raise Refusal(422, "Invalid", "status.conditions: Approved and Denied are exclusive")
    for condition in then.values():
        condition.setdefault("lastUpdateTime", TIME)
        condition.setdefault("lastTransitionTime", TIME)
    if subresource == "status" and (then.keys() - first.keys()) & BY_APPROVAL:
        raise Refusal(422, "Invalid", "status.conditions: only by the approval subresource")
    certificate = before.get("certificate")
    if certificate and certificate != status.get("certificate"):
        raise Refusal(422, "Invalid", "status.certificate: Forbidden: updates may not change it")
    return {**old, "metadata": new["metadata"], "status": status}


def selects(params: Mapping[str, str], text: bytes) -> bool:
    """Whether an object is one that a list or watch asks for."""
    field, _, wanted = params.get("fieldSelector", "").partition("=")
    value = json.loads(text) if field else {}
    for part in filter(None, field.split(".")):
        value = value.get(part, {})
    return not field or value == wanted
