"""The index finds what comparing everything with everything finds."""

from hypothesis import given, settings
from hypothesis import strategies as st

from deltaplane.model.identity import Identity, LabelSet
from deltaplane.model.ports import NamedPort, Protocol
from deltaplane.model.selector import LabelSelector
from deltaplane.policy.index import MatchIndex
from deltaplane.policy.terms import Candidate, Term, facts_of
from tests.unit.deltaplane.policy import worlds

terms = st.builds(
    Term,
    st.sampled_from((*worlds.NAMESPACES, None)),
    worlds.selectors(("tier",)),
    worlds.selectors(),
    st.none() | worlds.named_ports,
)


@given(terms, worlds.label_sets())
def test_what_a_term_matches_has_a_fact_of_each_of_its_anchors(
    term: Term, label_set: LabelSet
) -> None:
    if term.matches(Candidate.of(label_set)):
        facts = set(facts_of(label_set))
        assert all(facts.intersection(anchor) for anchor in term.anchors())


@settings(max_examples=200, deadline=None)
@given(
    st.lists(terms, unique=True, max_size=5),
    worlds.identities(),
    st.data(),
)
def test_it_finds_every_match_and_no_other(
    some: list[Term], identities: tuple[Identity, ...], data: st.DataObject
) -> None:
    index = MatchIndex()
    steps: list[Term | Identity] = [*some, *identities]
    for step in data.draw(st.permutations(steps)):
        if isinstance(step, Term):
            index.add_term(step)
        else:
            index.add_identity(step)
    gone = data.draw(st.sampled_from(identities))
    matched = index.remove_identity(gone.id)
    assert matched == {term for term in some if term.matches(Candidate.of(gone.label_set))}
    left = [identity for identity in identities if identity != gone]
    for term in some:
        assert index.members(term) == {
            identity.id for identity in left if term.matches(Candidate.of(identity.label_set))
        }
    for term in some:
        index.remove_term(term)
    assert all(not index.terms(identity.id) for identity in left)


@given(terms, terms)
def test_keys_are_equal_exactly_when_terms_are(one: Term, other: Term) -> None:
    assert (one.key == other.key) == (one == other)


def test_a_key_is_the_same_on_every_replica_and_in_every_release() -> None:
    term = Term("shop", LabelSelector(), LabelSelector.of({"app": "web"}))
    named = term.with_port(NamedPort("http", Protocol.TCP, 80))
    assert term.key.hex() == "0692f3ade311d098604a679af67719ea"
    assert named.key.hex() == "f59f0a04a17fe70980ed6a0722d7d42b"
