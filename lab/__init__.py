"""A cluster of network namespaces on one machine: for users, tests and benchmarks.

It starts the real services, the real agents and one network namespace per pod, and runs the CNI
plugin binary as kubelet does. It decides nothing about addresses, routes or policies: that is what
it is there to show. It adds nothing to the root network namespace.

    with Lab.up(LabConfig(name="mine", nodes=3)) as lab:
        lab.apply([Path("examples/shop.yaml")])
        rows = lab.probe()
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.cluster import Lab, LabConfig
else:

    def __getattr__(name: str) -> object:
        # Late, because `python -m lab.podhost` runs once per node and needs no gRPC.
        if name in __all__:
            from lab import cluster  # noqa: PLC0415 - see above

            return getattr(cluster, name)
        raise AttributeError(name)


__all__ = ["Lab", "LabConfig"]
