import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaplane.errors import Exhausted
from deltaplane.model.identity import FIRST_IDENTITY, LabelSet
from deltaplane.model.ports import TRANSPORTS, NamedPort, Protocol
from services.endpoints.identity import LAST_IDENTITY, LabelFilter, assign, digest
from services.endpoints.records import Pod

words = st.text("ab/.", max_size=3)
pairs = st.dictionaries(words, words, max_size=3)
ports = st.lists(
    st.builds(NamedPort, st.sampled_from("ab"), st.sampled_from(TRANSPORTS), st.integers(1, 3)),
    max_size=3,
)
label_sets = st.builds(
    lambda namespace, outer, inner, named: LabelSet(
        namespace=namespace,
        namespace_labels=tuple(outer.items()),
        labels=tuple(inner.items()),
        named_ports=tuple(named),
    ),
    words,
    pairs,
    pairs,
    ports,
)


@given(label_sets, label_sets)
def test_digests_are_equal_exactly_for_equal_sets(one: LabelSet, other: LabelSet) -> None:
    assert (digest(one) == digest(other)) == (one == other)


@given(pairs, ports, st.randoms(use_true_random=False))
def test_order_and_repeats_do_not_matter(
    labels: dict[str, str], named: list[NamedPort], shuffler: random.Random
) -> None:
    shuffled, doubled = list(labels.items()), named * 2
    shuffler.shuffle(shuffled)
    shuffler.shuffle(doubled)
    assert digest(LabelSet.of("ns", {}, labels, tuple(named))) == digest(
        LabelSet.of("ns", {}, dict(shuffled), tuple(doubled))
    )


def test_parts_do_not_run_into_each_other() -> None:
    sets = [
        LabelSet(namespace="a", labels=(("b", "c"),)),
        LabelSet(namespace="a", namespace_labels=(("b", "c"),)),
        LabelSet(namespace="ab", labels=(("", "c"),)),
        LabelSet(namespace="a", labels=(("bc", ""),)),
        LabelSet(namespace="a", labels=(("", "bc"),)),
    ]
    assert len({digest(label_set) for label_set in sets}) == len(sets)


def test_the_digest_is_the_same_in_every_release() -> None:
    # It is a key in etcd: a change would give every running pod a new identity.
    port = NamedPort("http", Protocol.TCP, 80)
    label_set = LabelSet.of("shop", {"team": "red"}, {"app": "web"}, (port,))
    assert digest(label_set) == ("bab1eb71c05e9891fd65420b6183c4ce30ff46e03a7e7c3fcca0f07dd48230a7")


@pytest.mark.parametrize(
    ("key", "kept"),
    [
        ("app", True),
        ("pod-template-hash", False),
        ("pod-template-hash2", True),
        ("statefulset.kubernetes.io/pod-name", False),
        ("controller-revision-hash", False),
        ("apps.kubernetes.io/pod-index", False),
        ("topology.kubernetes.io/zone", False),
        ("topology.kubernetes.io.example.com/zone", True),
    ],
)
def test_the_default_filter(key: str, kept: bool) -> None:
    pod = Pod(namespace="shop", name="web", uid="u", node="n", labels=((key, "x"),))
    label_set = LabelFilter().label_set(pod, {key: "namespaces keep all of theirs"})
    assert label_set.labels == (((key, "x"),) if kept else ())
    assert (key, "namespaces keep all of theirs") in label_set.namespace_labels


digests = st.sampled_from("abcdefgh")


@given(st.lists(st.lists(digests, max_size=6), max_size=6))
def test_numbers_against_a_dictionary(calls: list[list[str]]) -> None:
    known: dict[str, int] = {}
    highest = 0
    for wanted in calls:
        assignment = assign(wanted, known, highest)
        assert set(assignment.numbers) == set(wanted)
        assert assignment.fresh == tuple(dict.fromkeys(w for w in wanted if w not in known))
        for name, number in assignment.numbers.items():
            assert known.setdefault(name, number) == number
        assert assignment.highest >= highest
        highest = assignment.highest
    assert sorted(known.values()) == list(range(FIRST_IDENTITY, FIRST_IDENTITY + len(known)))


def test_a_raised_counter_is_respected() -> None:
    # As `restore` leaves it: 2^20 above what the backup knew.
    assert assign(["a", "b"], {"a": 300}, 300 + 2**20).numbers == {"a": 300, "b": 301 + 2**20}


def test_numbers_end() -> None:
    assert assign(["a"], {}, LAST_IDENTITY - 1).numbers == {"a": LAST_IDENTITY}
    with pytest.raises(Exhausted):
        assign(["a", "b"], {}, LAST_IDENTITY - 1)
    assert assign(["a"], {"a": 256}, LAST_IDENTITY).numbers == {"a": 256}
