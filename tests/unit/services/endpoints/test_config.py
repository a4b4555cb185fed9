import pytest

from deltaplane.runtime.config import load
from services.endpoints.config import Config
from services.endpoints.identity import LabelFilter
from services.endpoints.ranges import DEFAULT_RANGES, PortRange


def test_excluded_labels_are_added_to_the_defaults() -> None:
    config = load(Config, ["--exclude-label", "build", "--exclude-label", "ci.example.com/*"])
    labels = config.label_filter
    kept = ["app", "build", "ci.example.com/run", "pod-template-hash"]
    assert [key for key in kept if labels.keeps(key)] == ["app"]
    assert load(Config, []).label_filter == LabelFilter()


def test_services_have_ranges_of_both_families_unless_told_otherwise() -> None:
    assert load(Config, []).ranges == DEFAULT_RANGES
    words = ["--service-range", "fd00::/112,10.9.0.0/24", "--node-port-range", "20000-20999"]
    ranges = load(Config, words).ranges
    assert [str(prefix) for prefix in ranges.prefixes] == ["fd00::/112", "10.9.0.0/24"]
    assert ranges.families == (6, 4)
    assert ranges.node_ports == PortRange(20000, 20999)


@pytest.mark.parametrize(
    "words",
    [
        ["--service-range", "10.9.0.0/24,10.10.0.0/24"],
        ["--service-range", "10.9.0.1/24"],
        ["--node-port-range", "30000"],
    ],
)
def test_ranges_that_cannot_be_end_the_process(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        load(Config, words)
    assert ended.value.code == 2
    assert words[0] in capsys.readouterr().err
