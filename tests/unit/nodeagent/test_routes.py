from deltaplane.model.addresses import Prefix
from nodeagent.routes import route
from tests.unit.nodeagent.worlds import pair

V4, V6 = Prefix.parse("10.0.1.0/26"), Prefix.parse("fd00::/122")


def test_own_blocks_are_unreachable_and_others_go_to_their_node() -> None:
    owner = pair("192.0.2.2", "fd99::2")
    assert str(route(V4, owner, own=True)) == "unreachable 10.0.1.0/26"
    assert str(route(V4, owner, own=False)) == "10.0.1.0/26 via 192.0.2.2"
    assert str(route(V6, owner, own=False)) == "fd00::/122 via fd99::2"


def test_without_an_address_of_the_family_there_is_no_route() -> None:
    assert route(V4, None, own=False) is None
    assert route(V6, pair("192.0.2.2"), own=False) is None
