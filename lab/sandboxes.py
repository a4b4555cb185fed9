"""Where a pod's network namespace is made and the CNI plugin runs: here, or in a node's container.

What kubelet and the container runtime do on a node; `lab.apply` says for which pods.
"""

from pathlib import Path
from typing import Any, Protocol

from deltaplane.errors import Invalid
from lab import binaries, cni, netns, topology
from lab.layout import Layout
from lab.pods import Pod


class Sandboxes(Protocol):
    """The sandboxes of pods, on whichever node.

    Attributes:
        have_servers: each node has a pod host, which serves in them.
    """

    have_servers: bool

    def create(self, pod: Pod) -> None:
        """Makes the pod's network namespace. Raises OSError."""

    def add(self, pod: Pod) -> cni.Added:
        """Runs ADD. Raises CniError."""

    def delete(self, pod: Pod) -> None:
        """Runs DEL. Raises CniError."""

    def remove(self, pod: Pod) -> None:
        """Removes the network namespace; absent is fine."""


class LocalSandboxes:
    """Sandboxes of the calling process's machine, or container."""

    have_servers = True

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def attachment(self, pod: Pod) -> cni.Attachment:
        """The pod's interface as its runtime knows it."""
        return cni.Attachment(
            plugin=binaries.plugin(),
            agent_socket=self._layout.node(pod.node).cni_socket,
            netns=self.path(pod),
            namespace=pod.namespace,
            pod=pod.name,
            uid=pod.uid,
        )

    def path(self, pod: Pod) -> Path:
        """Where the pod's network namespace is bound."""
        return netns.path(self._name(pod))

    def _name(self, pod: Pod) -> str:
        return topology.pod_namespace(self._layout.lab, pod.uid)

    def create(self, pod: Pod) -> None:
        """See `Sandboxes`."""
        netns.create(self._name(pod))

    def add(self, pod: Pod) -> cni.Added:
        """See `Sandboxes`."""
        return cni.add(self.attachment(pod))

    def delete(self, pod: Pod) -> None:
        """See `Sandboxes`."""
        cni.delete(self.attachment(pod))

    def remove(self, pod: Pod) -> None:
        """See `Sandboxes`."""
        netns.delete(self._name(pod))


STEPS = ("create", "add", "delete", "remove")


def answer(layout: Layout, step: str, pod: Pod) -> dict[str, Any]:
    """Does one of STEPS here, for `lab.remote`; what the plugin refuses is part of the answer.

    Raises:
        Invalid: there is no such step.
        OSError: the kernel refuses.
    """
    here = LocalSandboxes(layout)
    try:
        match step:
            case "create":
                here.create(pod)
            case "add":
                added = here.add(pod)
                return {"addresses": added.addresses, "seconds": added.seconds}
            case "delete":
                here.delete(pod)
            case "remove":
                here.remove(pod)
            case _:
                raise Invalid("step", f"{step!r} is none of {', '.join(STEPS)}")
    except cni.CniError as error:
        return {"cni": {"code": error.code, "message": error.reason}}
    return {}
