"""Carries out faults on a lab, and ends them all."""

import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from lab import Lab, processes
from lab.processes import ProcessId
from lab.programs import SERVICES, agent_name, numbered
from tests.chaos import clocks
from tests.chaos.disk import SmallDisk
from tests.chaos.partition import Bridge
from tests.chaos.pings import Cut
from tests.chaos.story import Cast, Event, Fault, Kind

DUE_SECONDS = 0.5
"""An event that is late by more than this is told: the machine does not keep up."""


class Faults:
    """What is wrong with a lab just now.

    Args:
        lab: the lab.
        disk: that of one node.
        clock_folder: see `clocks`.
    """

    def __init__(self, lab: Lab, disk: SmallDisk, clock_folder: Path) -> None:
        self.cuts: list[Cut] = []
        self._lab = lab
        self._disk = disk
        self._clock_folder = clock_folder
        self._management = Bridge(lab.topology.control)
        self._fabric = Bridge(lab.topology.fabric)
        self._frozen: dict[int, ProcessId] = {}
        self._jumped: dict[int, tuple[int, float]] = {}
        self._began: dict[int, float] = {}

    def happen(self, event: Event) -> str:
        """Lets a fault begin or end; what came of it, for people."""
        return self._end(event.fault) if event.ends else self._begin(event.fault)

    def _begin(self, fault: Fault) -> str:
        self._began[fault.number] = time.monotonic()
        match fault.kind:
            case Kind.KILL:
                return self._signal(fault, signal.SIGKILL)
            case Kind.FREEZE:
                return self._signal(fault, signal.SIGSTOP)
            case Kind.CUT_MANAGEMENT:
                self._management.cut(fault.target, fault.way)
            case Kind.CUT_UPLINK:
                self._fabric.cut(fault.target, fault.way)
            case Kind.FILL_DISK:
                return f"{self._disk.fill() >> 10} KiB"
            case Kind.JUMP_CLOCK:
                return self._jump(fault)
        return ""

    def _end(self, fault: Fault) -> str:
        match fault.kind:
            case Kind.FREEZE:
                frozen = self._frozen.pop(fault.number, None)
                if frozen is not None:
                    processes.send(frozen, signal.SIGCONT)
            case Kind.CUT_MANAGEMENT:
                self._management.heal(fault.target, fault.way)
            case Kind.CUT_UPLINK:
                self._fabric.heal(fault.target, fault.way)
                self._note_cut(fault)
            case Kind.FILL_DISK:
                self._disk.free()
            case Kind.JUMP_CLOCK:
                self._set_right(fault.number)
            case Kind.KILL:
                pass
        return ""

    def _note_cut(self, fault: Fault) -> None:
        begin = self._began[fault.number]
        self.cuts.append(Cut(node=fault.target, begin=begin, end=time.monotonic()))

    def _signal(self, fault: Fault, number: signal.Signals) -> str:
        found = self._lab.status().processes[fault.target].process
        if found is None or not processes.send(found, number):
            return "it was not running"
        if number == signal.SIGSTOP:
            self._frozen[fault.number] = found
        return ""

    def _jump(self, fault: Fault) -> str:
        found = self._lab.status().processes[fault.target].process
        if found is None:
            return "it was not running"
        try:
            clocks.jump(self._clock_folder, found.pid, fault.jump)
        except FileNotFoundError:
            return "it was just starting"
        if fault.seconds:
            self._jumped[fault.number] = (found.pid, fault.jump)
        return ""

    def _set_right(self, number: int) -> None:
        pid, seconds = self._jumped.pop(number, (0, 0.0))
        if pid:
            clocks.jump(self._clock_folder, pid, -seconds)

    def heal(self) -> None:
        """Ends everything that was begun, whatever state it is in. Idempotent."""
        for frozen in self._frozen.values():
            processes.send(frozen, signal.SIGCONT)
        self._frozen.clear()
        for number in tuple(self._jumped):
            self._set_right(number)
        self._disk.free()
        for bridge in (self._management, self._fabric):
            bridge.heal_all()


def cast_of(lab: Lab) -> Cast:
    """Whom a story can hit."""
    plan = lab.topology
    return Cast(
        etcd=tuple(numbered("etcd", number) for number in range(1, plan.members + 1)),
        services=tuple(
            numbered(name, number) for name in SERVICES for number in range(1, plan.replicas + 1)
        ),
        agents={node.name: agent_name(node.name) for node in plan.nodes},
        small_disk=plan.nodes[-1].name,
    )


def play(faults: Faults, events: Iterable[Event], tell: Callable[[str], None]) -> None:
    """Lets events happen at their times."""
    started = time.monotonic()
    for event in events:
        time.sleep(max(0.0, started + event.at - time.monotonic()))
        came = faults.happen(event)
        late = time.monotonic() - started - event.at
        text = f"end of {event.fault}" if event.ends else str(event.fault)
        text += f": {came}" if came else ""
        tell(text + (f" ({late:.1f} s late)" if late > DUE_SECONDS else ""))
