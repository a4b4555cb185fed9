from deltaplane.model.addresses import AddressPair, Prefix
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


def test_with_a_tunnel_any_family_leads_to_the_node() -> None:
    dual, only4, only6 = pair("192.0.2.1", "fd99::1"), pair("192.0.2.2"), pair(None, "fd99::2")

    def wrapped(own: AddressPair, owner: AddressPair) -> list[str]:
        return [str(route(block, owner, own=False, tunnel=own)) for block in (V4, V6)]

    over4 = ["10.0.1.0/26 wrapped to 192.0.2.2", "fd00::/122 wrapped to 192.0.2.2"]
    over6 = ["10.0.1.0/26 wrapped to fd99::2", "fd00::/122 wrapped to fd99::2"]
    assert wrapped(dual, only4) == wrapped(dual, pair("192.0.2.2", "fd99::2")) == over4
    assert wrapped(dual, only6) == wrapped(only6, pair("192.0.2.2", "fd99::2")) == over6
    assert wrapped(only4, only6) == ["None", "None"]
    assert str(route(V4, dual, own=True, tunnel=dual)) == "unreachable 10.0.1.0/26"
