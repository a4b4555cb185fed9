"""How many UDP packets have reached a network namespace, whether or not somebody listened."""

from pathlib import Path

from lab import netns


def arrivals(namespace: str) -> int:
    """Packets of both families since the namespace was made.

    Raises:
        OSError: there is no such namespace.
    """
    with netns.entered(namespace):
        ipv4 = Path("/proc/thread-self/net/snmp").read_text()
        ipv6 = Path("/proc/thread-self/net/snmp6").read_text()
    return _ipv4(ipv4) + _ipv6(ipv6)


def _ipv4(text: str) -> int:
    names, values = (line.split() for line in text.splitlines() if line.startswith("Udp: "))
    found = dict(zip(names, values, strict=True))
    return int(found["InDatagrams"]) + int(found["NoPorts"])


def _ipv6(text: str) -> int:
    found = dict(line.split() for line in text.splitlines())
    return int(found["Udp6InDatagrams"]) + int(found["Udp6NoPorts"])
