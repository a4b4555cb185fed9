"""The set-ups that the CNI vectors ask a project's hook for, on real agents and services."""

import os
import socket
import sqlite3
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.netns.node import Node, until
from tests.netns.services_thread import Services

NETWORK = "testnet"
"""Network name of the vectors."""

OPTIONS = {
    "n1": {"pools": "large4,large6", "log_level": "warning"},
    "six": {"pools": "only6", "log_level": "warning"},
    "tiny": {"pools": "tiny4,tiny6", "log_level": "warning"},
}
"""Options of each node's agent."""


class World:
    """The main node and, when a vector asks for them, one with IPv6 only and one with a tiny pool.

    Attributes:
        node: the node that the current vector's calls go to.
    """

    def __init__(self, main: Node, services: Services) -> None:
        self._main = self.node = main
        self._services = services
        self._others: dict[str, Node] = {}
        self._undo: list[Callable[[], None]] = []
        services.create_pool("large4", "10.97.0.0/20", 24)
        services.create_pool("large6", "fd00:97::/116", 120)
        services.create_pool("only6", "fd00:98::/120", 124)
        services.create_pool("tiny4", "10.98.0.0/30", 30)
        services.create_pool("tiny6", "fd00:9a::/126", 126)
        self._start(main)

    def close(self) -> None:
        for node in self._others.values():
            node.remove()

    def arrange(self, words: str) -> bool:
        """Makes a set-up true; False when it is unknown."""
        known: dict[str, Callable[[], object]] = {
            "stop the node agent": self._stop_agent,
            "stop the backend": self._stop_agent_with_a_delete,
            "start the agent": lambda: self._start(self.node),
            "stop etcd / slicer": self._stop_slicer,
            "delete the IP reservation from the store": self._lose_reservations,
            "delete the host side of the pair": self._delete_host_links,
            "IPv6-only pool": lambda: self._move_to("six"),
            "dual-stack pool": self._is_dual_stack,
            "pool with k addresses, k attachments already added": self._exhaust,
            "exhaust the node's addresses": self._exhaust,
            "inject a failure after IP allocation": self._take_next_link_name,
            "attachment on node B": self._attach_elsewhere,
            "three stale attachments, one store entry made undeletable": self._jam,
        }
        if words not in known:
            return False
        known[words]()
        return True

    def restore(self) -> None:
        """Ends what a vector arranged, and looks whether it left something."""
        while self._undo:
            self._undo.pop()()
        self.node = self._main

    # --- set-ups ---------------------------------------------------------------------------------

    def _start(self, node: Node) -> None:
        if node.agent is None:
            node.start_ready(**OPTIONS[node.name])

    def _stop_agent(self) -> None:
        node = self.node
        node.stop()
        self._undo.append(lambda: self._start(node))

    def _stop_agent_with_a_delete(self) -> None:
        """What DEL has promised is kept once the agent is back."""

        def nothing_leaks() -> None:
            until(lambda: not self._main.host_links(), "the link is gone")
            until(lambda: not self._services.endpoints(), "the registration is gone")

        self._undo.append(nothing_leaks)
        self._stop_agent()

    def _stop_slicer(self) -> None:
        self._services.stop("slicer")
        self._undo.append(self._slicer_back)
        until(lambda: self._main.cni("STATUS", "", netns="").code, "the loss is noticed", 15)

    def _slicer_back(self) -> None:
        self._services.start("slicer")
        until(lambda: not self._main.cni("STATUS", "", netns="").code, "the stream is back", 15)

    def _lose_reservations(self) -> None:
        self.node.stop()
        with self._journal() as journal:
            for family in ("ipv4", "ipv6"):
                # The registry still has the endpoint: its address must not be handed out again.
                known = "(SELECT max(lineage) FROM pools)"
                journal.execute(
                    "INSERT INTO cooling (address, lineage, revision, since)"  # noqa: S608 - constants
                    f" SELECT {family}, {known}, 1 << 60, 0 FROM interfaces"
                )
            journal.execute("DELETE FROM interfaces")
        self._start(self.node)

    def _delete_host_links(self) -> None:
        for name in self.node.host_links():
            self.node.ip("link", "delete", name)

    def _is_dual_stack(self) -> None:
        with self._journal() as journal:
            sizes = {size for (size,) in journal.execute("SELECT length(address) FROM blocks")}
        assert sizes == {4, 16}

    def _exhaust(self) -> None:
        node = self._move_to("tiny")
        for number in range(8):
            pod = f"fill-{number}"
            self._services.apply_pod(pod, node.name)
            node.new_pod_namespace(pod)
            self._undo.append(lambda pod=pod: self._remove_pod(node, pod))  # type: ignore[misc]
            answer = node.cni("ADD", pod, name=NETWORK)
            if answer.code:
                assert answer.document["code"] == 11, answer.document
                return
        raise AssertionError("eight pods fit into two addresses")

    def _take_next_link_name(self) -> None:
        with self._journal() as journal:
            ((last,),) = journal.execute("SELECT value FROM counters WHERE name = 'endpoint'")
        name = f"dp{last + 1:x}"
        self.node.ip("link", "add", name, "type", "veth", "peer", "name", "taken")

        def nothing_is_allocated() -> None:
            self.node.ip("link", "delete", "taken", check=False)
            with self._journal() as journal:
                assert not journal.execute("SELECT * FROM interfaces").fetchall()

        self._undo.append(nothing_is_allocated)

    def _attach_elsewhere(self) -> None:
        node = self._other("six")
        self._services.apply_pod("elsewhere", node.name)
        node.new_pod_namespace("elsewhere")
        self._undo.append(lambda: self._remove_pod(node, "elsewhere"))
        assert node.cni("ADD", "elsewhere", name=NETWORK).code == 0

        def still_there() -> None:
            assert len(node.host_links()) == 1

        self._undo.append(still_there)

    def _jam(self) -> None:
        """A trigger keeps one entry of the journal as it is."""
        for number in range(3):
            pod = f"stale-{number}"
            self._services.apply_pod(pod, self.node.name)
            self.node.new_pod_namespace(pod)
            assert self.node.cni("ADD", pod, name=NETWORK).code == 0
            self.node.delete_pod_namespace(pod)
        with self._journal() as journal:
            journal.execute(
                "CREATE TRIGGER jam BEFORE UPDATE ON interfaces"
                " WHEN OLD.container_id = 'container-stale-0'"
                " BEGIN SELECT RAISE(ABORT, 'jammed'); END"
            )
        self._undo.append(self._unjam)

    def _unjam(self) -> None:
        with self._journal() as journal:
            left = journal.execute("SELECT container_id FROM interfaces").fetchall()
            journal.execute("DROP TRIGGER jam")
        assert left == [("container-stale-0",)]
        assert self.node.cni("DEL", "stale-0", netns="", name=NETWORK).code == 0

    # --- inside ----------------------------------------------------------------------------------

    def _journal(self) -> closing[sqlite3.Connection]:
        path = self.node.directory / "state/journal.db"
        return closing(sqlite3.connect(path, isolation_level=None, timeout=10))

    def _move_to(self, name: str) -> Node:
        self.node = self._other(name)
        return self.node

    def _other(self, name: str) -> Node:
        if name not in self._others:
            directory = self._main.directory / name
            directory.mkdir()
            made = Node(name, directory, self._main.shim, self._services, self._main.bpffs)
            self._others[name] = made
            made.create()
        self._start(self._others[name])
        return self._others[name]

    def _remove_pod(self, node: Node, pod: str) -> None:
        assert node.cni("DEL", pod, name=NETWORK).code == 0
        node.delete_pod_namespace(pod)


@contextmanager
def listening(world: World, path: Path) -> Iterator[None]:
    """Does what cni_hook.py is asked for, in a thread: the test waits for the hook meanwhile."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=_serve, args=(world, listener))
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(30)


def _serve(world: World, listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            words = connection.makefile().read()
            try:
                done = world.arrange(words)
            except Exception:  # noqa: BLE001 - the hook says no, and the output why
                os.write(2, traceback.format_exc().encode())
                done = False
            connection.sendall(b"done" if done else b"no")
