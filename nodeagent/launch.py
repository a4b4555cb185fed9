"""What the containers of a node run: `python -m nodeagent.launch WHAT`.

    agent      the agent; options after it are the agent's
    uninstall  `nodeagent.uninstall`, with the agent's options
    install    `nodeagent.install`
    bpffs      mounts the BPF file system where there is none
    rest       does nothing until it is told to end

A container knows its node's addresses (HOST_IPS, with commas; the agent's own variables win), not
the name of the link that has them: that is found. Its /proc/sys is mounted read-only unless it is
privileged: with CAP_SYS_ADMIN it is made writable, of which only the node's network is used.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from deltaplane.errors import Invalid, NotFound
from deltaplane.model.addresses import parse_address
from nodeagent import install
from nodeagent.dataplane import bpffs
from nodeagent.netlink import inspect
from nodeagent.netlink.channel import Channel

UPLINK, IPV4, IPV6 = "DELTAPLANE_UPLINK", "DELTAPLANE_NODE_IPV4", "DELTAPLANE_NODE_IPV6"
HOST_IPS = "HOST_IPS"
SYSCTLS = Path("/proc/sys")

# From linux/mount.h.
MS_REMOUNT, MS_BIND = 32, 4096
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8


def node_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The agent's variables that follow from the node's addresses. Pure.

    The first address of each family counts; a variable that is set stays as it is.

    Raises:
        Invalid: one of them is no address.
    """
    found: dict[str, str] = {}
    for text in filter(None, (part.strip() for part in environment.get(HOST_IPS, "").split(","))):
        try:
            name = IPV4 if len(parse_address(text)) == 4 else IPV6
        except ValueError as error:
            raise Invalid(HOST_IPS, str(error)) from error
        if not environment.get(name):
            found.setdefault(name, text)
    return found


def link_with(channel: Channel, address: str) -> str:
    """Name of the link that has an address.

    Raises:
        NotFound: none has it.
    """
    wanted = parse_address(address)
    for link in channel.links():
        if any(found.address == wanted for found in inspect.addresses(channel, link.index)):
            return link.name
    raise NotFound(f"no link has the address {address}; name it with {UPLINK}")


def prepare(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of the agent on this node.

    Raises:
        Invalid: HOST_IPS holds what is no address.
        NotFound: no link has the node's address.
    """
    result = {**environment, **node_variables(environment)}
    address = result.get(IPV4) or result.get(IPV6)
    if not result.get(UPLINK) and address:
        with Channel() as channel:
            result[UPLINK] = link_with(channel, address)
    return result


def make_sysctls_writable(path: Path = SYSCTLS) -> None:
    """Mounts /proc/sys anew, of this container only, where it is read-only.

    Raises:
        OSError: the kernel refuses: no CAP_SYS_ADMIN, or a profile of AppArmor denies mounts.
    """
    if not os.statvfs(path).f_flag & os.ST_RDONLY:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    flags = MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV | MS_NOEXEC
    if libc.mount(None, os.fsencode(path), None, flags, None):
        number = ctypes.get_errno()
        raise OSError(number, f"{path} is read-only and stays so: {os.strerror(number)}")


def _become(module: str) -> Callable[[Sequence[str]], NoReturn]:
    def run(arguments: Sequence[str]) -> NoReturn:
        make_sysctls_writable()
        environment = prepare(os.environ)
        command = [sys.executable, "-m", module, *arguments]
        os.execve(sys.executable, command, environment)  # noqa: S606 - no shell is wanted

    return run


def _mount_bpffs(_: Sequence[str]) -> int:
    bpffs.ensure()
    return 0


def _rest(_: Sequence[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        signal.pause()


COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "agent": _become("nodeagent"),
    "uninstall": _become("nodeagent.uninstall"),
    "install": install.main,
    "bpffs": _mount_bpffs,
    "rest": _rest,
}


def main(argv: Sequence[str]) -> int:
    """Runs the command; the exit code. Options alone are the agent's."""
    what, arguments = (argv[0], argv[1:]) if argv and argv[0] in COMMANDS else ("agent", argv)
    try:
        return COMMANDS[what](arguments)
    except (Invalid, NotFound, OSError) as error:
        sys.stderr.write(f"{what}: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
