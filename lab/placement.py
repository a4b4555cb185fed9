"""Which node a pod goes to. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from deltaplane.errors import Invalid
from lab.pods import Pod


def place(unplaced: Sequence[Pod], placed: Iterable[Pod], nodes: Sequence[str]) -> tuple[Pod, ...]:
    """Gives every pod the node with the fewest replicas of its owner, then the fewest pods.

    Args:
        unplaced: in the order in which they are placed; one that names a node keeps it.
        placed: pods that are there already.
        nodes: node names, at least one.

    Raises:
        Invalid: a pod names a node that does not exist.
    """
    total: Counter[str] = Counter()
    of_owner: Counter[tuple[str, str, str]] = Counter()

    def count(pod: Pod) -> None:
        total[pod.node] += 1
        of_owner[pod.node, pod.namespace, pod.owner] += 1

    for pod in placed:
        count(pod)
    result = []
    for pod in unplaced:
        if pod.node and pod.node not in nodes:
            raise Invalid(
                "spec.nodeName",
                f"pod {pod.reference}: no node {pod.node!r}; there are {', '.join(nodes)}",
            )
        node = pod.node or min(
            nodes,
            key=lambda name: (
                of_owner[name, pod.namespace, pod.owner] if pod.owner else 0,
                total[name],
                nodes.index(name),
            ),
        )
        result.append(replace(pod, node=node))
        count(result[-1])
    return tuple(result)
