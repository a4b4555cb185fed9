"""Starts the node agent: options, checks, namespace, parts."""

from deltaplane.runtime import interpreter

if __name__ == "__main__":
    interpreter.loading()

import sys
from collections.abc import Sequence
from dataclasses import replace

from deltaplane.runtime import config as runtime_config
from deltaplane.runtime import log, service
from deltaplane.runtime.roles import Role
from nodeagent import preflight, statedir
from nodeagent.agent import Agent, Parts, boot_id
from nodeagent.config import AgentConfig
from nodeagent.control import GrpcControlPlane, NodeFacts
from nodeagent.dataplane import cgroups
from nodeagent.dataplane.config import DataPlaneConfig
from nodeagent.dataplane.kernel import KernelDataPlane
from nodeagent.dataplane.memory import MemoryDataPlane
from nodeagent.dataplane.port import DataPlane
from nodeagent.journal import Journal
from nodeagent.memory import MemoryPodLinks, MemoryRoutes
from nodeagent.netlink import namespace, sysctl
from nodeagent.netlink import tunnel as tunnels
from nodeagent.netlink.addresses import AddressTable
from nodeagent.netlink.channel import Channel
from nodeagent.netlink.routes import KernelRoutes
from nodeagent.netlink.tunnel import Tunnel
from nodeagent.nftables import kernel as nftables
from nodeagent.nftables.kernel import KernelMasquerade
from nodeagent.nftables.library import LIBRARY, PACKAGE, is_installed
from nodeagent.nftables.ruleset import Rules
from nodeagent.pods import KernelPodLinks
from nodeagent.spanning import SpanWait

PREFLIGHT_EXIT_CODE = 2
MEMORY_MTU = 1500
"""What pods are told where no packet has a size, bytes."""


def main(argv: Sequence[str]) -> int:
    """Runs the agent; the exit code."""
    config = runtime_config.load(AgentConfig, argv)
    log.configure(config.log_format, config.log_level, "agent")
    if config.netns is not None:
        # Before any thread is started: a thread inherits the namespace of its parent.
        namespace.enter_path(config.netns)
    if problems := preflight.check(config):
        for problem in problems:
            print(f"preflight: {problem}", file=sys.stderr)  # noqa: T201 - for people, before all else
        return PREFLIGHT_EXIT_CODE
    with statedir.lock(config.state_dir):
        return service.run(_run(config))


async def _run(config: AgentConfig) -> None:
    uid = statedir.node_uid(config.state_dir)
    journal = Journal(config.state_dir / statedir.JOURNAL_FILE)
    control = GrpcControlPlane(config.registry, config.ipam, config.tls_to)
    span_wait = (
        SpanWait(config.slicers, tls=config.tls_to(Role.SLICER))
        if config.add_waits_for == "span"
        else None
    )
    node = NodeFacts(name=config.node_name, uid=uid, addresses=config.addresses, boot_id=boot_id())
    dataplane: DataPlane | None = None
    try:
        parts = (_in_memory if config.in_memory else _in_kernel)(config, node, journal, control)
        dataplane = parts.dataplane
        await Agent(replace(parts, span_wait=span_wait)).run()
    finally:
        await control.close()
        if span_wait is not None:
            await span_wait.close()
        if dataplane is not None:
            dataplane.close()
        journal.close()


def _in_kernel(
    config: AgentConfig, node: NodeFacts, journal: Journal, control: GrpcControlPlane
) -> Parts:
    """The parts of an agent whose data path is the kernel's."""
    addresses = config.addresses
    with Channel() as channel:
        uplink = channel.link(config.uplink)
        tunnel = _tunnel(channel, config, uplink.mtu)
        direct = _direct(channel, config, uplink.mtu)
    before = sysctl.differing(sysctl.NODE)
    journal.record_sysctls(before)
    for name in before:
        sysctl.write(name, sysctl.NODE[name])
    dataplane = KernelDataPlane(
        config.pin_dir,
        config=DataPlaneConfig(
            uplink_ifindex=uplink.index,
            uplink_mtu=uplink.mtu,
            tunnel_ifindex=tunnel.index if tunnel else 0,
            node_ipv4=addresses.ipv4,
            node_ipv6=addresses.ipv6,
            refusal=cgroups.refusal(),
            netns_cookie=namespace.cookie(),
            direct_ifindex=direct.index if direct else 0,
            hands_over=config.external_mode == "dsr",
        ),
    )
    cgroup = preflight.socket_cgroup(config.cgroup)
    if cgroup is None:
        cgroups.detach(config.pin_dir)
    return Parts(
        config=config,
        node=node,
        journal=journal,
        dataplane=dataplane,
        routes=KernelRoutes(uplink.index, tunnel),
        links=KernelPodLinks(),
        control=control,
        uplink_index=uplink.index,
        cgroup=cgroup,
        mtu=config.mtu or (tunnel.mtu if tunnel else uplink.mtu),
        tunnel=tunnel,
        direct=direct,
        masquerade=_masquerade(config),
        table=AddressTable(),
    )


def _in_memory(
    config: AgentConfig, node: NodeFacts, journal: Journal, control: GrpcControlPlane
) -> Parts:
    """The parts of an agent that carries no packet and needs no privilege."""
    log.get().warning("data_plane_in_memory", reason="no packet is carried, nothing is enforced")
    return Parts(
        config=config,
        node=node,
        journal=journal,
        dataplane=MemoryDataPlane(config.state_dir),
        routes=MemoryRoutes(),
        links=MemoryPodLinks(config.state_dir),
        control=control,
        uplink_index=0,
        mtu=config.mtu or MEMORY_MTU,
    )


def _tunnel(channel: Channel, config: AgentConfig, uplink_mtu: int) -> Tunnel | None:
    """Makes or adopts the tunnel; with native routing none is left over from an earlier agent."""
    if not config.wraps:
        tunnels.remove(channel)
        return None
    return tunnels.ensure(
        channel, port=config.tunnel_port, uplink_mtu=uplink_mtu, own=config.addresses
    )


def _direct(channel: Channel, config: AgentConfig, uplink_mtu: int) -> Tunnel | None:
    """The same with the link of direct return."""
    if not config.answers_directly:
        tunnels.remove(channel, tunnels.DIRECT)
        return None
    return tunnels.ensure(
        channel,
        port=config.direct_port,
        uplink_mtu=uplink_mtu,
        own=config.addresses,
        name=tunnels.DIRECT,
    )


def _masquerade(config: AgentConfig) -> KernelMasquerade | None:
    """The table of this node; without masquerading none is left over from an earlier agent."""
    if not config.masquerade:
        nftables.remove()
        return None
    if not is_installed():
        log.get().error("masquerade_missing", reason=f"{LIBRARY}: apt-get install {PACKAGE}")
    made = KernelMasquerade(Rules(uplink=config.uplink, own=config.addresses, spared=config.spared))
    try:
        made.adopt()
    except OSError as error:
        log.get().error("masquerade_not_adopted", reason=str(error))
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
