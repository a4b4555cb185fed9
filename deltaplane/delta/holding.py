"""What an agent holds, what of it has changed, and whether it has changed by itself."""

from collections.abc import Iterable

from deltaplane.delta.changes import Change, ObjectKey, Removal, Upsert
from deltaplane.delta.digest import BUCKETS
from deltaplane.delta.messages import Digests
from deltaplane.delta.view import Outcome, View
from deltaplane.model.objects import Kind

AUDIT_SHARE = 10
"""An audit looks at one part in so many of what is held; one a second covers all in 10 s."""


class Holding:
    """An agent's. Whether to trust it, and what to do otherwise, is the receiver's affair.

    Attributes:
        view: what is held.
    """

    def __init__(self) -> None:
        self.view = View()
        self._changed: set[ObjectKey] = set()
        self._audited = 0

    def take_changed(self) -> frozenset[ObjectKey]:
        """Objects whose value or existence has changed since this was last asked."""
        changed, self._changed = frozenset(self._changed), set()
        return changed

    def apply(self, changes: Iterable[Change], node_index: int) -> None:
        """Takes changes of the stream to the node of that number."""
        for change in changes:
            if isinstance(change, Removal) and change.left_span and change.kind is Kind.IDENTITY:
                number = int.from_bytes(change.key)
                self._changed.update(self.view.leave(number, node_index))
            elif self.view.apply(change) is Outcome.CHANGED:
                self._changed.add(change.object_key)

    def replace(self, view: View) -> None:
        """Takes a snapshot in place of the view."""
        self._changed |= view.differences(self.view)
        self._audit(range(BUCKETS))
        self.view = view
        self.view.file()

    def replace_bucket(self, bucket: int, content: Iterable[Upsert]) -> None:
        """Takes a bucket of a repair.

        Raises:
            ValueError: as `View.replace_bucket`.
        """
        self._changed |= self.view.replace_bucket(bucket, content)

    def audit(self, share: int) -> str:
        """Hashes one part in `share` of the buckets anew; all of them in `share` calls.

        What a change did not bring shows at the next barrier with a digest; what happened to the
        entries in memory shows only here.

        Returns:
            What is wrong, for people; empty: nothing.
        """
        count = -(-BUCKETS // share)
        buckets = range(self._audited, min(self._audited + count, BUCKETS))
        self._audited = buckets.stop % BUCKETS
        if not self.view.is_filed:
            return "something is held that came with no change, or is gone without one"
        wrong = self._audit(buckets)
        return f"what is held in bucket {wrong[0]} has changed by itself" if wrong else ""

    def summed_up(self, revision: int) -> Digests:
        """Digests of what is held in fact, all of it hashed anew."""
        # What was lost may be gone by now for everybody: no bucket will tell of it then.
        self._changed |= self.view.lost()
        self.view.file()
        self._audit(range(BUCKETS))
        return Digests(revision=revision, buckets=self.view.digest.buckets)

    def _audit(self, buckets: Iterable[int]) -> list[int]:
        """Hashes buckets anew; those in which something has changed by itself.

        All of such a bucket counts as changed: what was spoiled may have become, by chance, what a
        change brought next, which then looked like nothing new.
        """
        wrong = [bucket for bucket in buckets if not self.view.audit(bucket)]
        for bucket in wrong:
            self._changed |= self.view.members(bucket)
        return wrong
