"""Implements Masquerade with a table of nftables."""

from collections.abc import Iterable

from nodeagent.masquerade import Member
from nodeagent.nftables import ruleset
from nodeagent.nftables.library import Nftables
from nodeagent.nftables.ruleset import Rules


class KernelMasquerade:
    """The table of the network namespace of the thread that makes it. One thread at a time.

    Nothing is written before `adopt` or the first `add`. A library that is missing, or a kernel
    that refuses, shows then.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._nftables: Nftables | None = None
        self._held: frozenset[Member] = frozenset()
        self._is_ours = False

    def add(self, members: Iterable[Member]) -> None:
        """Makes members known, all or none. Raises OSError."""
        self._change(self._held | frozenset(members))

    def delete(self, members: Iterable[Member]) -> None:
        """Forgets members, absent ones are fine. Raises OSError."""
        self._change(self._held - frozenset(members))

    def dump(self) -> frozenset[Member]:
        """All that are known, by an earlier agent, too."""
        try:
            listing = self._run(f"list table {ruleset.TABLE}")
        except OSError:
            self._held = frozenset()
        else:
            self._held = ruleset.parse(listing)
        return self._held

    def adopt(self) -> None:
        """Writes the rules of this agent around what an earlier one has left; fine if it has not.

        Raises:
            OSError: the kernel refuses.
        """
        if self.dump():
            self._change(self._held)

    def close(self) -> None:
        """Frees the library's memory; the table stays."""
        if self._nftables is not None:
            self._nftables.close()
            self._nftables = None

    def _change(self, wanted: frozenset[Member]) -> None:
        # The first write brings the rules of this agent, and what is held with them.
        if not self._is_ours or not self._change_in_place(wanted):
            self._run(ruleset.create(self._rules, wanted))
            self._is_ours = True
        self._held = wanted

    def _change_in_place(self, wanted: frozenset[Member]) -> bool:
        """False: the table is not as we left it; somebody has flushed the ruleset."""
        try:
            self._run(
                ruleset.replace_pools(wanted)
                + ruleset.change_nodes("add", wanted - self._held)
                + ruleset.change_nodes("delete", self._held - wanted)
            )
        except OSError:
            return False
        return True

    def _run(self, commands: str) -> str:
        if self._nftables is None:
            self._nftables = Nftables()
        return self._nftables.run(commands)


def remove() -> bool:
    """Removes the table from the calling thread's namespace; whether there was one.

    Raises:
        OSError: the kernel refuses.
    """
    try:
        nftables = Nftables()
    except OSError:
        # Without the library no agent has made a table.
        return False
    try:
        nftables.run(f"list table {ruleset.TABLE}")
    except OSError:
        return False
    else:
        nftables.run(ruleset.remove())
        return True
    finally:
        nftables.close()
