import re
from dataclasses import replace
from fractions import Fraction

import pytest

from bench.services import rules
from bench.services.shape import BenchService, services
from deltaplane.model.addresses import format_address

FAMILIES = (4, 6)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def shape(family: int) -> list[BenchService]:
    return list(services(family, large=7, small=3, small_services=4))


def test_shape_is_the_published_one(family: int) -> None:
    found = list(services(family))
    assert sorted({len(service.backends) for service in found}) == [20, 4000]
    assert len(found) == 801
    backends = [backend for service in found for backend in service.backends]
    assert len(backends) == len(set(backends)) == 20_000


def test_a_shape_that_does_not_fit_is_refused(family: int) -> None:
    with pytest.raises(ValueError, match="65,534"):
        list(services(family, small=100))


def test_iptables_draws_every_backend_with_the_same_probability(family: int) -> None:
    found = shape(family)
    text = rules.iptables(found, family)
    for service in found:
        own = [
            line for line in text.splitlines() if line.startswith(f"-A KUBE-SVC-{service.number} ")
        ]
        draws = [line for line in own if "KUBE-SEP" in line]
        assert len(draws) == len(service.backends)
        left = Fraction(1)
        for line in draws:
            stated = re.search(r"--probability ([0-9.]+)", line)
            share = Fraction(stated[1]) if stated else Fraction(1)
            assert float(left * share) == pytest.approx(1 / len(draws), rel=1e-6)
            left *= 1 - share
        assert left == 0


def test_iptables_translates_to_every_backend(family: int) -> None:
    found = shape(family)
    text = rules.iptables(found, family)
    targets = re.findall(r"--to-destination (\S+)", text)
    assert len(targets) == len(set(targets)) == sum(len(service.backends) for service in found)
    for service in found:
        assert f"-d {format_address(service.address)}/" in text


def test_a_sync_writes_what_has_changed_and_the_way_to_all(family: int) -> None:
    found = shape(family)
    changed = replace(found[1], backends=(found[0].backends[0], *found[1].backends[1:]))
    text = rules.iptables_change((found[0], changed, *found[2:]), [changed], family)
    whole = rules.iptables((found[0], changed, *found[2:]), family).splitlines()
    lines = text.splitlines()
    # Besides its table, all of it stands in what would be written anew.
    assert [line for line in lines if line not in whole] == []
    assert sum(line.startswith("-A KUBE-SERVICES ") for line in lines) == len(found)
    own = {line for line in whole if re.search(rf"KUBE-(SVC|SEP)-{changed.number}\b", line)}
    assert own <= set(lines)
    others = {line for line in lines if line not in own}
    assert not [
        line
        for line in others
        if line.startswith(("-A KUBE-SVC", "-A KUBE-SEP", ":KUBE-S"))
        and not line.startswith(":KUBE-SERVICES")
    ]


def test_nftables_finds_every_service_by_one_lookup(family: int) -> None:
    found = shape(family)
    text = rules.nftables(found, family)
    elements = re.search(r"elements = \{ (.*) \}", text)
    assert elements
    for service in found:
        element = f"{format_address(service.address)} . tcp . 80 : goto service-{service.number}"
        assert element in elements[1].split(", ")
        draws = f"numgen random mod {len(service.backends)} vmap"
        chain = text.split(f"chain service-{service.number} {{")[1].split("}")[0]
        assert draws in chain
    assert text.count("dnat to") == sum(len(service.backends) for service in found)
