"""What a watch says, and what may go wrong with it; without the HTTP around it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.kubernetes import answering, requests
from tests.kubernetes.answering import Call
from tests.kubernetes.storing import Refusal, Storage


@dataclass(slots=True)
class Faults:
    """What goes wrong. A test sets it; it holds until it is taken back.

    Attributes:
        streaming_lists: sendInitialEvents is served; else it is forbidden, as before 1.27.
        unfit_store: streaming lists are accepted, and fail, as with etcd 3.4.24 or 3.5.7.
        ignores_streaming: takes sendInitialEvents for an unknown word, never ends the list.
        answers: refusals by verb ("list", "watch", "get", ...), used up from the front.
        silent: watches stay open and send nothing.
        piece_bytes: watches send so many bytes at a time.
        cut_after_bytes: the next watch ends in the middle of what it says, once.
        expired_by_status: watches of a compacted revision get HTTP 410, not a line.
        bookmarks: asked-for bookmarks are sent.
    """

    streaming_lists: bool = True
    unfit_store: bool = False
    ignores_streaming: bool = False
    answers: dict[str, list[Refusal | None]] = field(default_factory=dict)
    silent: bool = False
    piece_bytes: int | None = None
    cut_after_bytes: int | None = None
    expired_by_status: bool = False
    bookmarks: bool = True


@dataclass(eq=False, slots=True)
class Watch:
    """An open watch. The test's thread asks for things; the server's loop looks at them."""

    call: Call
    wake: Callable[[], None]
    bookmarks: int = 0
    lines: list[bytes] = field(default_factory=list)
    end: bool = False
    cut: bool = False

    def mark(self) -> None:
        """It says how far it has come, if it is asked to."""
        self.bookmarks += 1
        self.wake()

    @property
    def wants_bookmarks(self) -> bool:
        return self.call.params.get("allowWatchBookmarks") == "true"


def check(storage: Storage, faults: Faults, call: Call) -> None:
    """Raises Refusal: nobody may watch so."""
    wanted = "sendInitialEvents" in call.params
    if wanted and faults.ignores_streaming:
        return
    if wanted and not faults.streaming_lists:
        raise Refusal(422, "Invalid", "sendInitialEvents: Forbidden: is forbidden for watch")
    match = call.params.get("resourceVersionMatch")
    if wanted != (match == "NotOlderThan"):
        raise Refusal(422, "Invalid", "resourceVersionMatch: Forbidden")
    after = call.params.get("resourceVersion", "0") or "0"
    if not wanted and after != "0" and faults.expired_by_status:
        storage.changes(call.resource, after=int(after))


def state(storage: Storage, faults: Faults, watch: Watch) -> tuple[list[bytes], int]:
    """What a watch begins with, and after which revision it goes on."""
    call = watch.call
    streaming = call.params.get("sendInitialEvents") == "true"
    after = int(call.params.get("resourceVersion") or "0")
    if after and not streaming:
        return [], after
    if streaming and faults.unfit_store:
        raise Refusal(500, "InternalError", "the required storage feature is disabled")
    state = storage.chunk(call.resource, namespace=call.namespace)
    texts = [text for text in state.texts if requests.selects(call.params, text)]
    lines = [answering.line(call.resource, "ADDED", text) for text in texts]
    if streaming and watch.wants_bookmarks and not faults.ignores_streaming:
        lines.append(answering.bookmark(call.resource, state.revision, ends_initial=True))
    return lines, state.revision


def news(
    storage: Storage, faults: Faults, watch: Watch, after: int, *, ends: bool
) -> tuple[list[bytes], int]:
    """What has happened since a revision, and the revision now."""
    call = watch.call
    with storage.lock:
        found = storage.changes(call.resource, after=after, namespace=call.namespace)
        after = max(after, storage.revision)
    found = [it for it in found if requests.selects(call.params, it.text)]
    lines = [answering.line(call.resource, it.type, it.text) for it in found]
    if watch.wants_bookmarks and faults.bookmarks and (watch.bookmarks or ends):
        watch.bookmarks = 0
        lines.append(answering.bookmark(call.resource, after))
    lines += [watch.lines.pop(0) + b"\n" for _ in range(len(watch.lines))]
    return lines, after
