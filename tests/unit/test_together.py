from pathlib import Path

import pytest

from tests.together import SHARING, group_of

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("file", SHARING)
def test_a_file_that_shares_is_there(file: str) -> None:
    assert (ROOT / file).is_file()


@pytest.mark.parametrize(
    ("test", "group"),
    [
        ("tests/e2e/test_routing.py::test_mtu[vxlan-9000-near-far-v4]", "routing-vxlan-9000"),
        ("tests/e2e/test_routing.py::test_mtu[native-1500-v6]", "routing-native-1500"),
        (
            "tests/e2e/test_network_policies.py::test_case[vxlan-1500-[tcp] a]",
            "policies-vxlan-1500",
        ),
        ("tests/e2e/test_network_policies.py::test_the_table_is_there", "policies"),
        ("tests/bpf/test_network.py::test_pods[native-local-v4]", "network-native"),
        ("tests/bpf/test_network.py::test_packets_pass[vxlan]", "network-vxlan"),
        ("tests/bpf/test_tunnel.py::test_a_node[in4-over4]", "tunnel"),
        ("tests/e2e/test_shop.py::test_get[nodes-3]", "shop"),
        ("tests/netns/test_add.py::test_a", "add"),
    ],
)
def test_what_shares_a_lab_is_a_group(test: str, group: str) -> None:
    assert group_of(test) == group


def test_what_shares_nothing_is_alone() -> None:
    for test in (
        "tests/netns/test_restart.py::test_a",
        "tests/unit/lab/test_x.py::test_y[native-1500]",
    ):
        assert group_of(test) == test
