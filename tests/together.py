"""Which tests go to the same worker: those that share a lab or a network, made once for them all.

xdist has the mark `xdist_group` for that, but with pytest 9.2 it takes no notice of it
(pytest-xdist#1386).
"""

import re
from collections.abc import Mapping

from xdist.scheduler import LoadScopeScheduling

SHARING: Mapping[str, str] = {
    "tests/bpf/test_conformance_packets.py": "packets",
    "tests/bpf/test_direct_network.py": "direct",
    "tests/bpf/test_network.py": "network",
    "tests/bpf/test_services_network.py": "balanced",
    "tests/bpf/test_tunnel.py": "tunnel",
    "tests/contract/dataplane/test_contract.py": "dataplane",
    "tests/e2e/test_doctor.py": "shop",
    "tests/e2e/test_down.py": "shop",
    "tests/e2e/test_ipam_only.py": "shop",
    "tests/e2e/test_network_policies.py": "policies",
    "tests/e2e/test_routing.py": "routing",
    "tests/e2e/test_service_traffic.py": "services",
    "tests/e2e/test_services.py": "services",
    "tests/e2e/test_shop.py": "shop",
    "tests/e2e/test_standing_shop.py": "shop",
    "tests/e2e/test_tls.py": "tls",
    "tests/e2e/test_trace.py": "shop",
    "tests/netns/test_add.py": "add",
    "tests/netns/test_check.py": "check",
    "tests/netns/test_failures.py": "failures",
    "tests/netns/test_ipam_check.py": "ipam-check",
    "tests/netns/test_ipam_only.py": "ipam-only",
}
"""What the tests of a file share. Where it is there in several modes, those are shared."""

MODE = re.compile(r"\[((?:native|tunnel|vxlan)(?:-\d+)?)-?")


def group_of(nodeid: str) -> str:
    """The name of a test's group; a test that shares nothing is one by itself."""
    shared = SHARING.get(nodeid.partition("::")[0])
    if shared is None:
        return nodeid
    mode = MODE.search(nodeid)
    return f"{shared}-{mode[1]}" if mode else shared


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist is not annotated
    """The largest groups first, then tests one by one."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
