import pytest

from bench.datapath.generator import Load, Sample
from bench.services.measuring import Series
from bench.services.network import Proxy
from bench.services.report import compare
from deltaplane.errors import Unavailable


def sample(p50: float, *, count: int = 10, failures: int = 0) -> Sample:
    return Sample(count=count, failures=failures, p50_ns=p50, p99_ns=3 * p50, mean_ns=p50)


def series(*rounds: dict[Proxy, Sample]) -> Series:
    return Series(Load.CRR, "first of 800", "ipv6", list(rounds))


def test_a_ratio_is_of_the_same_round() -> None:
    found = compare(
        series(
            {Proxy.DIRECT: sample(1000), Proxy.IPTABLES_NFT: sample(8000, failures=1)},
            {Proxy.DIRECT: sample(3000), Proxy.IPTABLES_NFT: sample(24000, failures=2)},
        )
    )
    direct, nft = found.lines
    assert (direct.proxy, direct.p50_us, direct.p99_us, direct.of_direct) == (
        "direct",
        2.0,
        6.0,
        None,
    )
    assert nft.of_direct is not None
    assert nft.of_direct.mean == pytest.approx(8)
    assert (nft.failures, found.failures, nft.samples, found.left_out) == (3, 3, 20, 0)


def test_rounds_in_which_something_is_cold_are_left_out() -> None:
    cold = {Proxy.DIRECT: sample(1000), Proxy.SOCKETS: sample(0, count=0)}
    warm = {Proxy.DIRECT: sample(1000), Proxy.SOCKETS: sample(1100)}
    found = compare(series(cold, warm, warm))
    assert (found.rounds, found.left_out) == (2, 1)
    with pytest.raises(Unavailable, match="1 of 2 rounds can be used"):
        compare(series(cold, warm))
