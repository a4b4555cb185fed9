"""Writes policies and follows their receipts until every node enforces them."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from deltaplane import recordwire
from deltaplane.cli import rows
from deltaplane.cli.client import Client, translated
from deltaplane.errors import Invalid, Unavailable
from deltaplane.manifest.objects import GeneralPolicyManifest
from deltaplane.model import tiers
from deltaplane.model.policy import NetworkPolicy
from deltaplane.v1 import policy_pb2, receipts_pb2, registry_pb2

WAIT_SECONDS = 30.0
POLICIES_PER_CALL = 500
BYTES_PER_CALL = 3 << 20
"""The registry takes messages of 4 MiB."""

AnyPolicy = NetworkPolicy | GeneralPolicyManifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a receipt is about; exactly one is given.

    Attributes:
        policy: reference of a policy of any kind, at its stored generation.
        endpoint: "namespace/pod", at its stored generation.
        revision: of the store, everything in it.
    """

    policy: str = ""
    endpoint: str = ""
    revision: int = 0

    @classmethod
    def read(cls, kind: str, name: str) -> "Subject":
        """From the words of a command line.

        Raises:
            Invalid: they name nothing that has receipts.
        """
        match kind:
            case "policy":
                try:
                    tiers.parse_reference(name)
                except ValueError as error:
                    raise Invalid("", str(error)) from error
                return cls(policy=name)
            case "endpoint":
                namespace, slash, rest = name.partition("/")
                if not (namespace and slash and rest):
                    raise Invalid("", f"{name!r}: write the endpoint as NAMESPACE/NAME")
                return cls(endpoint=name)
            case "revision":
                if not name.isdecimal() or not 0 < int(name) < 2**63:
                    raise Invalid("", f"{name!r} is no revision of the store: a number from 1 on")
                return cls(revision=int(name))
            case _:
                raise Invalid("", f"{kind!r} is none of policy, endpoint, revision")

    def __str__(self) -> str:
        if self.policy:
            return f"policy {self.policy}"
        return f"endpoint {self.endpoint}" if self.endpoint else f"revision {self.revision}"

    def request(self, *, wait: bool) -> receipts_pb2.WatchRequest:
        """Asks for it."""
        if self.policy:
            return receipts_pb2.WatchRequest(policy=self.policy, wait=wait)
        if self.endpoint:
            return receipts_pb2.WatchRequest(endpoint=self.endpoint, wait=wait)
        return receipts_pb2.WatchRequest(revision=self.revision, wait=wait)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """On how many nodes something is in force.

    Attributes:
        revision: what had to be applied.
        enforced: nodes that have.
        total: nodes that must.
        missing: "node (reason)" of the others, as far as the slicer names them.
        complete: all have.
        milliseconds: since the request to write, or to wait, was sent.
        absent: the others, as the slicer tells.
        times: how long nodes took to acknowledge a policy; None: that was not measured.
    """

    revision: int
    enforced: int
    total: int
    missing: tuple[str, ...]
    complete: bool
    milliseconds: float
    absent: tuple[receipts_pb2.MissingNode, ...] = ()
    times: receipts_pb2.EnforcementTimes | None = None

    def __str__(self) -> str:
        text = f"enforced {self.enforced}/{self.total} nodes at revision {self.revision}"
        if self.complete:
            return f"{text} after {self.milliseconds:.0f} ms"
        return f"{text}, missing: {', '.join(self.missing)}" if self.missing else text


def follow(
    client: Client, subject: Subject, *, started: float, wait: bool, seconds: float = WAIT_SECONDS
) -> Iterator[Receipt]:
    """Receipts of something, until it is in force everywhere (wait) or exactly one.

    Args:
        client: where the slicer is.
        subject: what must be in force.
        started: time.monotonic() from which milliseconds count.
        wait: go on until complete.
        seconds: give up after this long.

    Raises:
        NotFound: there is no such policy or endpoint.
        Unavailable: not complete in time, or the slicer does not answer.
    """
    request = subject.request(wait=wait)
    last: Receipt | None = None
    try:
        with translated("the slicer", client.targets.slicer, client.targets.hint):
            for answer in client.receipts.Watch(request, timeout=seconds):
                last = _receipt(answer, started)
                yield last
    except Unavailable as error:
        if last is None:
            raise
        raise Unavailable(f"after {seconds:g} s: {last}") from error


def _receipt(answer: receipts_pb2.WatchResponse, started: float) -> Receipt:
    return Receipt(
        revision=answer.revision,
        enforced=answer.nodes_enforced,
        total=answer.nodes_total,
        missing=tuple(map(rows.missing, answer.missing)),
        complete=answer.complete,
        milliseconds=(time.monotonic() - started) * 1000,
        absent=tuple(answer.missing),
        times=answer.times if answer.HasField("times") else None,
    )


def reference(policy: AnyPolicy) -> str:
    """A policy's name in receipts and answers."""
    if isinstance(policy, GeneralPolicyManifest):
        return policy.policy.reference
    return policy.reference


def apply_policies(client: Client, policies: Iterable[AnyPolicy]) -> int:
    """Writes policies; returns the revision at which all are in effect.

    Raises:
        DeltaplaneError: one is refused and none of its batch is written, or the registry is away.
    """
    revision = 0
    for request in apply_requests(policies):
        revision = max(revision, client.registry.ApplyPolicies(request).revision)
    return revision


def delete_policies(client: Client, policies: Sequence[AnyPolicy]) -> int:
    """Removes policies by name; returns the revision after it."""
    revision = 0
    for start in range(0, len(policies), POLICIES_PER_CALL):
        batch = policies[start : start + POLICIES_PER_CALL]
        references = [
            registry_pb2.PolicyRef(
                namespace=policy.namespace, name=policy.name, kind=policy.policy.kind
            )
            if isinstance(policy, GeneralPolicyManifest)
            else registry_pb2.PolicyRef(namespace=policy.namespace, name=policy.name)
            for policy in batch
        ]
        request = registry_pb2.DeletePoliciesRequest(policies=references)
        revision = max(revision, client.registry.DeletePolicies(request).revision)
    return revision


def apply_requests(
    policies: Iterable[AnyPolicy],
) -> Iterator[registry_pb2.ApplyPoliciesRequest]:
    """Policies in calls that the registry takes."""
    request, count, size = registry_pb2.ApplyPoliciesRequest(), 0, 0
    for policy in policies:
        message = recordwire.policy_to_proto(policy)
        bytes_ = message.ByteSize()
        if count and (count == POLICIES_PER_CALL or size + bytes_ > BYTES_PER_CALL):
            yield request
            request, count, size = registry_pb2.ApplyPoliciesRequest(), 0, 0
        if isinstance(message, policy_pb2.Policy):
            request.others.append(message)
        else:
            request.policies.append(message)
        count, size = count + 1, size + bytes_
    if count:
        yield request


def await_enforced(
    client: Client,
    subject: Subject,
    *,
    started: float,
    tell: Callable[[Receipt], None] = lambda _: None,
    seconds: float = WAIT_SECONDS,
) -> Receipt:
    """Waits until something is in force on every node; returns the last receipt.

    Raises:
        Unavailable: not in time.
    """
    last: Receipt | None = None
    for receipt in follow(client, subject, started=started, wait=True, seconds=seconds):
        tell(receipt)
        last = receipt
    if last is None or not last.complete:
        raise Unavailable(f"the slicer ended without a complete receipt: {last}")
    return last
