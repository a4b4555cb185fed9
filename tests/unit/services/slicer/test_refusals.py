from services.slicer import refusals
from services.slicer.refusals import Refusals


def test_a_node_is_news_once_a_minute() -> None:
    said = Refusals()
    assert said.is_news("node-1", 0.0)
    assert not said.is_news("node-1", 59.0)
    assert said.is_news("node-2", 59.0)
    assert said.is_news("node-1", 60.0)
    assert not said.is_news("node-1", 61.0)


def test_strangers_do_not_fill_memory() -> None:
    said = Refusals()
    for number in range(refusals.NODES_AT_MOST + 5):
        said.is_news(f"stranger-{number}", 0.0)
    assert len(said._said_at) == refusals.NODES_AT_MOST
    assert said.is_news("stranger-0", 1.0), "the oldest was forgotten"
