"""The report for people: one row for each figure, one column for each mode. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

Report = Mapping[str, Any]

ROWS: Sequence[tuple[str, Sequence[str], str]] = (
    ("cold: last agent in sync, ms", ("cold", "in_sync_ms"), ".0f"),
    ("cold: bytes per agent", ("cold", "bytes_per_agent"), ",.0f"),
    ("cold: server CPU, ms", ("cold", "server_cpu_ms"), ",.0f"),
    ("server memory, MiB", ("cold", "server_rss_bytes"), "MiB"),
    ("server memory per agent, KiB", ("cold", "server_bytes_per_agent"), "KiB"),
    *(
        row
        for load, title in (
            ("churn", "churn"),
            ("rolling", "rolling update"),
            ("cl2", "ClusterLoader2"),
        )
        for row in (
            (f"{title}: changes per second", (load, "changes_per_second"), ".0f"),
            (f"{title}: commit → applied p50, ms", (load, "applied", "p50_ms"), ".1f"),
            (f"{title}: commit → applied p90, ms", (load, "applied", "p90_ms"), ".1f"),
            (f"{title}: commit → applied p99, ms", (load, "applied", "p99_ms"), ".1f"),
            (f"{title}: last agent p50, ms", (load, "last_agent", "p50_ms"), ".1f"),
            (f"{title}: last agent p99, ms", (load, "last_agent", "p99_ms"), ".1f"),
            (f"{title}: last agent max, ms", (load, "last_agent", "max_ms"), ".1f"),
            (f"{title}: grpc.aio agents p50, ms", (load, "control_applied", "p50_ms"), ".1f"),
            (f"{title}: grpc.aio agents p99, ms", (load, "control_applied", "p99_ms"), ".1f"),
            (f"{title}: etcd's commit p50, ms", (load, "etcd_commit", "p50_ms"), ".1f"),
            (f"{title}: bytes per agent", (load, "bytes_per_agent"), ",.0f"),
            (
                f"{title}: bytes per change and agent",
                (load, "bytes_per_change_per_agent"),
                ".1f",
            ),
            (
                f"{title}: messages per change and agent",
                (load, "messages_per_change_per_agent"),
                ".3f",
            ),
            (f"{title}: server CPU, ms", (load, "server_cpu_ms"), ",.0f"),
            (f"{title}: server CPU per change, µs", (load, "server_cpu_us_per_change"), ",.0f"),
            (f"{title}: share of CPU for agents", (load, "agents_share_of_cpu"), ".2f"),
            (f"{title}: etcd reads", (load, "etcd_reads"), ".0f"),
            (f"{title}: etcd transactions", (load, "etcd_transactions"), ".0f"),
            (
                f"{title}: of them not of the load",
                (load, "etcd_transactions_not_of_the_load"),
                ".0f",
            ),
            (f"{title}: etcd watches", (load, "etcd_watches"), ".0f"),
        )
    ),
    ("LIST of every endpoint p50, ms", ("list", "p50_ms"), ".1f"),
    ("LIST of every endpoint p99, ms", ("list", "p99_ms"), ".1f"),
    ("churn while listed: commit → applied p99, ms", ("churn_listed", "applied", "p99_ms"), ".1f"),
    ("pod start p50, ms", ("startup", "start", "p50_ms"), ".1f"),
    ("pod start p99, ms", ("startup", "start", "p99_ms"), ".1f"),
    ("first ping from everywhere p50, ms", ("startup", "first_ping", "p50_ms"), ".1f"),
    ("first ping from everywhere p99, ms", ("startup", "first_ping", "p99_ms"), ".1f"),
    ("endpoint changes per write, registered together", ("peak", "changes_per_write"), ".1f"),
    ("all streams cut: in sync, ms", ("reconnect", "in_sync_ms"), ".0f"),
    ("all streams cut: snapshots", ("reconnect", "snapshots"), ".0f"),
    ("all streams cut: memory growth", ("reconnect", "memory_growth"), ".1%"),
    ("spoiled entry found, max ms", ("corruption", "found", "max_ms"), ".0f"),
    ("found to mended, max ms", ("corruption", "found_to_mended", "max_ms"), ".0f"),
    ("buckets replaced for it, at most", ("corruption", "buckets_replaced_at_most"), ".0f"),
    ("saturated at changes per second", ("saturation", "changes_per_second"), ".0f"),
    *(
        row
        for count in (2_000, 20_000)
        for row in (
            (
                f"{count:,} at once: last agent has all, ms",
                (f"registered_{count}", "last_agent_has_all_ms"),
                ",.0f",
            ),
            (
                f"{count:,} at once: last acknowledgement, ms",
                (f"registered_{count}", "last_acknowledgement_ms"),
                ",.0f",
            ),
        )
    ),
    ("agents compared with etcd", ("verified", "agents"), ".0f"),
    ("differences", ("verified", "differences"), ".0f"),
)

ABSENT = "-"


def look_up(found: object, path: Sequence[str]) -> float | None:
    """The number at a path of a report; None: it is not there."""
    for name in path:
        if not isinstance(found, Mapping) or name not in found:
            return None
        found = found[name]
    return float(found) if isinstance(found, int | float) else None


def text(value: float | None, form: str) -> str:
    """A number as it is shown."""
    match form:
        case _ if value is None:
            return ABSENT
        case "MiB":
            return f"{value / (1 << 20):,.1f}"
        case "KiB":
            return f"{value / 1024:,.1f}"
        case _:
            return format(value, form)


def tables(report: Report) -> Iterator[Table]:
    """All of a report."""
    modes: Mapping[str, Any] = report["modes"]
    settings = report["settings"]
    main = Table(title=f"{settings['nodes']} agents, {settings['pods']} pods")
    main.add_column("what")
    for title in modes:
        main.add_column(title, justify="right")
    for name, path, form in ROWS:
        values = [look_up(mode, path) for mode in modes.values()]
        if any(value is not None for value in values):
            main.add_row(name, *(text(value, form) for value in values))
    yield main
    yield from _curve("Bytes per change and agent, by changes per write", modes, "batches")
    yield from _rates(modes)
    yield from _memory(modes)


def _curve(title: str, modes: Mapping[str, Any], part: str) -> Iterator[Table]:
    curves = {name: mode[part] for name, mode in modes.items() if part in mode}
    if not curves:
        return
    made = Table(title=title)
    made.add_column("changes")
    for name in curves:
        made.add_column(name, justify="right")
    ours = [name for name in curves if name.startswith("delta")]
    for name in ours:
        made.add_column(f"slice : {name}", justify="right")
    for number, point in enumerate(next(iter(curves.values()))):
        sizes = {name: one[number]["bytes_per_change_per_agent"] for name, one in curves.items()}
        ratios = [
            f"{sizes['slice'] / sizes[name]:.1f}" if sizes.get("slice") and sizes[name] else ABSENT
            for name in ours
        ]
        shown = [f"{size:.1f}" for size in sizes.values()]
        made.add_row(str(point["changes_per_write"]), *shown, *ratios)
    yield made


def _rates(modes: Mapping[str, Any]) -> Iterator[Table]:
    part = "at_shares_of_saturation"
    if not any(part in mode for mode in modes.values()):
        return
    made = Table(title="Churn at shares of the saturation of mode endpoint")
    for heading in ("mode", "share", "changes/s", "p50 ms", "p99 ms", "last p99 ms", "CPU µs"):
        made.add_column(heading, justify="right")
    for name, mode in modes.items():
        for point in mode.get(part, ()):
            made.add_row(
                name,
                f"{point['share']:g}",
                f"{point['rate']:.0f}",
                text(look_up(point, ("applied", "p50_ms")), ".1f"),
                text(look_up(point, ("applied", "p99_ms")), ".1f"),
                text(look_up(point, ("last_agent", "p99_ms")), ".1f"),
                text(look_up(point, ("server_cpu_us_per_change",)), ",.0f"),
            )
    yield made


def _memory(modes: Mapping[str, Any]) -> Iterator[Table]:
    if not any("memory" in mode for mode in modes.values()):
        return
    made = Table(title="Memory of the server")
    for heading in ("mode", "endpoints", "agents", "MiB", "KiB per agent"):
        made.add_column(heading, justify="right")
    for name, mode in modes.items():
        for point in mode.get("memory", ()):
            made.add_row(
                name,
                f"{point['endpoints']:,}",
                str(point["agents"]),
                text(point["server_rss_bytes"], "MiB"),
                text(point["server_bytes_per_agent"], "KiB"),
            )
    yield made
