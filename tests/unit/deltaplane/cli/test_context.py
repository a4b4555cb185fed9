from pathlib import Path

import pytest

from deltaplane.cli.client import Targets
from deltaplane.cli.context import certificate, resolve
from deltaplane.cli.options import Options
from deltaplane.errors import Invalid, NotFound

ALL = {"registry": "r:1", "ipam": "i:1", "slicer": "s:1"}


def targets(**other: str) -> Targets:
    found = {**ALL, **other}
    return Targets(registry=found["registry"], ipam=found["ipam"], slicer=found["slicer"])


def options(lab: str = "", **targets: str) -> Options:
    return Options(lab=lab, targets=targets)


def test_the_only_running_lab_is_meant() -> None:
    assert resolve(options(), {}, ["mine"]) == "mine"


def test_a_flag_wins_over_the_environment_and_that_over_what_runs() -> None:
    environment = {"DELTAPLANE_LAB": "env"}

    assert resolve(options(), environment, ["one", "two"]) == "env"
    assert resolve(options("flag"), environment, ["one"]) == "flag"


def test_targets_win_over_a_running_lab() -> None:
    assert resolve(options(**ALL), {}, ["mine"]) == targets()


def test_targets_may_come_from_the_environment_and_a_flag_wins() -> None:
    environment = {f"DELTAPLANE_{name.upper()}": target for name, target in ALL.items()}

    assert resolve(options(ipam="flag:1"), environment, []) == targets(ipam="flag:1")


def test_a_named_lab_fills_in_what_is_not_given() -> None:
    assert resolve(options("mine", registry="r:1"), {}, []) == "mine"


def test_some_targets_without_a_lab_are_not_enough() -> None:
    with pytest.raises(Invalid, match="also give --ipam, --slicer"):
        resolve(options(registry="r:1"), {}, ["mine"])


def test_several_labs_need_a_name() -> None:
    with pytest.raises(Invalid, match=r"several labs run \(one, two\)"):
        resolve(options(), {}, ["one", "two"])


def test_nothing_at_all_tells_how_to_start_one() -> None:
    with pytest.raises(NotFound, match="deltaplane lab up"):
        resolve(options(), {}, [])


def test_named_services_are_talked_to_by_a_certificate_or_on_purpose_without() -> None:
    folder = {"DELTAPLANE_TLS_DIR": "/env"}
    plain = {"DELTAPLANE_INSECURE": "1"}
    secure = Options(targets=ALL, tls_dir="/flag")
    insecure = Options(targets=ALL, insecure=True)

    assert certificate(secure, folder) == Path("/flag")
    assert certificate(secure, plain) == Path("/flag")
    assert certificate(options(), {**folder, **plain}) == Path("/env"), "when in doubt by one"
    assert certificate(options(), plain) is None
    assert certificate(insecure, folder) is None
    with pytest.raises(Invalid, match="--tls-dir"):
        certificate(options(), {})
    with pytest.raises(Invalid, match="choose one"):
        certificate(Options(targets=ALL, tls_dir="/flag", insecure=True), {})
