"""Addresses of services and slices, and of which families they are."""

from deltaplane.manifest.objects import FamilyPolicy
from deltaplane.manifest.reading import Reader
from deltaplane.model.addresses import Prefix, format_address, parse_address
from deltaplane.model.service import Service, ServiceType

FAMILIES = {"IPv4": 4, "IPv6": 6}
NAMES = {4: "IPv4", 6: "IPv6"}
NONE = "None"
"""The clusterIP of a headless service."""

_SPECIAL = {
    Prefix.parse("0.0.0.0/32"): "stands for no address",
    Prefix.parse("127.0.0.0/8"): "is a loopback address",
    Prefix.parse("169.254.0.0/16"): "is a link-local address",
    Prefix.parse("224.0.0.0/24"): "is a link-local multicast address",
    Prefix.parse("::/128"): "stands for no address",
    Prefix.parse("::1/128"): "is the loopback address",
    Prefix.parse("fe80::/10"): "is a link-local address",
    Prefix.parse("ff02::/16"): "is a link-local multicast address",
}
"""Where no client could reach anything."""


def family_of(address: bytes) -> int:
    """4 or 6."""
    return 4 if len(address) == 4 else 6


def read_address(reader: Reader) -> bytes | None:
    """An address that clients can reach, or None."""
    text = reader.text()
    if text is None:
        return None
    try:
        address = parse_address(text)
    except ValueError as error:
        reader.mistake(str(error))
        return None
    for prefix, reason in _SPECIAL.items():
        if prefix.contains(address):
            reader.mistake(f'"{text}" {reason}')
            return None
    return address


def read_cluster_addresses(spec: Reader, kind: ServiceType) -> tuple[bool, tuple[bytes, ...]]:
    """Whether a service is headless, and the addresses that it asks for, the primary first."""
    one, several = spec.get("clusterIP"), spec.get("clusterIPs")
    # The empty text means that the cluster chooses.
    single = one if one is not None and one.value != "" else None
    items = several.items() if several else []
    if kind is ServiceType.EXTERNAL_NAME:
        for given in (single, several if items else None):
            if given is not None:
                given.mistake("must be absent when the type is ExternalName")
        return False, ()
    if single is not None and items and items[0].value != single.value:
        items[0].mistake("must be the same as clusterIP")
    listed = items or ([single] if single is not None else [])
    if any(item.value == NONE for item in listed):
        return _headless(listed, kind), ()
    if len(listed) > 2 and several is not None:
        several.mistake("may hold at most two addresses, one of each family")
    found = [(item, read_address(item)) for item in listed[:2]]
    addresses = [address for _, address in found if address is not None]
    if len(addresses) == 2 and family_of(addresses[0]) == family_of(addresses[1]):
        found[1][0].mistake("must be of the other family than the first")
        addresses.pop()
    return False, tuple(addresses)


def _headless(listed: list[Reader], kind: ServiceType) -> bool:
    if len(listed) > 1:
        listed[1].mistake("must be absent: None stands alone")
    if kind is not ServiceType.CLUSTER_IP:
        listed[0].mistake("may be None only when the type is ClusterIP")
    return True


def read_families(
    spec: Reader, service: Service, *, headless: bool
) -> tuple[tuple[int, ...], FamilyPolicy]:
    """The families that a service names, the primary first, and how many it wants otherwise."""
    listed, given = spec.get("ipFamilies"), spec.get("ipFamilyPolicy")
    if service.type is ServiceType.EXTERNAL_NAME:
        for field in (listed, given):
            if field is not None:
                field.mistake("must be absent when the type is ExternalName")
        return (), FamilyPolicy.ABSENT
    families = _families(listed) if listed else ()
    for index, address in enumerate(service.cluster_ips):
        if index < len(families) and families[index] != family_of(address):
            shown, wanted = format_address(address), NAMES[families[index]]
            spec.mistake(f"{shown} is not {wanted}, as ipFamilies say", field="clusterIPs")
    word = given.choice([policy.value for policy in FamilyPolicy if policy.value]) if given else ""
    policy = FamilyPolicy(word or "")
    both = 2 in (len(families), len(service.cluster_ips))
    if both and policy in (FamilyPolicy.ABSENT, FamilyPolicy.SINGLE_STACK):
        spec.mistake(
            "must be PreferDualStack or RequireDualStack where there are two families",
            field="ipFamilyPolicy",
        )
    if headless and service.selector is None and policy is FamilyPolicy.ABSENT and not families:
        # Whoever makes the slices may have endpoints of both.
        return families, FamilyPolicy.PREFER_DUAL_STACK
    return families, policy


def _families(listed: Reader) -> tuple[int, ...]:
    words = [item.choice(tuple(FAMILIES)) for item in listed.items()]
    found = [FAMILIES[word] for word in words if word is not None]
    if len(found) != len(set(found)):
        listed.mistake("names a family twice")
    return tuple(dict.fromkeys(found))
