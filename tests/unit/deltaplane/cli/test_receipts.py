import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from deltaplane.cli import progress
from deltaplane.cli.enforcement import Receipt, Subject
from deltaplane.v1 import receipts_pb2
from tests.unit.deltaplane.cli.conftest import Cluster, Run
from tests.unit.deltaplane.cli.test_commands import POLICY, receipt


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        (("policy", "shop/web"), receipts_pb2.WatchRequest(policy="shop/web")),
        (("endpoint", "shop/web-1"), receipts_pb2.WatchRequest(endpoint="shop/web-1")),
        (("revision", "77"), receipts_pb2.WatchRequest(revision=77)),
    ],
)
def test_one_receipt_of_one_thing(
    cluster: Cluster, run: Run, words: tuple[str, str], request_: receipts_pb2.WatchRequest
) -> None:
    cluster.receipts = [receipt(1, "node-2")]

    done = run("get", "receipts", *words, "-o", "json")

    assert done.code == 0
    assert cluster.watched == [request_]
    record = json.loads(done.out)
    assert record["subject"] == " ".join(words)
    assert (record["enforced"], record["nodes"], record["complete"]) == (1, 2, False)
    assert record["missing"] == ["node-2 (lagging)"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("policy", "web"), "NAMESPACE/NAME"),
        (("endpoint", "/web"), "NAMESPACE/NAME"),
        (("revision", "forty"), "number from 1 on"),
        (("revision", "0"), "number from 1 on"),
        (("revision", str(2**63)), "number from 1 on"),
        (("pool", "shop/web"), "none of policy, endpoint, revision"),
    ],
)
def test_what_has_no_receipts_is_refused(
    cluster: Cluster, run: Run, words: tuple[str, str], reason: str
) -> None:
    done = run("get", "receipts", "--wait", *words)

    assert done.code == 1
    assert reason in done.err
    assert cluster.watched == []


def test_waiting_tells_each_receipt_and_ends_with_the_last_node(cluster: Cluster, run: Run) -> None:
    cluster.receipts = [receipt(0, "node-1", "node-2"), receipt(1, "node-2"), receipt(2)]

    done = run("get", "receipts", "policy", "shop/web", "--wait")

    assert done.code == 0
    assert cluster.watched[0].wait
    assert "enforced 0/2 nodes" in done.err
    assert "enforced 1/2 nodes at revision 40, missing: node-2 (lagging)" in done.err
    assert "enforced 2/2" not in done.err
    assert done.out.startswith("policy shop/web: enforced 2/2 nodes at revision 40 after")


def test_waiting_as_json_is_one_line_for_each_receipt(cluster: Cluster, run: Run) -> None:
    cluster.receipts = [receipt(1, "node-2"), receipt(2)]

    done = run("get", "receipts", "revision", "40", "--wait", "-o", "json")

    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [(line["enforced"], line["complete"]) for line in lines] == [(1, False), (2, True)]
    assert 0 < lines[0]["milliseconds"] <= lines[1]["milliseconds"]
    assert done.err == ""


def test_what_is_not_in_force_in_time_is_told(cluster: Cluster, run: Run) -> None:
    cluster.receipts = [receipt(1, "node-2")]

    done = run("get", "receipts", "endpoint", "shop/web", "--wait", "--timeout", "0.4")

    assert done.code == 3
    assert "after 0.4 s: enforced 1/2 nodes at revision 40, missing: node-2" in done.err


def test_an_absent_policy_is_told_at_once(run: Run) -> None:
    done = run("get", "receipts", "policy", "shop/nope", "--wait")

    assert done.code == 1
    assert "there is no policy 'shop/nope'" in done.err


def test_waiting_for_everything_needs_a_name(run: Run) -> None:
    done = run("get", "receipts", "--wait")

    assert done.code == 1
    assert "name what to wait for" in done.err


def test_policy_apply_as_json_streams_too(cluster: Cluster, run: Run, tmp_path: Path) -> None:
    cluster.receipts = [receipt(1, "node-2"), receipt(2)]
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)

    done = run("policy", "apply", "-f", str(file), "--wait", "-o", "json")

    stored, *receipts = (json.loads(line) for line in done.out.splitlines())
    assert stored == {"applied": ["shop/web"], "revision": 41}
    assert [line["complete"] for line in receipts] == [False, True]
    assert run("policy", "apply", "-f", str(file), "-o", "yaml").code == 1


def test_a_terminal_gets_a_bar() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, color_system=None)
    with progress._watching(console) as tell:
        tell(
            Receipt(
                revision=40, enforced=1, total=3, missing=("a",), complete=False, milliseconds=1
            )
        )
        # The bar draws by itself now and then; ending it draws what is known.
    assert "1/3 nodes" in screen.getvalue()


@pytest.mark.parametrize(
    "subject", [Subject(policy="a/b"), Subject(endpoint="a/b"), Subject(revision=3)]
)
def test_a_subject_reads_as_it_is_written(subject: Subject) -> None:
    assert Subject.read(*str(subject).split(" ")) == subject
