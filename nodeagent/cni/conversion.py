"""Results from and to JSON documents of each supported version.

The newest version loses nothing. Below 1.0.0 an address says its family, and links and routes lack
what came later; the reference library converts in the same way.
"""

import ipaddress
import json
from collections.abc import Callable, Mapping

from nodeagent.cni.result import CniError, Code, Ip, Link, Result, Route

ROUTE_OPTIONS = ("mtu", "advmss", "priority", "table", "scope")

Document = Mapping[str, object]


def success(version: str, result: Result) -> bytes:
    """What the plugin prints."""
    return json.dumps(encode(version, result)).encode()


def encode(version: str, result: Result) -> dict[str, object]:
    """A document of one of SUPPORTED_VERSIONS."""
    old = _is_old(version)
    document: dict[str, object] = {
        "cniVersion": version,
        "interfaces": [_encode_link(link, old=old) for link in result.links],
        "ips": [_encode_ip(ip, old=old) for ip in result.ips],
        "routes": [_encode_route(route, old=old) for route in result.routes],
        "dns": dict(result.dns),
    }
    if not result.links:
        del document["interfaces"]
    return document


def decode(document: object) -> Result:
    """Reads a document of any supported version; a key that we do not know is dropped.

    Raises:
        CniError: it is no result; the message names the key.
    """
    top = _object(document, "prevResult")
    links = tuple(_decode_link(item) for item in _list(top, "interfaces"))
    ips = tuple(_decode_ip(item, len(links)) for item in _list(top, "ips"))
    routes = tuple(_decode_route(item) for item in _list(top, "routes"))
    dns = top.get("dns")
    return Result(links=links, ips=ips, routes=routes, dns=_object(dns or {}, "dns"))


def _is_old(version: str) -> bool:
    return tuple(int(part) for part in version.split(".")) < (1, 0, 0)


def _encode_link(link: Link, *, old: bool) -> dict[str, object]:
    found: dict[str, object] = {"name": link.name, "mac": link.mac, "sandbox": link.sandbox}
    if not old:
        found |= {"mtu": link.mtu, "pciID": link.pci_id, "socketPath": link.socket_path}
    return {key: value for key, value in found.items() if value not in ("", None)}


def _encode_ip(ip: Ip, *, old: bool) -> dict[str, object]:
    found: dict[str, object] = {}
    if old:
        found["version"] = str(ipaddress.ip_interface(ip.address).version)
    # Index 0 is an index: only what is absent is left out.
    if ip.interface is not None:
        found["interface"] = ip.interface
    found["address"] = ip.address
    if ip.gateway:
        found["gateway"] = ip.gateway
    return found


def _encode_route(route: Route, *, old: bool) -> dict[str, object]:
    found: dict[str, object] = {"dst": route.dst}
    if route.gw:
        found["gw"] = route.gw
    return found if old else found | dict(route.options)


def _decode_link(item: object) -> Link:
    link = _object(item, "interfaces")
    mtu = link.get("mtu")
    return Link(
        name=_text(link, "name"),
        mac=_text(link, "mac"),
        mtu=mtu if isinstance(mtu, int) else None,
        sandbox=_text(link, "sandbox"),
        pci_id=_text(link, "pciID"),
        socket_path=_text(link, "socketPath"),
    )


def _decode_ip(item: object, links: int) -> Ip:
    ip = _object(item, "ips")
    index = ip.get("interface")
    if index is not None and (not isinstance(index, int) or not 0 <= index < links):
        raise _bad("ips[].interface", index)
    return Ip(
        address=_checked(ip, "address", ipaddress.ip_interface),
        gateway=_checked(ip, "gateway", ipaddress.ip_address) if ip.get("gateway") else "",
        interface=index,
    )


def _decode_route(item: object) -> Route:
    route = _object(item, "routes")
    options = {}
    for key in ROUTE_OPTIONS:
        value = route.get(key)
        if isinstance(value, int):
            options[key] = value
        elif value is not None:
            raise _bad(f"routes[].{key}", value)
    return Route(
        dst=_checked(route, "dst", ipaddress.ip_network),
        gw=_checked(route, "gw", ipaddress.ip_address) if route.get("gw") else "",
        options=options,
    )


def _bad(where: str, value: object) -> CniError:
    return CniError(Code.UNDECODABLE, f"prevResult: unusable {where}", repr(value))


def _object(value: object, where: str) -> Document:
    if not isinstance(value, dict):
        raise _bad(where, value)
    return value


def _list(document: Document, key: str) -> list[object]:
    value = document.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _bad(key, value)
    return value


def _text(document: Document, key: str) -> str:
    value = document.get(key, "")
    if not isinstance(value, str):
        raise _bad(key, value)
    return value


def _checked(document: Document, key: str, parse: Callable[[str], object]) -> str:
    text = _text(document, key)
    try:
        parse(text)
    except ValueError:
        raise _bad(key, text) from None
    return text
