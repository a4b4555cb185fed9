"""What an API server makes of a service that leaves its addresses and ports to it."""

import ipaddress

from tests.kubernetes.storing import Object

RANGES = {
    "IPv4": ipaddress.ip_network("10.96.0.0/16"),
    "IPv6": ipaddress.ip_network("fd00:10:96::/112"),
}
"""The cluster's first family first."""
NODE_PORTS = range(30000, 32768)


def spec(given: Object, number: int) -> Object:
    """The spec with what was left out.

    Args:
        given: as it was sent.
        number: one that no other service was given.
    """
    kind = given.get("type", "ClusterIP")
    made = {"type": kind, "sessionAffinity": "None"} | given
    if kind == "ExternalName":
        return made
    policy = given.get("ipFamilyPolicy", "SingleStack")
    families = given.get("ipFamilies") or list(RANGES)[: 1 if policy == "SingleStack" else 2]
    made |= {"ipFamilyPolicy": policy, "ipFamilies": families, "internalTrafficPolicy": "Cluster"}
    if "clusterIPs" not in given:
        headless = given.get("clusterIP") == "None"
        addresses = [str(RANGES[family][number % 65000 + 1]) for family in families]
        made["clusterIPs"] = ["None"] if headless else addresses
    made["clusterIP"] = made["clusterIPs"][0]
    made["ports"] = [_port(port, kind, number + index) for index, port in enumerate(given["ports"])]
    return made


def _port(given: Object, kind: str, number: int) -> Object:
    made = {"protocol": "TCP", "targetPort": given["port"]} | given
    if kind != "ClusterIP":
        made.setdefault("nodePort", NODE_PORTS[number % len(NODE_PORTS)])
    return made
