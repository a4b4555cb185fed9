import asyncio
import json
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from deltaplane.cli import admin
from deltaplane.errors import Internal
from deltaplane.runtime import config as configs
from deltaplane.runtime import trace, tracing
from deltaplane.runtime.config import ProcessConfig
from deltaplane.runtime.recording import SdkRecorder
from tests.unit.deltaplane.runtime.conftest import Echo, running

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOT_SAMPLED = SAMPLED[:-1] + "0"


def recorder(ratio: float = 1.0, *, ring_spans: int = 100, collector: str = "") -> SdkRecorder:
    return SdkRecorder(
        process="test", instance="n1", ratio=ratio, ring_spans=ring_spans, collector=collector
    )


@pytest.fixture
def recorded() -> Iterator[None]:
    with tracing.recording(recorder()):
        yield


def finished(trace_id: str = "") -> list[dict[str, Any]]:
    answer: Any = tracing.finished(trace_id)
    return list(answer["spans"])


def test_without_a_recorder_nothing_happens() -> None:
    with tracing.root("a") as root, tracing.child("b") as child:
        root.note({"pod": "x"})
        child.fail("no")
        assert (root.traceparent, child.traceparent, tracing.metadata()) == ("", "", None)
    with tracing.continued("c", SAMPLED) as continued, tracing.shared("d", [SAMPLED]) as shared:
        assert (continued.traceparent, shared.traceparent) == ("", "")
    tracing.record("e", tracing.some_of([SAMPLED]), start_ns=1, end_ns=2)
    assert tracing.finished() == {"ratio": 0.0, "spans": []}


def test_the_ratio_decides_about_traces_that_start_here_and_no_others() -> None:
    with tracing.recording(recorder(ratio=0.25, ring_spans=10_000)):
        for _ in range(2000):
            with tracing.root("root"), tracing.child("child"):
                pass
        spans = finished()
        roots = [span for span in spans if span["name"] == "root"]
        # 500 are expected, the standard deviation is 19: one run in 10^9 is outside.
        assert 380 < len(roots) < 620
        assert len(spans) == 2 * len(roots)
        with tracing.continued("callee", SAMPLED) as span:
            assert span.traceparent


@pytest.mark.usefixtures("recorded")
def test_children_know_their_parents_also_in_tasks() -> None:
    async def story() -> None:
        with tracing.root("add"):
            async with asyncio.TaskGroup() as group:
                group.create_task(part("link"))
                group.create_task(part("register"))
            with tracing.child("policy"):
                pass

    async def part(name: str) -> None:
        with tracing.child(name):
            await asyncio.sleep(0)

    asyncio.run(story())

    spans = {span["name"]: span for span in finished()}
    assert list(spans) == ["link", "register", "policy", "add"]
    assert spans["add"]["parent"] == ""
    for name in ("link", "register", "policy"):
        assert spans[name]["parent"] == spans["add"]["span"]
        assert spans[name]["trace"] == spans["add"]["trace"]
    assert tracing.metadata() is None


@pytest.mark.usefixtures("recorded")
def test_a_call_carries_the_current_span() -> None:
    with tracing.root("add"), tracing.child("register") as span:
        assert tracing.metadata() == (("traceparent", span.traceparent),)
    parsed = trace.parse(span.traceparent)
    assert parsed is not None
    assert parsed.sampled
    assert parsed.span_id == finished()[0]["span"]


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("text", ["", "nonsense", NOT_SAMPLED])
def test_what_is_not_sampled_is_not_continued(text: str) -> None:
    with tracing.continued("callee", text) as span:
        assert span.traceparent == ""
    with tracing.shared("batch", [text, text]) as span:
        assert span.traceparent == ""
    assert finished() == []


@pytest.mark.usefixtures("recorded")
def test_a_caller_s_trace_goes_on() -> None:
    with tracing.continued("callee", SAMPLED, {"endpoints": 3}):
        pass
    (span,) = finished(SAMPLED[3:35])
    assert (span["trace"], span["parent"]) == (SAMPLED[3:35], SAMPLED[36:52])
    assert (span["process"], span["instance"]) == ("test", "n1")
    assert span["attributes"] == {"endpoints": 3}
    assert finished("1" * 32) == []


@pytest.mark.usefixtures("recorded")
def test_shared_work_is_the_first_one_s_and_names_sixteen_others() -> None:
    parents = [str(trace.make(sampled=True)) for _ in range(30)]
    with tracing.shared("transaction", ["", NOT_SAMPLED, *parents, parents[1]]):
        pass
    (span,) = finished()
    assert span["trace"] == parents[0][3:35]
    assert [link["trace"] for link in span["links"]] == [text[3:35] for text in parents[1:17]]
    # Also who asks for a linked trace gets it.
    assert finished(parents[16][3:35]) == [span]
    assert finished(parents[17][3:35]) == []


@pytest.mark.usefixtures("recorded")
def test_a_failure_is_told_and_goes_on() -> None:
    with pytest.raises(Internal), tracing.root("add"), tracing.child("link"):
        raise Internal("no such device")
    assert [span["error"] for span in finished()] == ["no such device"] * 2


@pytest.mark.usefixtures("recorded")
def test_what_is_over_is_recorded_with_its_times() -> None:
    tracing.record(
        "tick",
        tracing.some_of([SAMPLED]),
        start_ns=1_000,
        end_ns=9_000,
        events=(("cut", 3_000),),
        attributes={"changes": 2},
    )
    (span,) = finished()
    assert (span["start_unix_ns"], span["end_unix_ns"]) == (1_000, 9_000)
    assert span["events"] == [{"name": "cut", "unix_ns": 3_000}]


def test_the_ring_keeps_the_last_spans() -> None:
    with tracing.recording(recorder(ring_spans=3)):
        for number in range(10):
            with tracing.root(f"add {number}"):
                pass
        assert [span["name"] for span in finished()] == ["add 7", "add 8", "add 9"]


async def test_the_admin_server_tells_finished_spans(config: ProcessConfig) -> None:
    always = config.model_copy(update={"trace_ratio": 1.0})
    async with running(always, Echo()):
        with tracing.root("add") as span:
            trace_id = span.traceparent[3:35]
        with tracing.root("other"):
            pass
        found = await asyncio.to_thread(admin.get, config.admin, f"/traces?trace={trace_id}")
        assert [item["name"] for item in found["spans"]] == ["add"]
        everything = await asyncio.to_thread(admin.get, config.admin, "/traces")
        assert len(everything["spans"]) == 2
        assert everything["ratio"] == 1.0
        with pytest.raises(Internal, match="32 digits"):
            await asyncio.to_thread(admin.get, config.admin, "/traces?trace=zz")
    assert not tracing.is_on()


async def test_a_process_without_traces_says_so(config: ProcessConfig) -> None:
    never = config.model_copy(update={"trace_ratio": 0.0})
    async with running(never, Echo()):
        assert not tracing.is_on()
        found = await asyncio.to_thread(admin.get, config.admin, "/traces")
        assert found == {"ratio": 0.0, "spans": []}


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.names: list[str] = []
        self.services: set[str] = set()

    def Export(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - as grpc calls it
        for resource in request.resource_spans:
            facts = {item.key: item.value.string_value for item in resource.resource.attributes}
            self.services.add(f"{facts['service.name']} {facts['service.instance.id']}")
            for scope in resource.scope_spans:
                self.names += [span.name for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


def test_a_collector_gets_the_spans_before_the_process_ends() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    collector = Collector()
    add: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        spans = tracing.recording(recorder(collector=f"127.0.0.1:{port}"))
        with spans, tracing.root("add"), tracing.child("link"):
            pass
        assert sorted(collector.names) == ["add", "link"]
        assert collector.services == {"deltaplane-test n1"}
    finally:
        server.stop(0)


@pytest.mark.parametrize(("text", "ratio"), [("always", 1.0), ("never", 0.0), ("0.5", 0.5)])
def test_a_ratio_has_words_for_its_ends(text: str, ratio: float) -> None:
    assert configs.load(ProcessConfig, ["--trace-ratio", text]).trace_ratio == ratio


@pytest.mark.parametrize("text", ["1.5", "-0.1", "often"])
def test_a_wrong_ratio_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        configs.load(ProcessConfig, [f"--trace-ratio={text}"])
    assert "--trace-ratio" in capsys.readouterr().err


def test_a_collector_without_the_exporter_is_refused_at_the_start(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert configs.load(ProcessConfig, ["--trace-otlp=127.0.0.1:4317"]).trace_otlp
    monkeypatch.setattr(configs, "OTLP_MODULE", "opentelemetry.exporter.missing.trace_exporter")
    with pytest.raises(SystemExit):
        configs.load(ProcessConfig, ["--trace-otlp=127.0.0.1:4317"])
    assert "pip install 'deltaplane[otlp]'" in capsys.readouterr().err


@pytest.mark.usefixtures("recorded")
def test_answers_are_json() -> None:
    with tracing.root("add", {"pod": "shop/cart", "endpoints": 3, "reused": True}):
        pass
    assert json.loads(json.dumps(finished())) == finished()
