"""What an agent tells the server of what it has applied: Acks, Nacks, and credit with them."""

from collections.abc import Iterable
from dataclasses import dataclass

from deltaplane.delta.changes import ObjectKey
from deltaplane.delta.messages import Ack, Nack
from deltaplane.model.objects import Kind

CREDIT_RETURN = 4
"""An Ack goes out for credit alone once one part in so many has been used."""

LAZY_ACK_SECONDS = 10.0
"""Bookmarks alone are acknowledged this seldom: only to show people that the agent is well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An object that could not be applied and is held closed.

    Attributes:
        kind: its kind.
        key: its canonical key.
        reason: why, for people; not empty.
        retryable: a later attempt may succeed without a change of the object.
    """

    kind: Kind
    key: bytes
    reason: str
    retryable: bool = False


class Acks:
    """Those of an agent, over all its streams.

    Attributes:
        applied: the revision that the kernel is known to agree with on this stream; 0: none yet.
        wanted: the last barrier that is no bookmark: its Ack is waited for.
        consumed: bytes to be given back as credit.
    """

    def __init__(self, credit_bytes: int) -> None:
        self._credit_bytes = credit_bytes
        self._refused: dict[ObjectKey, Refusal] = {}
        self.restart()

    def restart(self) -> None:
        """Begins a new stream: its server knows nothing, of refusals neither."""
        self.applied = self.wanted = self.consumed = self._renewals = 0
        self._worst_apply = 0.0
        self._acked = Ack(applied_revision=0, received_revision=0)
        self._acked_at = float("-inf")
        self._nacks = list(self._refused.values())

    def note(
        self, revision: int, renewals: int, refused: Iterable[Refusal], took_seconds: float
    ) -> None:
        """Notes what has been applied; see `Receiver.applied`. renewals: contained in it."""
        now_refused = {(refusal.kind, refusal.key): refusal for refusal in refused}
        for key, refusal in now_refused.items():
            if self._refused.get(key) != refusal:
                self._nacks.append(refusal)
        for key in self._refused.keys() - now_refused.keys():
            self._nacks.append(Refusal(kind=key[0], key=key[1], reason=""))
        self._refused = now_refused
        self.applied = max(self.applied, revision)
        self._renewals = max(self._renewals, renewals)
        self._worst_apply = max(self._worst_apply, took_seconds)

    def due_at(self, interval_seconds: float) -> float | None:
        """When there will be something to say, seconds; None: not before something happens.

        Args:
            interval_seconds: between two Acks at least.
        """
        prompt = self._acked_at + interval_seconds
        acked = self._acked.applied_revision
        # Credit alone waits for the next barrier, so that it does not use up the interval of its
        # Ack.
        starving = self.consumed >= self._credit_bytes / CREDIT_RETURN
        renewed = self._acked.renewals < self._renewals
        if self._nacks or starving or renewed or acked < self.wanted <= self.applied:
            return prompt
        if acked < self.applied:
            return max(prompt, self._acked_at + LAZY_ACK_SECONDS)
        return None

    def take(self, now: float, received: int) -> tuple[Nack | Ack, ...]:
        """The Nacks and the Ack that are due now, seconds; received: revision of the view."""
        nacks = tuple(
            Nack(
                revision=self.applied,
                kind=refusal.kind,
                key=refusal.key,
                reason=refusal.reason,
                retryable=refusal.retryable,
            )
            for refusal in self._nacks
        )
        self._nacks.clear()
        self._acked_at = now
        self._acked = Ack(
            applied_revision=self.applied,
            received_revision=received,
            added_credit_bytes=self.consumed,
            worst_apply_us=round(self._worst_apply * 1e6),
            renewals=self._renewals,
        )
        self.consumed, self._worst_apply = 0, 0.0
        return (*nacks, self._acked)
