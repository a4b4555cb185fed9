"""The report as pictures, side by side, if matplotlib is there. It is no dependency of ours."""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.scale.report import look_up

BARS = (
    ("commit → applied p99, ms", ("churn", "applied", "p99_ms")),
    ("last agent p99, ms", ("churn", "last_agent", "p99_ms")),
    ("bytes per change and agent", ("churn", "bytes_per_change_per_agent")),
    ("server CPU per change, µs", ("churn", "server_cpu_us_per_change")),
    ("LIST p50, ms", ("list", "p50_ms")),
    ("pod start p50, ms", ("startup", "start", "p50_ms")),
    ("first ping p50, ms", ("startup", "first_ping", "p50_ms")),
    ("cold: in sync, ms", ("cold", "in_sync_ms")),
)


def draw(report: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """Draws what the report has; says for each file what it is, or why there is none."""
    if find_spec("matplotlib") is None:
        yield "no plots: matplotlib is not installed"
        return
    modes = report["modes"]
    yield _bars(modes, folder / "modes.png")
    if any("batches" in mode for mode in modes.values()):
        yield _curves(modes, folder / "batches.png")
    if any("at_shares_of_saturation" in mode for mode in modes.values()):
        yield _rates(modes, folder / "rates.png")


def _figure(columns: int, rows: int) -> tuple[Any, Any]:
    import matplotlib as mpl  # noqa: PLC0415 - it may not be there
    from matplotlib import pyplot as plt  # noqa: PLC0415

    mpl.use("Agg")
    figure, axes = plt.subplots(
        rows, columns, figsize=(4 * columns, 3.2 * rows), squeeze=False, layout="constrained"
    )
    return figure, axes.flatten()


def _bars(modes: Mapping[str, Any], file: Path) -> str:
    shown = [
        (title, path)
        for title, path in BARS
        if any(look_up(mode, path) is not None for mode in modes.values())
    ]
    figure, axes = _figure(4, max(1, -(-len(shown) // 4)))
    for axis, (title, path) in zip(axes, shown, strict=False):
        values = [look_up(mode, path) or 0.0 for mode in modes.values()]
        bars = axis.bar([name.replace(", ", "\n") for name in modes], values)
        axis.bar_label(bars, fmt="%.4g")
        axis.set_title(title, fontsize=10)
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    figure.savefig(file, dpi=120)
    return f"{file}: the modes side by side"


def _curves(modes: Mapping[str, Any], file: Path) -> str:
    figure, (axis,) = _figure(1, 1)
    for name, mode in modes.items():
        points = mode.get("batches", ())
        sizes = [point["changes_per_write"] for point in points]
        axis.plot(sizes, [p["bytes_per_change_per_agent"] for p in points], "o-", label=name)
    axis.set(xscale="log", yscale="log", xlabel="changes per write", ylabel="bytes per change")
    axis.legend()
    figure.savefig(file, dpi=120)
    return f"{file}: bytes over the size of a write"


def _rates(modes: Mapping[str, Any], file: Path) -> str:
    figure, axes = _figure(2, 1)
    for name, mode in modes.items():
        points = mode.get("at_shares_of_saturation", ())
        rates = [point["rate"] for point in points]
        axes[0].plot(rates, [p["applied"]["p99_ms"] for p in points], "o-", label=name)
        axes[1].plot(rates, [p["server_cpu_us_per_change"] for p in points], "o-", label=name)
    axes[0].set(xscale="log", yscale="log", xlabel="changes per second", ylabel="p99, ms")
    axes[1].set(
        xscale="log", yscale="log", xlabel="changes per second", ylabel="CPU per change, µs"
    )
    axes[0].legend()
    figure.savefig(file, dpi=120)
    return f"{file}: latency and CPU over the rate"
