"""Sandboxes in the containers of nodes: their pod hosts do what is asked for."""

from typing import Any

import msgspec

from lab import cni, podhost
from lab.layout import Layout
from lab.pods import Pod

SECONDS = 60.0
"""How long a node may take for one step; the plugin itself gives up earlier."""


class RemoteSandboxes:
    """Implements `lab.sandboxes.Sandboxes`."""

    have_servers = True

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def _ask(self, step: str, pod: Pod) -> dict[str, Any]:
        path = self._layout.node(pod.node).podhost_socket
        request = {"op": "sandbox", "step": step, "pod": msgspec.to_builtins(pod)}
        reply = podhost.ask(path, request, seconds=SECONDS)
        if "cni" in reply:
            raise cni.CniError(reply["cni"]["code"], reply["cni"]["message"])
        return reply

    def create(self, pod: Pod) -> None:
        """Makes the pod's network namespace."""
        self._ask("create", pod)

    def add(self, pod: Pod) -> cni.Added:
        """Runs ADD. Raises CniError."""
        reply = self._ask("add", pod)
        return cni.Added(addresses=tuple(reply["addresses"]), seconds=reply["seconds"])

    def delete(self, pod: Pod) -> None:
        """Runs DEL. Raises CniError."""
        self._ask("delete", pod)

    def remove(self, pod: Pod) -> None:
        """Removes the network namespace; absent is fine."""
        self._ask("remove", pod)
