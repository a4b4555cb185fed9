from bench.sealing import Shape, measure


def test_both_ways_are_measured() -> None:
    [found] = measure([Shape(agents=2, size=300, messages=5)], rounds=1)
    for cost in (found.plain, found.sealed):
        assert cost.server_us > 0
        assert cost.client_us > 0
    assert found.ratio("both_us") > 0
