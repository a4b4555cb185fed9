import pytest

from bench import claiming


@pytest.mark.timeout(90)
@pytest.mark.parametrize("per_request", [1, 2, 4])
def test_what_is_counted_was_claimed(per_request: int) -> None:
    load = claiming.Load(nodes=3, at_once=2, per_request=per_request, claims=12)
    result = claiming.measure(load)
    assert (result.claims, result.failures) == (12, 0)
    assert result.per_second == pytest.approx(result.requests_per_second * per_request, rel=0.02)
    assert result.per_second > 0
    assert result.client_us > 0  # the others are counted in ticks of 10 ms
    assert "with fsync" in dict(claiming.lines(result))["etcd"]
    assert claiming.record(result)["nodes"] == 3
