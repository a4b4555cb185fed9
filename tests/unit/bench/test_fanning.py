from bench.fanning import fan_out


def test_a_span_makes_changes_the_business_of_few() -> None:
    on, off = (
        fan_out(nodes=40, pods=20, ticks=5, per_tick=4, is_scoped=is_scoped)
        for is_scoped in (True, False)
    )
    assert off.touched == 40
    assert 0 < on.touched < off.touched
    assert 0 < on.bytes_per_change < off.bytes_per_change
