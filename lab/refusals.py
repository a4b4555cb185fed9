"""What the registry refuses of a service, in the words of the manifest that asked for it. Pure."""

import re
from collections.abc import Sequence

from deltaplane.errors import Invalid
from deltaplane.manifest import ServiceManifest

_FIELDS = {
    "affinity_seconds": "sessionAffinityConfig.clientIP.timeoutSeconds",
    "cluster_ips": "clusterIPs",
    "external_ips": "externalIPs",
    "external_local": "externalTrafficPolicy",
    "external_name": "externalName",
    "families": "ipFamilies",
    "family_policy": "ipFamilyPolicy",
    "headless": "clusterIP",
    "health_check_node_port": "healthCheckNodePort",
    "load_balancer_ips": "loadBalancerIP",
    "node_port": "nodePort",
    "source_ranges": "loadBalancerSourceRanges",
    "target": "targetPort",
}
"""Field of the registry's record → field of a manifest below `spec`, where they differ."""

_PLACE = re.compile(r"services\[(\d+)\]\.(.+)")


def of_service(error: Invalid, asked: Sequence[ServiceManifest]) -> Invalid:
    """Says which service is meant, and which field of its manifest.

    Args:
        error: what ApplyServices says of a request.
        asked: the services of that request, in order.
    """
    found = _PLACE.fullmatch(error.field)
    if found is None or int(found[1]) >= len(asked):
        return error
    service = asked[int(found[1])].service
    words = (re.sub(r"^\w+", _renamed, part) for part in found[2].split("."))
    return Invalid(f"spec.{'.'.join(words)}", f"Service {service.reference}: {error.reason}")


def _renamed(word: "re.Match[str]") -> str:
    return _FIELDS.get(word[0], word[0])
