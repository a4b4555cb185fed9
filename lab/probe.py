"""Asks the pod hosts: all questions until two rounds agree, or one thing many times."""

import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lab import podhost, topology
from lab.layout import Layout
from lab.pods import Pod
from lab.probing import ProbeResult, Question, questions, rows, wrong
from lab.topology import Node

TRY_SECONDS = 0.3
"""A dropped packet shows as silence. An answer takes well below a millisecond on an idle machine.
"""

LONGEST_TRY_SECONDS = 8 * TRY_SECONDS
"""On a machine that is busy an answer may take longer than a try, now here, now there."""

TRIES = 2
PAUSE_SECONDS = 0.05
DEADLINE_SECONDS = 40.0


def probe(
    layout: Layout,
    pods: Sequence[Pod],
    *,
    try_seconds: float = TRY_SECONDS,
    deadline: float = DEADLINE_SECONDS,
) -> ProbeResult:
    """Probes all pairs of pods.

    Args:
        layout: the lab's files.
        pods: its pods.
        try_seconds: seconds after which a try counts as dropped, at first; twice that after each
            round that differs from the one before.
        deadline: seconds after which no further round begins.

    Raises:
        Unreachable: a pod host does not answer.
    """
    started = time.monotonic()
    asked = questions(pods)
    rounds = 0
    before = None
    while True:
        outcomes = _round(layout, asked, try_seconds)
        now = rows(asked, outcomes)
        rounds += 1
        elapsed = time.monotonic() - started
        if now == before or elapsed > deadline:
            return ProbeResult(
                rows=now,
                rounds=rounds,
                seconds=elapsed,
                stable=now == before,
                wrong=wrong(outcomes),
            )
        if before is not None:
            try_seconds = min(2 * try_seconds, LONGEST_TRY_SECONDS)
        before = now
        time.sleep(PAUSE_SECONDS)


def _round(layout: Layout, asked: Sequence[Question], try_seconds: float) -> dict[Question, str]:
    by_node: dict[str, list[Question]] = defaultdict(list)
    for question in asked:
        by_node[question.node].append(question)
    if not by_node:
        return {}
    with ThreadPoolExecutor(max_workers=len(by_node)) as threads:
        answers = threads.map(
            lambda item: _ask_node(layout, item[0], item[1], try_seconds), by_node.items()
        )
        return {question: outcome for part in answers for question, outcome in part.items()}


def _ask_node(
    layout: Layout, node: str, asked: Sequence[Question], try_seconds: float
) -> dict[Question, str]:
    request = {
        "op": "probe",
        "timeout": try_seconds,
        "tries": TRIES,
        "probes": [
            {
                "netns": topology.pod_namespace(layout.lab, question.source_uid),
                "address": question.address,
                "port": question.port,
                "protocol": question.protocol,
                "expect": question.destination,
                "http": question.http,
            }
            for question in asked
        ],
    }
    reply = podhost.ask(layout.node(node).podhost_socket, request, seconds=60.0)
    return dict(zip(asked, reply["outcomes"], strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What to call, and how.

    Attributes:
        address: textual IPv4 or IPv6 address.
        port: 1..65535.
        protocol: "TCP" or "UDP".
        times: how often, one after the other, each from a fresh source port.
        seconds: how long one may take.
        http: it is asked in HTTP.
    """

    address: str
    port: int
    protocol: str = "TCP"
    times: int = 1
    seconds: float = 1.0
    http: bool = False


def call(layout: Layout, source: Pod | Node, what: Call) -> list[str]:
    """Calls from a pod, or from a node itself.

    Returns:
        For each call "namespace/pod" that answered, "timeout" or "refused".

    Raises:
        Unreachable: the pod host does not answer.
    """
    if isinstance(source, Pod):
        node, namespace = source.node, topology.pod_namespace(layout.lab, source.uid)
    else:
        node, namespace = source.name, source.namespace
    request = {
        "op": "call",
        "call": {
            "netns": namespace,
            "address": what.address,
            "port": what.port,
            "protocol": what.protocol,
            "http": what.http,
        },
        "times": what.times,
        "timeout": what.seconds,
    }
    patience = what.times * what.seconds + 10.0
    reply = podhost.ask(layout.node(node).podhost_socket, request, seconds=patience)
    answers: list[str] = reply["answers"]
    return answers
