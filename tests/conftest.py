"""What every test run has: its markers, its seed, and a list of what it left out."""

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

import deltaplane  # noqa: F401 - before any test imports grpc
from tests import machine, together

TESTS = Path(__file__).parent

# Processes under test, in this one and in others, work in plain text unless a test says otherwise.
os.environ["DELTAPLANE_INSECURE"] = "1"

MARKERS = (
    "root: needs CAP_SYS_ADMIN and CAP_NET_ADMIN (network namespaces, BPF); else skipped",
    "serial: runs alone, after the tests that run three at a time (`make test` runs -n 3)",
)

# Every test in these folders of tests/ makes namespaces or loads BPF programs.
ROOT_FOLDERS = frozenset({"bpf", "netns", "e2e", "chaos"})

# Bits of the capability mask, from linux/capability.h.
CAP_NET_ADMIN = 12
CAP_SYS_ADMIN = 21

# How long an example takes depends on who else uses the machine.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

LEFT_OUT = "needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN)"


def has_capabilities() -> bool:
    """Root in a container may lack what root means here, so the mask is asked, not the user id."""
    status = Path("/proc/self/status").read_text()
    mask = next(line for line in status.splitlines() if line.startswith("CapEff:")).split()[1]
    return all(int(mask, 16) >> bit & 1 for bit in (CAP_NET_ADMIN, CAP_SYS_ADMIN))


# First: Hypothesis and xdist read the seed when they configure themselves.
@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    # One seed for the run, drawn here so that it can be printed; xdist hands it to its workers.
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(random.SystemRandom().randrange(2**32))
    if hasattr(config, "workerinput") and has_capabilities():
        machine.leave()


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """A process under test sets the level that it logs from; the next test may count its lines."""
    yield
    structlog.reset_defaults()


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    return together.Scheduling(config, log) if config.getvalue("dist") == "loadscope" else None


def pytest_report_header(config: pytest.Config) -> str:
    return f"repeat with: --hypothesis-seed={config.option.hypothesis_seed}"


# First: `-m "not serial"` must already see the markers.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    allowed = has_capabilities()
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in ROOT_FOLDERS:
            item.add_marker("root")
        if not allowed and item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason=LEFT_OUT))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    left_out = Counter(
        str(Path(report.nodeid.split("::")[0]).parent)
        for report in skipped
        if LEFT_OUT in str(report.longrepr)
    )
    for folder, count in sorted(left_out.items()):
        terminalreporter.write_line(f"left out: {count} in {folder}/: {LEFT_OUT}", yellow=True)
