import pytest

from deltaplane.runtime import config
from services.kubernetes.config import Config
from services.kubernetes.kinds import Kind


def load(*flags: str) -> Config:
    return config.load(Config, ["--insecure", *flags])


def test_defaults() -> None:
    settings = load()
    assert settings.kinds == tuple(Kind)
    assert settings.lease_seconds == 10
    assert settings.slicer == ()


def test_kinds_that_are_left_out() -> None:
    settings = load("--unwatch", "AdminNetworkPolicy,CiliumNetworkPolicy", "--unwatch", "Service")
    assert set(Kind) - set(settings.kinds) == {Kind.ADMIN, Kind.CILIUM, Kind.SERVICE}


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--unwatch", "Deployment"), "'Deployment' is none of Node, Namespace"),
        (("--unwatch", "Pod"), "namespaces and pods are always watched"),
        (("--lease-name", "a b"), '--lease-name (DELTAPLANE_LEASE_NAME): "a b"'),
        (("--lease-seconds", "1"), "--lease-seconds (DELTAPLANE_LEASE_SECONDS)"),
    ],
)
def test_mistakes(flags: tuple[str, ...], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load(*flags)
    assert text in capsys.readouterr().err
