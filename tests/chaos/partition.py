"""Cuts links of nodes with nftables, at the bridge that they end in: as a cable, whatever is on it.

Not in the node's namespace: its programs send packets on before netfilter sees them.
"""

import subprocess
from collections.abc import Iterable

from tests.chaos.story import Way

TABLE = "chaos"

RULES = f"""
add table bridge {TABLE}
add set bridge {TABLE} to_node {{ type ifname; }}
add set bridge {TABLE} from_node {{ type ifname; }}
add chain bridge {TABLE} in {{ type filter hook prerouting priority -300; }}
add chain bridge {TABLE} out {{ type filter hook postrouting priority 300; }}
add rule bridge {TABLE} in iifname @from_node drop
add rule bridge {TABLE} out oifname @to_node drop
"""


class Bridge:
    """A bridge whose ports can be cut. The rules go with the network namespace.

    Args:
        namespace: network namespace of the bridge; its ports are named after the nodes.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._run(RULES)

    def cut(self, port: str, way: Way) -> None:
        """Lets nothing through to or from a node."""
        self._run("\n".join(f"add element {self._of(name, port)}" for name in _sets(way)))

    def heal(self, port: str, way: Way) -> None:
        """Undoes `cut`."""
        self._run("\n".join(f"delete element {self._of(name, port)}" for name in _sets(way)))

    def heal_all(self) -> None:
        """Undoes every cut."""
        self._run(f"flush set bridge {TABLE} to_node\nflush set bridge {TABLE} from_node")

    def _of(self, name: str, port: str) -> str:
        return f'bridge {TABLE} {name} {{ "{port}" }}'

    def _run(self, commands: str) -> None:
        subprocess.run(
            ["nsenter", f"--net=/run/netns/{self._namespace}", "--", "nft", "-f", "-"],
            input=commands + "\n",
            text=True,
            check=True,
        )


def _sets(way: Way) -> Iterable[str]:
    if way is not Way.OUT:
        yield "to_node"
    if way is not Way.IN:
        yield "from_node"
