"""DEL while the agent is away: answered, remembered, made up for."""

import signal

from tests.netns.node import Node, until
from tests.netns.services_thread import Services


def test_a_delete_without_the_agent_is_made_up_for_at_its_start(
    node: Node, services: Services
) -> None:
    node.start_ready()
    node.add("web")
    node.add("other")
    node.stop(signal.SIGKILL)

    for _ in range(2):
        answer = node.cni("DEL", "web")
        assert (answer.code, answer.document) == (0, {})
    assert len(list(node.spool.iterdir())) == 2
    assert node.cni("STATUS", "").document["code"] == 50
    assert node.cni("ADD", "web").document["code"] == 11
    assert len(node.host_links()) == 2

    node.start()

    until(lambda: len(node.host_links()) == 1, "the link is gone")
    until(lambda: [e.pod for e in services.endpoints()] == ["other"], "the registration is gone")
    assert not list(node.spool.iterdir())


def test_the_registry_may_be_away_as_well(node: Node, services: Services) -> None:
    node.start_ready()
    node.add("web")
    node.stop()
    services.stop("registry")
    assert node.cni("DEL", "web").code == 0

    node.start()
    until(lambda: not node.host_links(), "the link is gone")
    services.start("registry")

    until(lambda: not services.endpoints(), "the registration is gone", 20)


def test_an_add_comes_after_the_delete_that_was_remembered_before_it(node: Node) -> None:
    """A shim was late: its DEL arrived on disk when the agent had looked already."""
    node.start_ready()
    first = node.add("web").addresses
    environment, stdin = node.cni_call("DEL", "web", agentSocket=str(node.directory / "none"))
    assert node.call(environment, stdin).code == 0

    again = node.cni("ADD", "web", ifname="net1")

    assert again.code == 0, again.document
    assert not list(node.spool.iterdir())
    until(lambda: len(node.host_links()) == 1, "the first link is gone")
    assert not set(first) & set(again.addresses)


def test_a_late_delete_is_found_without_an_add(node: Node) -> None:
    node.start_ready()
    node.add("web")
    environment, stdin = node.cni_call("DEL", "web", agentSocket=str(node.directory / "none"))

    assert node.call(environment, stdin).code == 0

    until(lambda: not node.host_links(), "the link is gone", 15)
