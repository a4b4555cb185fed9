from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from lab.pods import SERVES, Phase, Pod, Port
from lab.probing import questions, rows, wrong

A = Pod(
    namespace="x",
    name="a",
    uid="ua",
    node="node-1",
    ports=(Port("TCP", 80, "http"), Port("UDP", 53), Port("SCTP", 99)),
    phase=Phase.RUNNING,
    addresses=("10.0.0.1", "fd00::1"),
)
B = replace(A, name="b", uid="ub", node="node-2", addresses=("10.0.0.2",), ports=(Port("TCP", 81),))


def test_every_pair_port_and_family_is_asked_once_and_no_pod_asks_itself() -> None:
    asked = [(q.source, q.destination, q.port, q.protocol, q.family) for q in questions([A, B])]

    assert asked == [
        ("x/a", "x/b", 81, "TCP", "ipv4"),
        ("x/b", "x/a", 53, "UDP", "ipv4"),
        ("x/b", "x/a", 53, "UDP", "ipv6"),
        ("x/b", "x/a", 80, "TCP", "ipv4"),
        ("x/b", "x/a", 80, "TCP", "ipv6"),
    ]


def test_the_question_says_from_where_and_to_which_address() -> None:
    question = questions([A, B])[0]

    assert (question.source_uid, question.node, question.address) == ("ua", "node-1", "10.0.0.2")


def test_a_port_given_twice_is_asked_once() -> None:
    twice = replace(B, ports=(Port("TCP", 81, "one"), Port("TCP", 81, "two")))

    assert len(questions([A, twice])) == len(questions([A, B]))


def test_pods_that_do_not_run_are_left_out() -> None:
    assert questions([A, replace(B, phase=Phase.ADDING)]) == ()


@given(st.permutations([A, B, replace(A, namespace="y", uid="uy")]))
def test_the_order_of_pods_does_not_matter(pods: list[Pod]) -> None:
    assert questions(pods) == questions(sorted(pods, key=lambda pod: pod.uid))


def test_only_an_answer_of_the_right_pod_counts_as_allowed() -> None:
    asked = questions([A, B])
    outcomes = dict(
        zip(
            asked,
            ["allowed", "timeout", "refused", "wrong: 'x/c' answered", "allowed"],
            strict=True,
        )
    )

    assert [row.allowed for row in rows(asked, outcomes)] == [True, False, False, False, True]
    assert wrong(outcomes) == ("x/b -> x/a TCP/80 (ipv4): wrong: 'x/c' answered",)


def test_a_row_prints_the_documented_keys() -> None:
    asked = questions([A, B])
    row = rows(asked, dict.fromkeys(asked, "allowed"))[0]

    assert row.as_json() == {
        "from": "x/a",
        "to": "x/b",
        "port": 81,
        "protocol": "TCP",
        "family": "ipv4",
        "allowed": True,
    }


def test_the_name_server_is_left_out_and_http_is_asked_in_http() -> None:
    assert questions([A, replace(B, annotations={SERVES: "dns"})]) == ()
    asked = questions([B, replace(A, annotations={SERVES: "http"})])
    assert {(q.destination, q.protocol, q.http) for q in asked} == {
        ("x/a", "TCP", True),
        ("x/a", "UDP", False),
        ("x/b", "TCP", False),
    }
