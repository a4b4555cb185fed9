"""Events about objects that cannot be programmed as they are."""

import asyncio

from deltaplane.errors import DeltaplaneError
from deltaplane.runtime import log
from deltaplane.runtime.clock import Clock
from services.kubernetes import metrics
from services.kubernetes.api.client import Client
from services.kubernetes.api.events import EventType, Report, Reporter
from services.kubernetes.api.types import ObjectMeta
from services.kubernetes.problems import Problem, Problems

PAUSE_SECONDS = 0.2
"""Between two Events: objects may be wrong by the thousand, and the log has all of them."""

REASON = "NotProgrammed"


async def tell(problems: Problems, client: Client, reporter: Reporter, clock: Clock) -> None:
    """Tells of problems while this replica leads, until it is cancelled."""
    while True:
        problem = problems.take()
        if problem is not None:
            log.get().warning(
                "not_programmed", kind=problem.kind.word, object=problem.key, reason=problem.text
            )
            await _create(problem, client, reporter, clock)
        await asyncio.sleep(PAUSE_SECONDS)


async def _create(problem: Problem, client: Client, reporter: Reporter, clock: Clock) -> None:
    namespace, _, name = problem.key.rpartition("/")
    report = Report(
        resource=problem.kind.resource,
        metadata=ObjectMeta(name=name, namespace=namespace, uid=problem.uid),
        type=EventType.WARNING,
        reason=REASON,
        note=problem.text,
    )
    try:
        await client.create_event(report, reporter, wall_ns=clock.wall_ns())
    except DeltaplaneError as error:
        # Nobody misses one Event, and the log and the metrics have it.
        log.get().info("event_lost", object=problem.key, reason=str(error))
        metrics.EVENTS.labels("lost").inc()
    else:
        metrics.EVENTS.labels("created").inc()
