import pytest

from deltaplane.errors import Invalid
from deltaplane.runtime import roles
from deltaplane.runtime.roles import Peer, Role


@pytest.mark.parametrize(
    ("uri", "peer"),
    [
        ("spiffe://deltaplane/slicer", Peer(Role.SLICER)),
        ("spiffe://deltaplane/admin", Peer(Role.ADMIN)),
        ("spiffe://deltaplane/node/worker-7.example", Peer(Role.NODE, "worker-7.example")),
    ],
)
def test_a_role_and_its_uri(uri: str, peer: Peer) -> None:
    assert roles.parse(uri) == peer
    assert peer.uri == uri


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "spiffe://deltaplane/",
        "spiffe://deltaplane/king",
        "spiffe://deltaplane/SLICER",
        "spiffe://deltaplane/slicer/",
        "spiffe://deltaplane/slicer/x",
        "spiffe://deltaplane/node",
        "spiffe://deltaplane/node/",
        "spiffe://deltaplane/node/a/b",
        "spiffe://deltaplane/node/A",
        "spiffe://deltaplane/node/-a",
        "spiffe://deltaplane/node/a\n",
        "spiffe://other/slicer",
        "https://deltaplane/slicer",
        "slicer",
        "node/a",
    ],
)
def test_what_names_no_role(uri: str) -> None:
    assert roles.parse(uri) is None


def test_a_node_is_named_for_agents_and_only_so() -> None:
    with pytest.raises(Invalid):
        Peer(Role.NODE)
    with pytest.raises(Invalid):
        Peer(Role.IPAM, "n1")


def test_agents_and_the_bridge_have_no_name_for_etcd() -> None:
    assert {role for role in Role if role.uses_store} == {
        *(Role.IPAM, Role.ENDPOINTS, Role.SLICER, Role.ADMIN, Role.ETCD)
    }
