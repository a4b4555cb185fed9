"""What a decoded object costs; times are measured by `python -m bench bridge`."""

import gc
import tracemalloc

import msgspec

from bench import clustering
from services.kubernetes.api import resource as resources
from services.kubernetes.kinds import POLICIES, Kind, Object

PODS = 500


def encoded(number: int) -> bytes:
    value = clustering.pod(number, 100)
    value["metadata"] |= {"name": f"pod-{number}", "namespace": "team-0", "uid": f"{number:036x}"}
    return msgspec.json.encode(value)


def test_a_pod_takes_less_than_three_kib() -> None:
    texts = [encoded(number) for number in range(PODS)]
    decode = msgspec.json.Decoder(Kind.POD.type).decode
    kept: list[Object] = [decode(texts[0])]
    gc.collect()
    tracemalloc.start()
    try:
        kept += [decode(text) for text in texts]
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(texts[0]) > 3500, "no smaller than a real one"
    assert taken / PODS < 3 * 1024


def test_every_kind_that_the_client_may_watch_is_watched() -> None:
    assert {kind.resource for kind in Kind} == set(resources.WATCHED)


def test_only_kinds_of_policies_come_with_definitions() -> None:
    optional = {kind for kind in Kind if kind.is_optional}
    assert optional == set(POLICIES) - {Kind.NETWORK_POLICY}
