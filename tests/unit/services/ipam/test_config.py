import pytest

from deltaplane.runtime.config import load
from services.ipam.config import Config


def test_pools_come_from_repeated_flags() -> None:
    config = load(Config, ["--pool", "v4=10.244.0.0/16:24", "--pool", "v6=fd00:10:244::/64"])
    assert [(p.name, str(p.prefix), p.block_length) for p in config.pools] == [
        ("v4", "10.244.0.0/16", 24),
        ("v6", "fd00:10:244::/64", 122),
    ]


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--pool", "v4"], "'v4' is not NAME=PREFIX[:BLOCK_LENGTH]"),
        (["--pool", "a=10.0.0.0/8", "--pool", "b=10.1.0.0/16"], "overlaps pool a (10.0.0.0/8)"),
        (["--pool", "a=10.0.0.0/16", "--pool", "a=10.1.0.0/16"], "the name is used twice"),
    ],
)
def test_a_mistake_names_the_flag(
    flags: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        load(Config, flags)
    assert caught.value.code == 2
    complaint = capsys.readouterr().err
    assert "--pool" in complaint
    assert text in complaint
