"""What a process imports before it knows its options: each module is CPU at every start."""

import os
import subprocess
import sys

import pytest

PROGRAMS = ("nodeagent", "services.endpoints", "services.ipam", "services.slicer")

# Each was there once, for a tenth of a start or more. What needs one of them imports it then:
# answers to admin HTTP, tracebacks in colour, spans, a file of options, the command line.
HEAVY = ("click", "httpx", "opentelemetry", "pyroute2", "rich", "starlette", "uvicorn", "yaml")

SCRIPT = """
import gc, runpy, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1] + ".config":
            print("collects", gc.isenabled())

sys.meta_path.insert(0, Watch())
sys.argv[0:2] = [sys.argv[0], sys.argv[1]]
try:
    runpy.run_module(sys.argv[1], run_name="__main__", alter_sys=False)
except SystemExit as end:
    print("code", end.code)
print("modules", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def started(program: str) -> dict[str, list[str]]:
    """What a program has imported when it has printed its help."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, program, "--help"],
        capture_output=True,
        text=True,
        env=os.environ,
        timeout=50,
        check=True,
    )
    words = [line.split() for line in done.stdout.splitlines()]
    return {
        line[0]: line[1:] for line in words if line and line[0] in {"collects", "code", "modules"}
    }


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_process_imports_nothing_that_it_may_not_need(program: str) -> None:
    seen = started(program)

    assert seen["code"] == ["0"]
    assert "grpc" in seen["modules"]
    assert set(HEAVY) & set(seen["modules"]) == set()
    # Collecting would look at everything that is imported, over and over.
    assert seen["collects"] == ["False"]


def test_a_process_that_serves_collects_again() -> None:
    code = (
        "import gc, asyncio; from deltaplane.runtime import interpreter, service; "
        "interpreter.loading(); "
        "main = asyncio.sleep(0); "
        "assert service.run(main) == 0; "
        "print(gc.isenabled(), gc.get_freeze_count() > 10_000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ,
        timeout=50,
        check=True,
    )
    assert done.stdout == "True True\n"
