"""What could be wrong in the cores, planted one at a time: each must break some story.

A mutant replaces one piece of the source of one function. A piece that is not there any more fails:
then the core has changed, and the mutant must, too.
"""

import inspect
import sys
import textwrap
from dataclasses import dataclass
from typing import Any

from deltaplane.delta import delivery, tick
from deltaplane.delta.buckets import Buckets
from deltaplane.delta.delivery import Delivery
from deltaplane.delta.holding import Holding
from deltaplane.delta.log import Log
from deltaplane.delta.pieces import Pieces
from deltaplane.delta.reader import Reader
from deltaplane.delta.receiver import Receiver
from deltaplane.delta.sender import Sender
from deltaplane.delta.slices import SliceIndex
from deltaplane.delta.span_digest import SpanDigest
from deltaplane.delta.span_index import SpanIndex
from deltaplane.delta.view import View
from deltaplane.delta.writer import Writer
from services.slicer import facts, watermark
from services.slicer.facts import Facts
from services.slicer.fanout import Fanout


@dataclass(frozen=True, slots=True)
class Mutant:
    """owner: class or module; old, new: a piece of a function's source and what replaces it."""

    name: str
    owner: Any
    function: str
    old: str
    new: str

    def plant(self) -> None:
        """Changes the function, for good."""
        found = vars(self.owner)[self.function]
        real: Any = found.fget if isinstance(found, property) else found
        source = textwrap.dedent(inspect.getsource(real))
        assert source.count(self.old) == 1, f"{self.name}: {self.old!r} is not there once"
        source = source.replace(self.old, self.new).removeprefix("@property\n")
        namespace: dict[str, Any] = {}
        code = compile(source, f"<{self.name}>", "exec")
        exec(code, sys.modules[real.__module__].__dict__, namespace)  # noqa: S102
        real.__code__ = namespace[self.function].__code__  # wherever it was imported


MUTANTS = (
    # --- what memory has lost or spoiled ---------------------------------------------------------
    Mutant(
        "lost_before_a_repair_is_not_named",
        Holding,
        "summed_up",
        "self._changed |= self.view.lost()",
        "pass",
    ),
    Mutant(
        "spoiled_before_a_snapshot_is_not_named",
        Holding,
        "replace",
        "self._audit(range(BUCKETS))",
        "pass",
    ),
    Mutant(
        "spoiled_is_not_named",
        Holding,
        "_audit",
        "self._changed |= self.view.members(bucket)",
        "pass",
    ),
    # --- what a late reader is told ---------------------------------------------------------------
    Mutant(
        "spans_between_are_those_at_the_ends", Log, "relevant_after", "changed > 1", "changed > 9"
    ),
    Mutant("held_spans_are_those_of_ticks", Writer, "_relevant", "reader.is_placed", "True"),
    Mutant("asking_unplaces_nobody", Sender, "_interest", "True, False", "True, reader.is_placed"),
    Mutant("own_changes_of_one_tick_alone", Log, "relevant_after", "found.extend(", "found[:] = ("),
    # --- guards of a view ------------------------------------------------------------------------
    Mutant(
        "removal_of_another_incarnation",
        View,
        "_remove",
        "change.incarnation != incarnation_of(held.value)",
        "change.incarnation == incarnation_of(held.value) != 0",
    ),
    Mutant("left_span_is_guarded", View, "_remove", "not change.left_span and (", "("),
    Mutant(
        "leave_takes_own_endpoints", View, "leave", "held.value.node_index != node_index", "True"
    ),
    Mutant(
        "leave_keeps_endpoints", View, "leave", "held.value.identity == identity and", "False and"
    ),
    Mutant(
        "merged_removal_of_the_last_incarnation",
        sys.modules["deltaplane.delta.changes"],
        "_since",
        "replace(last.change, incarnation=incarnation)",
        "last.change",
    ),
    # --- spans -----------------------------------------------------------------------------------
    Mutant("index_ignores_moves", SpanIndex, "_endpoint", "if was == now:", "if was and now:"),
    Mutant(
        "index_forgets_gone_endpoints", SpanIndex, "_endpoint", "if was is not None:", "if False:"
    ),
    Mutant("told_not_cleared_by_moves", SpanIndex, "_moved", "self._told.clear()", "pass"),
    Mutant("shared_peers_not_cleared", SpanIndex, "_peer_set", "self._shared.clear()", "pass"),
    Mutant(
        "span_forgets_peers_of_prefetched",
        SpanIndex,
        "scope",
        "named = by_local | self._named(prefetched)",
        "named = by_local",
    ),
    Mutant(
        "prefetched_brings_peers", SpanIndex, "scope", "self._peers(by_local)", "self._peers(named)"
    ),
    Mutant("moves_unsettle_nobody", SpanIndex, "_moved", "self.unsettled.add(node)", "pass"),
    # --- what a tick touches ---------------------------------------------------------------------
    Mutant(
        "structural_writes_ignored",
        Facts,
        "_note_structural",
        "not _is_local(record, old)",
        "False",
    ),
    Mutant(
        "identity_that_comes_and_goes",
        Facts,
        "_note_structural",
        "self._born.get(record.key, record.generation)",
        "record.generation",
    ),
    Mutant(
        "policies_undo_nothing",
        Facts,
        "_note_structural",
        "min(self._born.values(), default=first)",
        "first",
    ),
    Mutant(
        "policies_are_local",
        facts,
        "_is_local",
        "case _:\n            return False",
        "case _:\n            return True",
    ),
    Mutant(
        "unsettled_not_touched",
        tick,
        "touches",
        "dict.fromkeys(index.unsettled, ",
        "dict.fromkeys((), ",
    ),
    Mutant("what_was_before_is_not_concerned", tick, "concerned", "(before, after)", "(after,)"),
    Mutant(
        "endpoints_concern_their_node_alone",
        tick,
        "concerned",
        "yield node\n                yield from index.told(identity)",
        "yield node",
    ),
    Mutant(
        "the_last_touch_of_a_tick",
        tick,
        "touches",
        "min(found.get(node, change.generation), change.generation)",
        "max(found.get(node, 0), change.generation)",
    ),
    Mutant(
        "structural_after_touches",
        Sender,
        "_touch",
        "min(structural, touched.get(reader.node_index, structural))",
        "structural",
    ),
    Mutant(
        "touched_from_the_tick_on",
        Sender,
        "_touch",
        "concerned.touch(first, tick.revision, previous)",
        "concerned.touch(tick.revision, tick.revision, previous)",
    ),
    Mutant(
        "touch_forgets_the_first",
        Reader,
        "touch",
        "if self.last_touch <= self.applied:",
        "if True:",
    ),
    Mutant("touch_is_not_due", Reader, "touch", "self.is_due = True", "pass"),
    # --- effective revisions ---------------------------------------------------------------------
    Mutant(
        "effective_is_the_first_touch",
        Reader,
        "effective",
        "self.first_touch - 1",
        "self.first_touch",
    ),
    Mutant(
        "effective_is_head",
        Reader,
        "effective",
        "self.last_touch <= self.applied",
        "self.first_touch <= self.applied",
    ),
    Mutant(
        "sent_counts_as_applied",
        Sender,
        "effective",
        "reader.effective(self.head)",
        "max(reader.barrier_revision, reader.effective(self.head))",
    ),
    Mutant(
        "log_effective_passes_an_event",
        Log,
        "effective",
        "segment.events[later] - 1",
        "segment.events[later]",
    ),
    Mutant(
        "log_effective_passes_flicker",
        Log,
        "effective",
        "if (later :=",
        "if segment.changes and (later :=",
    ),
    Mutant(
        "unknown_history_proves",
        Log,
        "effective",
        "if segment.events is None:\n            return max(applied, segment.previous)",
        "if segment.events is None:\n            continue",
    ),
    Mutant(
        "patch_is_not_touched",
        Sender,
        "connect",
        "if mode is Mode.PATCH or cut != self._log.cut:",
        "if False:",
    ),
    # --- delivery --------------------------------------------------------------------------------
    Mutant("left_is_not_removed", Delivery, "pieces", "left_behind(old, new, revision)", "()"),
    Mutant("gained_is_dropped", Delivery, "pieces", "*self._gained(old, new)", ""),
    Mutant(
        "left_after_gained",
        Delivery,
        "pieces",
        "[*head, *kept, *self._gained(old, new)]",
        "[*kept, *self._gained(old, new), *head]",
    ),
    Mutant(
        "moved_out_is_not_removed",
        delivery,
        "endpoint_change",
        "if not was_told:\n        return None",
        "return None",
    ),
    Mutant(
        "left_peers_stay_as_subjects", delivery, "left_behind", " | (old.peers - new.peers)", ""
    ),
    Mutant(
        "pieces_not_touched",
        SliceIndex,
        "put",
        "bucket.members[key], bucket.cut = member, None",
        "bucket.members[key] = member",
    ),
    Mutant("objects_not_touched", Pieces, "touch", "self._objects.pop(key, None)", "pass"),
    # --- the ladder ------------------------------------------------------------------------------
    Mutant(
        "patched_from_the_new_span",
        Sender,
        "connect",
        "hello.held if resumes and self.is_scoped",
        "self._writer.scope(node_index) if resumes and self.is_scoped",
    ),
    Mutant(
        "resume_from_the_wrong_cut",
        Log,
        "cut_for",
        "return segment.previous if",
        "return segment.revision if",
    ),
    Mutant(
        "resume_inside_a_tick",
        Log,
        "cut_for",
        "revision >= segment.events[-1]",
        "revision >= segment.events[0]",
    ),
    Mutant(
        "another_lineage_resumes", Sender, "_rung", "if hello.lineage != self.lineage:", "if False:"
    ),
    Mutant("agents_ahead_are_admitted", Sender, "is_behind", "seen > self.head", "False"),
    # --- barriers, frames ------------------------------------------------------------------------
    Mutant(
        "barrier_before_the_outbox",
        Writer,
        "_barrier",
        "complete = not reader.outbox and not (",
        "complete = not (",
    ),
    Mutant(
        "scope_not_noted",
        Writer,
        "_frames",
        "reader.scope, reader.span_version = new, reader.span_version + 1",
        "reader.span_version += 1",
    ),
    Mutant(
        "continued_frames_end_early",
        Receiver,
        "_barrier_received",
        "unfinished = self._continues or (",
        "unfinished = (",
    ),
    Mutant(
        "frames_without_changes_of_revision_are_repeated", Receiver, "_frame", "and not follows", ""
    ),
    Mutant(
        "pending_survives_a_stream",
        Receiver,
        "_reset_stream",
        "self._pending: list[Change] = []",
        "self._pending = getattr(self, '_pending', [])",
    ),
    Mutant(
        "changed_forgets_removals",
        Holding,
        "apply",
        "self._changed.update(self.view.leave(number, node_index))",
        "self.view.leave(number, node_index)",
    ),
    Mutant(
        "snapshot_not_verified",
        Receiver,
        "_barrier_received",
        "(self._snapshot is not None and not self._snapshot.verified)",
        "False",
    ),
    Mutant(
        "snapshot_below_the_floor",
        Receiver,
        "_snapshot_begins",
        "message.revision < floor",
        "False",
    ),
    # --- repairs ---------------------------------------------------------------------------------
    Mutant(
        "audit_never_run", Receiver, "audit", "if not self._trusted or self._repairs:", "if True:"
    ),
    Mutant(
        "audit_of_half_the_buckets",
        Holding,
        "audit",
        "buckets.stop % BUCKETS",
        "buckets.stop % 128",
    ),
    Mutant(
        "digest_not_checked",
        Receiver,
        "_barrier_received",
        'message.root_digest not in (b"", self.view.digest.root)',
        "False",
    ),
    Mutant(
        "audit_corrects_nothing", View, "audit", "self.digest.set_bucket(bucket, total)", "pass"
    ),
    Mutant("doubt_goes_on_applying", Receiver, "_doubt", "self._barrier = None", "pass"),
    Mutant(
        "repair_counts_before_its_barrier",
        Receiver,
        "_bucket",
        "self._position = max(self._position, message.revision)",
        "self._position = self.revision = max(self._position, message.revision)\n"
        "        self._mixed, self._trusted = False, True",
    ),
    Mutant("interrupted_repair_is_trusted", Receiver, "hello", "if self._mixed:", "if False:"),
    Mutant(
        "what_nobody_was_told_counts_as_applied",
        Receiver,
        "_barrier_received",
        "self._mixed = True",
        "pass",
    ),
    Mutant(
        "a_repair_does_not_renew",
        Writer,
        "_renewed",
        "reader.renew = False",
        "pass",
    ),
    Mutant("repair_compares_everything", Buckets, "sums", "if not self._is_scoped:", "if True:"),
    Mutant(
        "repair_replaces_everything",
        Writer,
        "compare",
        "if sums[b] != message.buckets[b]",
        "if True",
    ),
    Mutant(
        "repair_forgets_the_last_bucket",
        Writer,
        "compare",
        "or [0]",
        "or [0]\n    unequal = unequal[:-1] or unequal",
    ),
    Mutant(
        "repair_with_guards",
        View,
        "replace_bucket",
        "if held is not None:\n            self._forget(held)",
        "if held is not None and (held.value.kind, held.value.key) not in wanted:\n"
        "                self._forget(held)",
    ),
    Mutant(
        "root_of_forgets_own_endpoints",
        SpanDigest,
        "root_of",
        "if number not in scope.peers:",
        "if False:",
    ),
    Mutant(
        "asked_digests_are_not_awaited",
        Writer,
        "_refill",
        "if reader.mending is Mending.ASKED and reader.sums is None:",
        "if False:",
    ),
    # --- the watermark ---------------------------------------------------------------------------
    Mutant(
        "watermark_ignores_a_node",
        watermark,
        "_lowest",
        "passed.get(node, 0)",
        "passed.get(node, scanned)",
    ),
    Mutant(
        "watermark_of_the_fastest",
        watermark,
        "_lowest",
        "min((passed.get(node, 0) for node in nodes)",
        "max((passed.get(node, 0) for node in nodes)",
    ),
    Mutant("watermark_after_an_unfence", watermark, "advance", "if scanned < epoch:", "if False:"),
    Mutant(
        "fence_goes_at_once",
        watermark,
        "may_unfence",
        "return renewed and effective >= watermark",
        "return True",
    ),
    Mutant(
        "coverage_of_the_fastest",
        Fanout,
        "coverage",
        "min(target, *group.values())",
        "min(target, max(group.values()))",
    ),
    Mutant(
        "zombies_are_vouched_for_at_head",
        Fanout,
        "coverage",
        "self.sender.effective(session.reader)",
        "(self.sender.effective(session.reader) and self.sender.head)",
    ),
)


def named(name: str) -> Mutant:
    """The mutant of that name."""
    (found,) = (mutant for mutant in MUTANTS if mutant.name == name)
    return found
