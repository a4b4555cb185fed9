"""Takes everything off a node that its agent has put there: `python -m nodeagent.uninstall`.

A stopping agent leaves the data path as it is; this is for a node that leaves the cluster, or that
gets another network. It takes the agent's own options, may be repeated, and keeps the journal and
the node's UID, which an agent that comes back needs.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deltaplane.errors import Refused
from deltaplane.runtime import config as runtime_config
from deltaplane.runtime import log
from nodeagent import preflight, statedir
from nodeagent.config import AgentConfig
from nodeagent.dataplane import bpffs, cgroups, loader, tc
from nodeagent.entries import Kind
from nodeagent.journal import Journal, State
from nodeagent.netlink import namespace, sysctl
from nodeagent.netlink import tunnel as tunnels
from nodeagent.netlink.channel import Channel
from nodeagent.netlink.links import Links, host_name
from nodeagent.netlink.routes import KernelRoutes
from nodeagent.nftables import kernel as nftables


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What is gone.

    Attributes:
        links: of half-removed pods.
        sockets: whether programs of sockets were on a cgroup.
        tunnel: whether there was a link that wraps packets.
        sysctls: names that have their old value again.
    """

    links: tuple[str, ...]
    sockets: bool
    tunnel: bool
    masquerade: bool
    routes: int
    pins: tuple[Path, ...]
    sysctls: tuple[str, ...]


def uninstall(config: AgentConfig) -> Removed:
    """Cleans the node of the calling thread's network namespace. No agent runs on its state.

    Raises:
        Refused: pods are attached; without programs nothing would judge their packets.
        OSError: the kernel refuses.
    """
    links = Links()
    journal = Journal(config.state_dir / statedir.JOURNAL_FILE)
    try:
        stale = _stale_links(links, journal, statedir.node_uid(config.state_dir))
        for name in stale:
            links.delete(name)
        routes = 0
        with Channel() as channel:
            # With it go the routes through it.
            tunnel = tunnels.remove(channel)
            tunnel |= tunnels.remove(channel, tunnels.DIRECT)
        if (uplink := links.index(config.uplink)) is not None:
            tc.detach(uplink, [tc.Hook.INGRESS])
            routes = _remove_routes(KernelRoutes(uplink))
        return Removed(
            links=stale,
            sockets=cgroups.detach(config.pin_dir),
            tunnel=tunnel,
            masquerade=nftables.remove(),
            routes=routes,
            pins=_remove_pins(config.pin_dir),
            sysctls=_restore_sysctls(journal),
        )
    finally:
        journal.close()


def _stale_links(links: Links, journal: Journal, node_uid: str) -> tuple[str, ...]:
    """Links of no pod. Raises Refused when there are others."""
    present = links.ours(node_uid)
    if present and journal.ledger.is_new:
        raise Refused(
            f"{len(present)} pod links, and a journal that does not know them: start the agent once"
        )
    attached = [
        f"{record.pod.namespace}/{record.pod.name}"
        for number, record in journal.interfaces.items()
        if (record.state in (State.READY, State.LOST) and host_name(number) in present)
        or record.kind is Kind.IPAM
    ]
    if attached:
        shown = ", ".join(sorted(attached)[:5])
        raise Refused(f"{len(attached)} pods are attached ({shown}): drain the node first")
    return tuple(sorted(present))


def _remove_routes(table: KernelRoutes) -> int:
    found = tuple(table.dump().values())
    table.delete(found)
    return len(found)


def _remove_pins(pin_dir: Path) -> tuple[Path, ...]:
    """Removes the maps of every schema version; what lies beside them is somebody else's."""
    if not pin_dir.is_dir():
        return ()
    folders = tuple(sorted(path for path in pin_dir.iterdir() if loader.is_schema_folder(path)))
    for folder in folders:
        bpffs.remove_pins(folder)
    if not any(pin_dir.iterdir()):
        pin_dir.rmdir()
    return folders


def _restore_sysctls(journal: Journal) -> tuple[str, ...]:
    """Gives settings back their old values, but those that somebody has changed since."""
    restored = {
        name: before
        for name, before in journal.recorded_sysctls().items()
        if sysctl.read(name) == sysctl.NODE.get(name)
    }
    sysctl.restore(restored.items())
    journal.forget_sysctls()
    return tuple(sorted(restored))


def main(argv: Sequence[str]) -> int:
    """Runs the command; the exit code."""
    config = runtime_config.load(AgentConfig, argv)
    log.configure(config.log_format, config.log_level, "uninstall")
    if config.netns is not None:
        namespace.enter_path(config.netns)
    if missing := preflight.missing_capabilities():
        log.get().error("failed", reason=f"{', '.join(missing)} missing: run it as root")
        return 1
    try:
        with statedir.lock(config.state_dir):
            removed = uninstall(config)
    except (Refused, OSError) as error:
        log.get().error("failed", reason=str(error))
        return 1
    log.get().info(
        "uninstalled",
        links=removed.links,
        sockets=removed.sockets,
        tunnel=removed.tunnel,
        masquerade=removed.masquerade,
        routes=removed.routes,
        pins=[str(folder) for folder in removed.pins],
        sysctls=removed.sysctls,
        kept=str(config.state_dir),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
