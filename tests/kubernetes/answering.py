"""What an API server answers to one request, without the HTTP around it: lists, reads and writes.

How an object, a list and a line of a watch are written is here, too.
"""

import json
import re
from dataclasses import dataclass
from urllib.parse import parse_qsl

from services.kubernetes.api import resource as resources
from services.kubernetes.api.resource import Resource
from services.kubernetes.api.types import INITIAL_EVENTS_END
from tests.kubernetes import allotting, patching, requests
from tests.kubernetes.storing import Object, Refusal, Storage

DEFINITIONS = Resource(
    group="apiextensions.k8s.io",
    version="v1",
    plural="customresourcedefinitions",
    kind="CustomResourceDefinition",
    namespaced=False,
)
"""Who creates one has the kind served."""

_PATH = re.compile(
    r"(?:/api|/apis/(?P<group>[^/]+))/(?P<version>[^/]+)"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/[^/]+))?"
    r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<subresource>status|approval))?)?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request as it came."""

    verb: str
    resource: Resource
    namespace: str
    name: str
    subresource: str
    params: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


def read(
    storage: Storage, *, method: str, path: str, query: str, headers: dict[str, str], body: bytes
) -> Call:
    """What a request asks for.

    Raises:
        Refusal: nobody serves such a path.
    """
    found = _PATH.fullmatch(path)
    if found is None:
        raise Refusal(404, "NotFound", path)
    params = dict(parse_qsl(query))
    return Call(
        verb=_verb(method, params, found["name"]),
        resource=_resource(storage, found["group"] or "", found["version"], found["plural"]),
        namespace=found["namespace"] or "",
        name=found["name"] or "",
        subresource=found["subresource"] or "",
        params=params,
        headers=headers,
        body=body,
    )


def _resource(storage: Storage, group: str, version: str, plural: str) -> Resource:
    for it in list(storage.served):
        if (it.group, it.version, it.plural) == (group, version, plural):
            return it
    raise Refusal(404, "NotFound", "the server could not find the requested resource")


def act(storage: Storage, call: Call) -> tuple[int, bytes]:
    """Does what is asked, but for watches; gives the HTTP code and the body."""
    match call.verb:
        case "list":
            return 200, _list(storage, call)
        case "get":
            found = storage.get(call.resource, call.key)
            return 200, _whole(call.resource, found)
        case "create":
            return 201, _whole(call.resource, _create(storage, call))
        case "update" | "patch":
            return 200, _whole(call.resource, _write(storage, call))
        case "delete":
            if call.resource == DEFINITIONS:
                storage.withdraw(_defined(storage.get(call.resource, call.key)))
            gone = storage.delete(call.resource, call.key)
            return 200, _whole(call.resource, gone)
        case _:
            raise Refusal(405, "MethodNotAllowed", call.verb)


def _create(storage: Storage, call: Call) -> Object:
    value = json.loads(call.body)
    if call.resource.custom and not value.get("kind"):
        raise Refusal(400, "BadRequest", f"Object 'Kind' is missing in {call.body!r}")
    value = _checked(call.resource, value)
    with storage.lock:
        if call.namespace not in ("", "default"):
            storage.get(resources.NAMESPACES, f"/{call.namespace}")
        if call.resource == resources.NAMESPACES:
            labels = value["metadata"].setdefault("labels", {})
            labels["kubernetes.io/metadata.name"] = value["metadata"]["name"]
        if call.resource == resources.SERVICES:
            value = value | {"spec": allotting.spec(value["spec"], storage.revision)}
        if call.resource == DEFINITIONS:
            storage.served.add(_defined(value))
        if call.resource == resources.CERTIFICATE_REQUESTS:
            token = call.headers.get("authorization", "").removeprefix("Bearer ")
            value = requests.asked(value, storage.users.get(token, {}))
        return storage.create(call.resource, value, namespace=call.namespace)


def _defined(value: Object) -> Resource:
    """The kind that a definition defines."""
    spec = value["spec"]
    return Resource(
        group=spec["group"],
        version=spec["versions"][0]["name"],
        plural=spec["names"]["plural"],
        kind=spec["names"]["kind"],
        namespaced=spec["scope"] == "Namespaced",
        custom=True,
    )


def _list(storage: Storage, call: Call) -> bytes:
    chunk = storage.chunk(
        call.resource,
        namespace=call.namespace,
        limit=int(call.params.get("limit", "0")),
        token=call.params.get("continue", ""),
    )
    texts = [text for text in chunk.texts if requests.selects(call.params, text)]
    metadata = {"resourceVersion": str(chunk.revision)} | (
        {"continue": chunk.rest} if chunk.rest else {}
    )
    head = _kind(call.resource, "List") | {"metadata": metadata}
    return json.dumps(head).encode()[:-1] + b',"items":[' + b",".join(texts) + b"]}"


def _write(storage: Storage, call: Call) -> Object:
    body = json.loads(call.body)
    with storage.lock:
        old = storage.get(call.resource, call.key)
        if call.verb == "patch":
            new = patching.apply(old, body, call.headers.get("content-type", ""))
            named = body.get("metadata", {})
            expected = named.get("resourceVersion")
            if named.get("uid", old["metadata"]["uid"]) != old["metadata"]["uid"]:
                raise Refusal(422, "Invalid", "metadata.uid: field is immutable")
        else:
            new = body
            expected = body["metadata"].get("resourceVersion")
            if call.resource == resources.LEASES and not expected:
                raise Refusal(422, "Invalid", "metadata.resourceVersion: must be specified")
        _checked(call.resource, new)
        if call.subresource and call.resource == resources.CERTIFICATE_REQUESTS:
            new = requests.written(old, new, call.subresource)
        elif call.subresource:
            new = {**old, call.subresource: new.get(call.subresource, {})}
        elif "status" in old and call.resource != resources.EVENTS:
            new = {**new, "status": old["status"]}
        return storage.replace(call.resource, call.key, new, expected=expected)


def _verb(method: str, params: dict[str, str], name: str | None) -> str:
    if method == "GET" and params.get("watch") in {"true", "1"}:
        return "watch"
    if method == "GET":
        return "get" if name else "list"
    return {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[method]


def _kind(resource: Resource, suffix: str = "") -> Object:
    return {"kind": resource.kind + suffix, "apiVersion": resource.api_version}


def _whole(resource: Resource, value: Object) -> bytes:
    return json.dumps(_kind(resource) | value).encode()


def line(resource: Resource, kind: str, text: bytes) -> bytes:
    """Of a watch, about one object. kind: ADDED, MODIFIED or DELETED."""
    # As the real one: no object but those in lists comes without its kind.
    head = json.dumps(_kind(resource))[:-1].encode()
    return b'{"type":"%b","object":%b,%b}\n' % (kind.encode(), head, text[1:])


def bookmark(resource: Resource, revision: int, *, ends_initial: bool = False) -> bytes:
    """Of a watch. ends_initial: all that there was has been told."""
    metadata: Object = {"resourceVersion": str(revision), "creationTimestamp": None}
    if ends_initial:
        metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
    body = {"type": "BOOKMARK", "object": _kind(resource) | {"metadata": metadata}}
    return json.dumps(body).encode() + b"\n"


def _checked(resource: Resource, value: Object) -> Object:
    """The rules for kinds that the bridge writes."""
    if resource == resources.EVENTS:
        needed = (
            "eventTime",
            "reportingController",
            "reportingInstance",
            "action",
            "reason",
            "type",
        )
        missing = [it for it in needed if not value.get(it)]
        if missing or len(value.get("note", "").encode()) > 1024:
            raise Refusal(422, "Invalid", f"Event is invalid: {missing}")
    if resource == resources.LEASES:
        duration = value.get("spec", {}).get("leaseDurationSeconds")
        if duration is not None and duration <= 0:
            raise Refusal(422, "Invalid", "spec.leaseDurationSeconds: must be greater than 0")
    return value
