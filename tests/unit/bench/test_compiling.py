"""The bench of the compiler, small: the same cluster each time, and every sort of change is one."""

from bench.compiling import Size, measure

SMALL = Size(identities=60, pods=300, policies=330)


def test_every_change_is_timed_and_the_cluster_is_the_same_each_time() -> None:
    one, other = measure(SMALL, 5), measure(SMALL, 3)
    assert one.subjects == SMALL.identities
    assert one.rules > SMALL.policies
    assert (one.rules, one.peer_sets) == (other.rules, other.peer_sets)
    assert [len(found.wall) for found in (one.policy, one.new_pod, one.last_pod)] == [10, 5, 5]
