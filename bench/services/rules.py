"""Rule sets of kube-proxy's shape, in its modes iptables and nftables. Pure.

The chains are those of Kubernetes 1.31's proxy: a rule or a map element for each service, a chain
for it in which one backend is drawn at random, and a chain for each backend that translates.
"""

from collections.abc import Iterable, Iterator

from bench.services.shape import PORT, TARGET_PORT, BenchService
from deltaplane.model.addresses import format_address

_MARK = "0x4000"
_PODS = {4: "10.244.0.0/16", 6: "fd00:10:244::/112"}


def iptables(services: Iterable[BenchService], family: int) -> str:
    """Input of `iptables-restore` (or ip6tables-restore), for both backends of iptables.

    Args:
        services: searched in this order.
        family: 4 or 6.
    """
    chains: list[str] = []
    rules: list[str] = []
    for service in services:
        rules.append(_entrance(service))
        own_chains, own_rules = _iptables_service(service, family)
        chains += own_chains
        rules += own_rules
    return "\n".join((*_IPTABLES_HEAD, *chains, *_IPTABLES_HOOKS, *rules, "COMMIT", ""))


def iptables_change(
    services: Iterable[BenchService], changed: Iterable[BenchService], family: int
) -> str:
    """Input of `iptables-restore --noflush`: a sync of the proxy after some services have changed.

    The proxy writes the chains of those anew, and the one that leads to all services.

    Args:
        services: all of them, searched in this order.
        changed: those of which backends have changed; as many backends as before.
        family: 4 or 6.
    """
    chains = [":KUBE-SERVICES - [0:0]"]
    rules = [_entrance(service) for service in services]
    for service in changed:
        own_chains, own_rules = _iptables_service(service, family)
        chains += own_chains
        rules += own_rules
    return "\n".join(("*nat", *chains, *rules, "COMMIT", ""))


def _frontend(service: BenchService) -> str:
    return f"-d {_host(service.address)} -p tcp -m tcp --dport {PORT}"


def _entrance(service: BenchService) -> str:
    return f"-A KUBE-SERVICES {_frontend(service)} -j KUBE-SVC-{service.number}"


def _iptables_service(service: BenchService, family: int) -> tuple[list[str], list[str]]:
    """The chains of one service, and the rules in them."""
    chain = f"KUBE-SVC-{service.number}"
    chains = [f":{chain} - [0:0]"]
    rules = [f"-A {chain} ! -s {_PODS[family]} {_frontend(service)} -j KUBE-MARK-MASQ"]
    for place, backend in enumerate(service.backends):
        to = f"KUBE-SEP-{service.number}-{place}"
        chains.append(f":{to} - [0:0]")
        left = len(service.backends) - place
        draw = f"-m statistic --mode random --probability {1 / left:.10f} " if left > 1 else ""
        rules.append(f"-A {chain} {draw}-j {to}")
        rules.append(f"-A {to} -s {_host(backend)} -j KUBE-MARK-MASQ")
        target = _with_port(backend)
        rules.append(f"-A {to} -p tcp -m tcp -j DNAT --to-destination {target}")
    return chains, rules


_IPTABLES_HEAD = (
    "*filter",
    ":KUBE-FORWARD - [0:0]",
    "-A FORWARD -j KUBE-FORWARD",
    "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
    f"-A KUBE-FORWARD -m mark --mark {_MARK}/{_MARK} -j ACCEPT",
    "-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "COMMIT",
    "*nat",
    ":KUBE-SERVICES - [0:0]",
    ":KUBE-MARK-MASQ - [0:0]",
    ":KUBE-POSTROUTING - [0:0]",
)
_IPTABLES_HOOKS = (
    "-A PREROUTING -j KUBE-SERVICES",
    "-A OUTPUT -j KUBE-SERVICES",
    "-A POSTROUTING -j KUBE-POSTROUTING",
    f"-A KUBE-MARK-MASQ -j MARK --set-xmark {_MARK}/{_MARK}",
    f"-A KUBE-POSTROUTING -m mark ! --mark {_MARK}/{_MARK} -j RETURN",
    f"-A KUBE-POSTROUTING -j MARK --set-xmark {_MARK}/0x0",
    "-A KUBE-POSTROUTING -j MASQUERADE --random-fully",
)


def nftables(services: Iterable[BenchService], family: int) -> str:
    """Input of `nft -f`.

    Args:
        services: their order does not matter here.
        family: 4 or 6.
    """
    word = "ip" if family == 4 else "ip6"
    lines: list[str] = []
    elements: list[str] = []
    for service in services:
        chain = f"service-{service.number}"
        elements.append(f"{format_address(service.address)} . tcp . {PORT} : goto {chain}")
        lines += _nft_service(service, chain, word, family)
    table = f"{word} kube-proxy"
    # A chain must be there before something refers to it: endpoints, services, then the map.
    return "\n".join(
        (
            f"add table {table}",
            f"table {table} {{",
            "  chain mark-for-masquerade {",
            f"    mark set mark or {_MARK}",
            "  }",
            "  chain masquerading {",
            f"    mark and {_MARK} == 0 return",
            f"    mark set mark xor {_MARK}",
            "    masquerade fully-random",
            "  }",
            *lines,
            "  map service-ips {",
            f"    type {_NFT_TYPE[family]} . inet_proto . inet_service : verdict",
            f"    elements = {{ {', '.join(elements)} }}",
            "  }",
            "  chain services {",
            f"    {word} daddr . meta l4proto . th dport vmap @service-ips",
            "  }",
            "  chain nat-prerouting {",
            "    type nat hook prerouting priority dstnat; policy accept;",
            "    jump services",
            "  }",
            "  chain nat-output {",
            "    type nat hook output priority -100; policy accept;",
            "    jump services",
            "  }",
            "  chain nat-postrouting {",
            "    type nat hook postrouting priority srcnat; policy accept;",
            "    jump masquerading",
            "  }",
            "}",
            "",
        )
    )


_NFT_TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}


def _nft_service(service: BenchService, chain: str, word: str, family: int) -> Iterator[str]:
    draws = []
    for place, backend in enumerate(service.backends):
        to = f"endpoint-{service.number}-{place}"
        draws.append(f"{place} : goto {to}")
        yield f"  chain {to} {{"
        yield f"    {word} saddr {format_address(backend)} jump mark-for-masquerade"
        yield f"    meta l4proto tcp dnat to {_with_port(backend)}"
        yield "  }"
    yield f"  chain {chain} {{"
    frontend = f"{word} daddr {format_address(service.address)} tcp dport {PORT}"
    yield f"    {frontend} {word} saddr != {_PODS[family]} jump mark-for-masquerade"
    yield f"    numgen random mod {len(draws)} vmap {{ {', '.join(draws)} }}"
    yield "  }"


def _host(address: bytes) -> str:
    return f"{format_address(address)}/{8 * len(address)}"


def _with_port(address: bytes) -> str:
    text = format_address(address)
    return f"{text}:{TARGET_PORT}" if len(address) == 4 else f"[{text}]:{TARGET_PORT}"
