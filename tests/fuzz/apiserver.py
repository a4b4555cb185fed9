"""What an API server sends to the bridge: lists, watches cut anywhere, objects of every kind.

The first byte chooses the kind, the second whether the rest is what comes over the wire, or the
decisions of which objects come and what is strange in them.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Any

import msgspec
import yaml

from deltaplane.errors import DeltaplaneError, Invalid
from deltaplane.v1 import policy_pb2, registry_pb2, service_pb2
from services.kubernetes import wire
from services.kubernetes.api.changes import Event
from services.kubernetes.api.lines import Lines
from services.kubernetes.api.reflecting import GetChunk, OpenWatch, Reflection
from services.kubernetes.api.types import INITIAL_EVENTS_END
from services.kubernetes.books import Books
from services.kubernetes.conditions import GatedPods, NodeConditions
from services.kubernetes.feed import Feed, Observer
from services.kubernetes.kinds import POLICIES, Kind, Object
from services.kubernetes.problems import Problems
from tests.fuzz.draw import Draw
from tests.fuzz.manifests import STRANGE, places, texts

WAYS = ("list", "watch", "made list", "made watch")
LONGEST_LINE = 1 << 16
KINDS = tuple(Kind)
MESSAGES: Mapping[Kind, Any] = {
    Kind.NAMESPACE: registry_pb2.Namespace,
    Kind.POD: registry_pb2.Pod,
    Kind.SERVICE: service_pb2.Service,
    Kind.ENDPOINT_SLICE: service_pb2.EndpointSlice,
    **dict.fromkeys(POLICIES, policy_pb2.Policy),
    Kind.NETWORK_POLICY: policy_pb2.NetworkPolicy,
}
BUG = "a bug of Deltaplane's"
"""What the bridge says of an object that its translation does not get over."""

WORDS = (
    *(b'"metadata":', b'"items":', b'"continue":', b'"resourceVersion":', b'"type":"BOOKMARK"'),
    *(b'{"type":"ADDED","object":', b'{"type":"DELETED","object":', b'{"type":"ERROR","object":'),
    *(b"null", b"1e999", b"-1", b"\\ud800", b"\xff", b"\n", b"{}", b"[]", b"[" * 3000, b"0" * 5000),
    b'"annotations":{"k8s.io/initial-events-end":"true"}',
    b'{"kind":"Status","code":410,"reason":"Expired","details":{"retryAfterSeconds":-1}}',
)


class ApiserverTarget:
    """Everything between the connection and the books."""

    def __init__(self) -> None:
        self._documents = _documents()
        self._decoders = {kind: msgspec.json.Decoder(kind.type) for kind in KINDS}
        self._loop = asyncio.new_event_loop()

    def seeds(self) -> Sequence[bytes]:
        """Each kind: listed, watched, and decisions about it."""
        found = []
        for number, kind in enumerate(KINDS):
            items = [json.dumps(document).encode() for document in self._documents[kind]][:4]
            head = bytes((number,))
            found.append(head + b"\0" + _list(items))
            found += [head + b"\1" + bytes((size,)) + _watch(items) for size in (0, 7)]
            found += [
                head + bytes((way, number * 7 % 256, *range(way, 40, 3))) for way in (2, 3, 6, 7)
            ]
        return found

    def words(self) -> Sequence[bytes]:
        """Of JSON and of the API."""
        return WORDS

    def feed(self, data: bytes) -> None:
        """One answer."""
        draw = Draw(data)
        kind, way = draw.pick(KINDS), draw.pick(WAYS)
        world = _World(kind, self._decoders[kind], self._loop)
        if way == "list":
            world.list(draw.rest())
        elif way == "watch":
            size = draw.below(256)
            world.watch(draw.rest(), size)
        else:
            size = draw.below(256)
            items = list(self._made(kind, draw))
            if way == "made list":
                world.list(_list(items))
            else:
                world.watch(_watch(items), size)
        world.check()

    def _made(self, kind: Kind, draw: Draw) -> Iterator[bytes]:
        for _ in range(1 + draw.below(3)):
            document = deepcopy(draw.pick(self._documents[kind]))
            for _ in range(draw.below(4)):
                found = list(places(document))
                if found:
                    holder, key = draw.pick(found)
                    holder[key] = deepcopy(draw.pick((*STRANGE, _nested(30), _nested(150))))
            yield json.dumps(document, default=str).encode()

    def close(self) -> None:
        """Ends the loop."""
        self._loop.close()


class _World:
    """One kind of one server, and books that nobody has written in yet."""

    def __init__(
        self, kind: Kind, decoder: "msgspec.json.Decoder[Any]", loop: asyncio.AbstractEventLoop
    ) -> None:
        self._kind = kind
        self._loop = loop
        self._books, self._problems = Books(), Problems()
        observers: dict[Kind, Observer] = {Kind.NODE: NodeConditions(), Kind.POD: GatedPods()}
        self._feed = Feed(self._books, self._problems, observers, lambda: None)
        self._core: Reflection[Object] = Reflection(
            "fuzz", decoder.decode, lambda: 0.5, optional=kind.resource.custom
        )

    def list(self, body: bytes) -> None:
        """One chunk, after a server that has no streaming lists."""
        self._core.failed(Invalid("", "no streaming lists"))
        assert isinstance(self._core.next(), GetChunk)
        try:
            self._take(self._core.chunk(body))
        except DeltaplaneError as error:
            self._take(self._core.failed(error))
        self._core.next()

    def watch(self, stream: bytes, size: int) -> None:
        """A streaming list and a watch, in chunks of so many bytes; 0: as a whole."""
        assert isinstance(self._core.next(), OpenWatch)
        self._core.opened()
        lines = Lines(LONGEST_LINE)
        steps = range(0, len(stream), size or len(stream) or 1)
        try:
            for start, end in pairwise((*steps, len(stream))):
                for line in lines.feed(stream[start:end]):
                    self._take(self._core.line(line))
            self._core.ended(60.0)
        except DeltaplaneError as error:
            self._take(self._core.failed(error))
        self._core.next()

    def _take(self, event: Event[Object] | None) -> None:
        if event is not None:
            self._loop.run_until_complete(self._feed.take(self._kind, event))

    def check(self) -> None:
        """What is in the books can be written, and nothing had to be left out for a bug."""
        for problem in self._problems.all_of(self._kind):
            assert BUG not in problem.text, problem
        ledger = self._books[self._kind]
        ledger.adopt({})
        if not ledger.is_listed:
            return
        for kind, batch in self._books.plan(0.0):
            message = MESSAGES[kind]
            for value in wire.decode(message, batch.applies):
                key, _ = wire.stored(value)
                assert key in batch.keys, (key, batch.keys)


def _documents() -> Mapping[Kind, list[Any]]:
    """Sound objects of each kind."""
    words = {kind.word: kind for kind in KINDS}
    found: dict[Kind, list[Any]] = {kind: [] for kind in KINDS}
    for number, text in enumerate(texts(), 1):
        document = yaml.safe_load(text)
        if document and document["kind"] in words:
            kind, metadata = words[document["kind"]], document["metadata"]
            metadata["resourceVersion"] = str(number)
            if kind is not Kind.BASELINE_ADMIN:
                metadata["name"] += f"-{number}"
            if kind.resource.namespaced:
                metadata.setdefault("namespace", "shop")
            found[kind].append(document)
    assert all(found.values())
    return found


def _nested(depth: int) -> object:
    """More than any object needs, less than JSON is refused for."""
    value: object = {}
    for _ in range(depth):
        value = {"matchLabels": value}
    return value


def _list(items: Sequence[bytes]) -> bytes:
    return b'{"metadata":{"resourceVersion":"9"},"items":[' + b",".join(items) + b"]}"


def _watch(items: Sequence[bytes]) -> bytes:
    """All there are, then each changes, and goes."""
    end = {"metadata": {"resourceVersion": "8", "annotations": {INITIAL_EVENTS_END: "true"}}}
    bookmark = json.dumps({"type": "BOOKMARK", "object": end}).encode()
    lines = [*_events("ADDED", items), bookmark]
    lines += [*_events("MODIFIED", items), *_events("DELETED", items[1:])]
    return b"\n".join((*lines, b""))


def _events(kind: str, items: Sequence[bytes]) -> Iterator[bytes]:
    for item in items:
        yield f'{{"type":"{kind}","object":'.encode() + item + b"}"
