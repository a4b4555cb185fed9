"""What a Kubernetes API server remembers: objects, their versions, and a history that is compacted.

The rules are those of the API concepts: one revision counts for all kinds, a list shows one
revision even in chunks, a version is a condition for whoever names it, and what is compacted is
gone.
"""

import base64
import bisect
import copy
import json
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from deltaplane.model import names
from services.kubernetes.api.resource import Resource

Object = dict[str, Any]


class Refusal(Exception):
    """An answer that is no success, as a Status."""

    def __init__(self, code: int, reason: str, message: str = "", retry_after: int = 0) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    def status(self) -> Object:
        body = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "code": self.code,
            "reason": self.reason,
            "message": self.message,
        }
        return body | (
            {"details": {"retryAfterSeconds": self.retry_after}} if self.retry_after else {}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One write. `text` is the object afterwards or, for DELETED, at last; without its kind."""

    revision: int
    type: str
    key: str
    text: bytes


@dataclass(slots=True)
class Collection:
    """The objects of a kind. A key is "namespace/name" or "/name": its order is that of lists."""

    keys: list[str] = field(default_factory=list)
    versions: dict[str, list[tuple[int, bytes | None]]] = field(default_factory=dict)
    current: dict[str, Object] = field(default_factory=dict)
    log: list[Change] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A part of a list; `rest` is the token of the next part, empty at the end."""

    revision: int
    texts: list[bytes]
    rest: str


def _text(value: Object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


class Storage:
    """Everything behind the API; any thread may use it. `listeners` are told of each change."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.revision = 1000
        # Nobody has the history of before: a server was there, or its store was compacted.
        self.compacted = self.revision
        self.served: set[Resource] = set()
        # Who asks for certificates: username, and extra where there is any, by token.
        self.users: dict[str, Object] = {}
        self.listeners: set[Callable[[], None]] = set()
        self._collections: dict[Resource, Collection] = defaultdict(Collection)

    def tell(self) -> None:
        for listener in list(self.listeners):
            listener()

    def collection(self, resource: Resource) -> Collection:
        if resource not in self.served:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        return self._collections[resource]

    def withdraw(self, resource: Resource) -> None:
        """The kind's definition is deleted, and with it its objects."""
        with self.lock:
            for key in list(self.collection(resource).current):
                self._write(resource, key, None)
            self.served.discard(resource)
        self.tell()

    def compact(self) -> None:
        """Forgets all history up to now."""
        with self.lock:
            self.compacted = self.revision
            for collection in self._collections.values():
                collection.log.clear()

    # --- reading ---------------------------------------------------------------------------------

    def get(self, resource: Resource, key: str) -> Object:
        with self.lock:
            found = self.collection(resource).current.get(key)
            if found is None:
                raise Refusal(404, "NotFound", f'{resource} "{key}" not found')
            return copy.deepcopy(found)

    def chunk(
        self, resource: Resource, *, namespace: str = "", limit: int = 0, token: str = ""
    ) -> Chunk:
        with self.lock:
            collection = self.collection(resource)
            revision, after = self._read_token(token) if token else (self.revision, "")
            prefix = f"{namespace}/" if namespace else ""
            texts: list[bytes] = []
            start = bisect.bisect_right(collection.keys, after) if after else 0
            for key in collection.keys[start:]:
                text = self._at(collection, key, revision) if key.startswith(prefix) else None
                if text is None:
                    continue
                if limit and len(texts) == limit:
                    return Chunk(revision=revision, texts=texts, rest=_token(revision, after))
                texts.append(text)
                after = key
            return Chunk(revision=revision, texts=texts, rest="")

    def changes(self, resource: Resource, *, after: int, namespace: str = "") -> list[Change]:
        """What came after a revision. Refuses what is compacted, and a kind that is gone."""
        with self.lock:
            collection = self.collection(resource)
            if after < self.compacted:
                message = f"too old resource version: {after} ({self.compacted})"
                raise Refusal(410, "Expired", message)
            start = bisect.bisect_right(collection.log, after, key=lambda it: it.revision)
            prefix = f"{namespace}/" if namespace else ""
            return [it for it in collection.log[start:] if it.key.startswith(prefix)]

    def _read_token(self, token: str) -> tuple[int, str]:
        try:
            revision, after = json.loads(base64.urlsafe_b64decode(token))
        except ValueError:
            raise Refusal(400, "BadRequest", "continue key is not valid") from None
        if revision < self.compacted:
            raise Refusal(410, "Expired", "The provided continue parameter is too old")
        return revision, after

    @staticmethod
    def _at(collection: Collection, key: str, revision: int) -> bytes | None:
        for written, text in reversed(collection.versions[key]):
            if written <= revision:
                return text
        return None

    # --- writing ---------------------------------------------------------------------------------

    def create(self, resource: Resource, value: Object, *, namespace: str = "") -> Object:
        with self.lock:
            collection = self.collection(resource)
            value = copy.deepcopy(value)
            metadata = value.setdefault("metadata", {})
            if not metadata.get("name") and (stem := metadata.get("generateName")):
                # As the API masks a dash at the end; what is left must be a name.
                masked = f"{stem[:-2]}a" if stem.endswith("-") else stem
                if names.dns_subdomain_mistake(masked):
                    raise Refusal(422, "Invalid", f"metadata.generateName: Invalid value: {stem!r}")
                metadata["name"] = f"{stem[:58]}{uuid.uuid4().hex[:5]}"
            if resource.namespaced:
                metadata["namespace"] = namespace or metadata.get("namespace", "default")
            key = f"{metadata.get('namespace', '')}/{metadata['name']}"
            if key in collection.current:
                raise Refusal(409, "AlreadyExists", f'{resource} "{key}" already exists')
            metadata.setdefault("uid", str(uuid.uuid4()))
            metadata.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
            if "spec" in value:
                metadata["generation"] = 1
            return self._write(resource, key, value)

    def replace(
        self, resource: Resource, key: str, value: Object, *, expected: str | None
    ) -> Object:
        """Writes an object that exists; `expected` is the version that it must have, if any."""
        with self.lock:
            old = self.get(resource, key)
            if expected and expected != old["metadata"]["resourceVersion"]:
                raise Refusal(
                    409, "Conflict", "the object has been modified; please apply your changes"
                )
            value = {it: part for it, part in value.items() if it not in {"kind", "apiVersion"}}
            value = copy.deepcopy(value)
            kept = ("uid", "name", "namespace", "creationTimestamp", "generation")
            value["metadata"] |= {it: old["metadata"][it] for it in kept if it in old["metadata"]}
            if "spec" in value and value["spec"] != old.get("spec"):
                value["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
            value["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
            # A write that changes nothing is none: it gets no revision.
            return old if value == old else self._write(resource, key, value)

    def delete(self, resource: Resource, key: str) -> Object:
        with self.lock:
            old = self.get(resource, key)
            self._write(resource, key, None)
            return old

    def _write(self, resource: Resource, key: str, value: Object | None) -> Object:
        collection = self._collections[resource]
        self.revision += 1
        old = collection.current.get(key)
        if value is None:
            assert old is not None
            # What is deleted is shown as it was, at the revision of its deletion.
            shown = old | {"metadata": old["metadata"] | {"resourceVersion": str(self.revision)}}
            del collection.current[key]
            kind = "DELETED"
        else:
            value.pop("kind", None)
            value.pop("apiVersion", None)
            value["metadata"]["resourceVersion"] = str(self.revision)
            shown = collection.current[key] = value
            kind = "ADDED" if old is None else "MODIFIED"
        text = _text(shown)
        if key not in collection.versions:
            bisect.insort(collection.keys, key)
            collection.versions[key] = []
        collection.versions[key].append((self.revision, None if value is None else text))
        collection.log.append(Change(revision=self.revision, type=kind, key=key, text=text))
        self.tell()
        return copy.deepcopy(shown)

    def keys(self, resource: Resource) -> Iterator[str]:
        with self.lock:
            yield from list(self.collection(resource).current)


def _token(revision: int, after: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([revision, after]).encode()).decode()
