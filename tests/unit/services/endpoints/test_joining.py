from dataclasses import replace

import pytest

from deltaplane.errors import Refused
from deltaplane.model.addresses import AddressPair, parse_address
from services.endpoints.identity import LabelFilter
from services.endpoints.joining import follow, join
from services.endpoints.records import Owner, Pod, Request

FILTER = LabelFilter()
POD = Pod(namespace="shop", name="web", uid="uid", node="node-1", labels=(("app", "web"),))
REQUEST = Request(
    node="node-1",
    node_uid="n",
    id=1,
    namespace="shop",
    pod="web",
    pod_uid="uid",
    owner=Owner(network="net", container_id="c", interface="eth0", attempt="a"),
    addresses=AddressPair(ipv4=parse_address("10.244.0.1")),
)
MEANING = FILTER.label_set(POD, {"team": "red"})


def test_its_own_record_gives_the_label_set() -> None:
    assert join(REQUEST, POD, {"team": "red"}, FILTER) == MEANING
    assert follow(REQUEST, POD, {"team": "red"}, FILTER) == MEANING


def test_without_a_record_a_new_endpoint_waits_and_an_old_one_stays() -> None:
    assert join(REQUEST, None, {}, FILTER) is None
    assert follow(REQUEST, None, {}, FILTER) is None


def test_without_a_uid_the_name_decides() -> None:
    nameless = replace(REQUEST, pod_uid="")
    assert join(nameless, POD, {"team": "red"}, FILTER) == MEANING
    assert follow(nameless, POD, {"team": "red"}, FILTER) == MEANING


@pytest.mark.parametrize(
    ("stranger", "text"),
    [
        (replace(POD, uid="new"), "its record has UID new, the endpoint names uid"),
        (replace(POD, node="node-2"), "binds it to node node-2, the endpoint is on node-1"),
    ],
)
def test_a_stranger_s_record_is_never_used(stranger: Pod, text: str) -> None:
    with pytest.raises(Refused, match=text):
        join(REQUEST, stranger, {}, FILTER)
    assert follow(REQUEST, stranger, {}, FILTER) is None
