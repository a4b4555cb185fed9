import pytest

from bench import claiming


@pytest.mark.timeout(90)
def test_what_is_counted_was_claimed() -> None:
    result = claiming.measure(nodes=3, at_once=2, claims=12)
    assert (result.claims, result.failures) == (12, 0)
    assert result.per_second > 0
    assert result.client_us > 0  # the others are counted in ticks of 10 ms
    assert "with fsync" in dict(claiming.lines(result))["etcd"]
    assert claiming.record(result)["nodes"] == 3
