from deltaplane.runtime.config import load
from services.endpoints.config import Config
from services.endpoints.identity import LabelFilter


def test_excluded_labels_are_added_to_the_defaults() -> None:
    config = load(Config, ["--exclude-label", "build", "--exclude-label", "ci.example.com/*"])
    labels = config.label_filter
    kept = ["app", "build", "ci.example.com/run", "pod-template-hash"]
    assert [key for key in kept if labels.keeps(key)] == ["app"]
    assert load(Config, []).label_filter == LabelFilter()
