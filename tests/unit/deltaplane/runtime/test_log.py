import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from deltaplane.runtime import log


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_an_event_is_one_line_of_json_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json", "info", "ipam")
    log.get().bind(node="n1").info("block_claimed", block="10.0.0.0/26")
    log.get().debug("not_told")
    captured = capsys.readouterr()
    assert captured.out == ""
    [line] = captured.err.splitlines()
    event = json.loads(line)
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "block_claimed",
        "level": "info",
        "process": "ipam",
        "node": "n1",
        "block": "10.0.0.0/26",
    }


def test_libraries_come_out_in_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json", "info", "ipam")
    logging.getLogger("uvicorn.error").warning("odd %s", "request")
    logging.getLogger("uvicorn.error").info("not told")
    [line] = capsys.readouterr().err.splitlines()
    event = json.loads(line)
    assert (event["event"], event["level"], event["process"]) == ("odd request", "warning", "ipam")


def test_the_console_form_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("console", "debug", "ipam")
    log.get().debug("told", count=3)
    err = capsys.readouterr().err
    assert "told" in err
    assert "count=3" in err


def test_an_exception_brings_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json", "info", "ipam")
    try:
        1 / 0  # noqa: B018 - the simplest way to fail
    except ZeroDivisionError:
        log.get().exception("failed")
    event = json.loads(capsys.readouterr().err)
    assert event["exception"][0]["exc_type"] == "ZeroDivisionError"
