"""The proof that a receipt is true, in short; `make soak-tighten` is the long one."""

import random
from collections.abc import Iterator

import pytest

from deltaplane.cli.client import Client, Targets
from deltaplane.cli.enforcement import Receipt
from deltaplane.model.addresses import parse_address
from deltaplane.model.selector import LabelSelector
from lab.tightening import Broken, Ground, Pair, State, ground
from tests.netns.node import Node

CHANGES = 30
SEED = 20261126


ATTEMPTS = 50


class Hasty(Ground):
    """Does not wait for the receipt."""

    def change(self, state: State) -> Receipt:
        super().write(state)
        return Receipt(revision=0, enforced=1, total=1, missing=(), complete=True, milliseconds=0.0)


@pytest.fixture
def pair(ready: Node) -> Pair:
    return Pair(
        namespace="shop",
        source=LabelSelector.of({"app": "source"}),
        source_addresses=tuple(map(parse_address, ready.add("source").addresses)),
        destination=LabelSelector.of({"app": "sink"}),
    )


@pytest.fixture
def steady(ready: Node, pair: Pair) -> Iterator[Ground]:
    addresses = ready.add("sink").addresses
    assert len(addresses) == len(pair.source_addresses) == 2
    registry, ipam, slicer = map(ready.services.target, ("registry", "ipam", "slicer"))
    namespaces = f"{ready.namespace}-source", f"{ready.namespace}-sink"
    with (
        Client(Targets(registry=registry, ipam=ipam, slicer=slicer)) as client,
        ground(client, ready.pins, namespaces, addresses) as made,
    ):
        yield made
        made.change(())


def test_nothing_passes_after_the_receipt(steady: Ground, pair: Pair) -> None:
    chance = random.Random(SEED)
    tight = pair.tight()
    for number in range(CHANGES):
        steady.loosen(chance.choice(pair.loose()))
        assert steady.tighten(tight[number % len(tight)]).complete


def test_a_receipt_that_comes_too_early_is_found_out(steady: Ground, pair: Pair) -> None:
    hasty = Hasty(steady.client, steady.judge, steady.source, steady.sink)

    def tighten_in_haste() -> None:
        for _ in range(ATTEMPTS):
            steady.loosen(())
            hasty.state = steady.state
            steady.state = pair.tight()[0]
            hasty.tighten(steady.state)

    with pytest.raises(Broken, match="let through after the receipt"):
        tighten_in_haste()
