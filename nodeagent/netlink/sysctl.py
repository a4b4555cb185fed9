"""Kernel settings below /proc/sys/net, of the namespace of the calling thread."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path("/proc/sys/net")

NODE: Mapping[str, str] = {
    # The node routes for its pods.
    "ipv4/ip_forward": "1",
    "ipv6/conf/all/forwarding": "1",
}
"""Node-wide settings that the agent needs. What they were is recorded before they change."""

HOST_LINK: Mapping[str, str] = {
    # The data path checks sources against the endpoint itself.
    "ipv4/conf/{link}/rp_filter": "0",
    # Nobody configures a pod's link from inside the pod.
    "ipv6/conf/{link}/accept_ra": "0",
}
TUNNEL_LINK: Mapping[str, str] = {
    # The data path checks sources against their node. A node's own address comes back by the
    # uplink: 2 (some link leads there) wins over the 1 (this link does) that may be in conf/all.
    "ipv4/conf/{link}/rp_filter": "2",
    "ipv6/conf/{link}/disable_ipv6": "0",
    "ipv6/conf/{link}/accept_ra": "0",
}
POD_LINK: Mapping[str, str] = {
    "ipv6/conf/{link}/disable_ipv6": "0",
    "ipv6/conf/{link}/accept_ra": "0",
    # Addresses are unique by construction; a tentative address would refuse the first packets.
    "ipv6/conf/{link}/accept_dad": "0",
}


def read(name: str) -> str | None:
    """The value, or None when this kernel has no such setting (IPv6 switched off at boot)."""
    try:
        return (ROOT / name).read_text().strip()
    except FileNotFoundError:
        return None


def write(name: str, value: str) -> None:
    """Sets a value; nothing happens for a setting that this kernel does not have.

    Raises:
        OSError: the kernel refuses.
    """
    # Not Path.write_text: five settings per pod, and a text layer costs more than the kernel.
    try:
        descriptor = os.open(f"{ROOT}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def set_for_link(settings: Mapping[str, str], link: str) -> None:
    """Applies per-link settings."""
    for name, value in settings.items():
        write(name.format(link=link), value)


def differing(settings: Mapping[str, str]) -> dict[str, str]:
    """Those node-wide settings that hold another value now, with that value."""
    found = ((name, read(name)) for name in settings)
    return {name: now for name, now in found if now is not None and now != settings[name]}


def restore(recorded: Iterable[tuple[str, str]]) -> None:
    """Writes recorded values back."""
    for name, value in recorded:
        write(name, value)
