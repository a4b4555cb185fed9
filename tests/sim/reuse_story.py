"""Stories of `reuse_world`: what goes wrong, in which order, by seed. Also a command: the long run.

python -m tests.sim.reuse_story --cycles 100000
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

from deltaplane.runtime import log
from tests.sim.reuse_node import SimNode
from tests.sim.reuse_plane import Slicer
from tests.sim.reuse_world import World
from tests.sim.violation import Violation

LONG = (1.0, 5.0, 12.0, 30.0, 45.0)
"""How long something stays wrong, seconds: shorter and longer than all the limits there are."""

SETTLE_SECONDS = 90.0


class Story:
    """One seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.world = World(seed)
        self.random = self.world.random

    async def run(self, cycles: int, *, settle: bool = True) -> int:
        """Reuses so many addresses while things go wrong; then all is well and must come to rest.

        Returns:
            How many reuses passed a fenced node that still mapped the address.

        Raises:
            Violation: an address came back too early.
        """
        world = self.world
        await world.start()
        while world.cycles < cycles:
            await world.tick(self.random.choice((0.02, 0.05, 0.1, 0.3, 1.0)))
            await world.use()
            if self.random.random() < 0.15:
                await self.trouble()
            if self.random.random() < 0.02:
                await world.compact()
            await self.reconnect()
        if settle:
            await self.settle()
        return world.fences_seen

    async def trouble(self) -> None:
        node: SimNode = self.random.choice(self.world.nodes)
        slicer: Slicer = self.random.choice(self.world.slicers)
        until = self.world.clock.now() + self.random.choice(LONG)

        async def delay(what: object, field: str) -> None:
            setattr(what, field, until)

        def later(what: object, field: str) -> Callable[[], Awaitable[None]]:
            return lambda: delay(what, field)

        options: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (6, later(node, "cut_until")),
            (6, later(node, "slow_until")),
            (3, lambda: self.leave(node)),
            (3, lambda: self.restart(node, rebooted=False)),
            (3, lambda: self.restart(node, rebooted=True)),
            (2, lambda: self.die(node, until)),
            (1, lambda: self.delete(node)),
            (4, later(slicer, "state_late_until")),
            (4, later(slicer, "progress_late_until")),
            (2, later(slicer, "stalled_until")),
            (2, later(slicer, "cut_until")),
            (1, lambda: self.restart_slicer(slicer)),
            (2, self.lose_answer),
        ]
        weights, actions = zip(*options, strict=True)
        await self.random.choices(actions, weights)[0]()

    async def leave(self, node: SimNode) -> None:
        node.leave(politely=self.random.random() < 0.5)

    async def restart(self, node: SimNode, *, rebooted: bool) -> None:
        if rebooted:
            node.reboot()
        else:
            node.kill()
        if node.is_registered:
            await node.start()

    async def die(self, node: SimNode, until: float) -> None:
        node.kill()
        node.down_until = until

    async def delete(self, node: SimNode) -> None:
        if not node.is_registered:
            return
        blocks = list(node.blocks)
        await node.delete()
        self.world.unowned += blocks

    async def restart_slicer(self, slicer: Slicer) -> None:
        for stream in slicer.streams.copy():
            stream.broken = True
        slicer.stalled_until = slicer.cut_until = 0.0
        slicer.state_late_until = slicer.progress_late_until = 0.0
        await slicer.start()

    async def lose_answer(self) -> None:
        self.world.store.lose_next_answer()
        for slicer in self.world.slicers:
            await slicer.run()
        self.world.store._lose_answer = False

    async def reconnect(self) -> None:
        """Agents and their nodes come back, and blocks find an owner."""
        world = self.world
        for node in world.nodes:
            if world.clock.now() < node.down_until:
                continue
            if node.receiver is None and self.random.random() < 0.3:
                if self.random.random() < 0.3:
                    node.reboot()
                await node.start()
            if node.receiver is not None and node.stream is None and self.random.random() < 0.5:
                node.connect(self.random.choice(world.slicers))
            if node.is_registered and world.unowned and self.random.random() < 0.1:
                await node.claim(world.unowned.pop())

    async def settle(self) -> None:
        """Left in peace, everybody is live again and every address free."""
        world = self.world
        for node in world.nodes:
            node.cut_until = node.slow_until = node.down_until = 0.0
        for slicer in world.slicers:
            slicer.stalled_until = slicer.cut_until = 0.0
            slicer.state_late_until = slicer.progress_late_until = 0.0
        end = world.clock.now() + SETTLE_SECONDS
        while world.clock.now() < end:
            await world.tick(0.2)
            await self.reconnect()
        for node in world.nodes:
            waiting = set(node.cooling) - set(node.free())
            if waiting:
                raise Violation(f"{node.name} waits for {len(waiting)} addresses for ever")
        fences = [fence.node for s in world.slicers for fence in s.fanout.facts.fences.values()]
        if fences:
            raise Violation(f"fenced for ever: {fences}")


def tell(seed: int, cycles: int, *, settle: bool = True) -> int:
    """Runs a story; a violation names its seed."""
    try:
        return asyncio.run(Story(seed).run(cycles, settle=settle))
    except Violation as error:
        raise Violation(f"seed {seed}: {error}") from error


def main() -> None:
    """Runs stories until that many addresses have been used again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first story")
    parser.add_argument("--story", type=int, default=5000, help="cycles of one story")
    options = parser.parse_args()
    log.configure("json", "error", "sim")
    started, done, past_fences = time.monotonic(), 0, 0
    for number, start in enumerate(range(0, options.cycles, options.story)):
        seed, cycles = options.seed + number, min(options.story, options.cycles - start)
        past_fences += tell(seed, cycles)
        done += cycles
        seconds = time.monotonic() - started
        sys.stdout.write(
            f"seed {seed}: {done} addresses used again, {past_fences} of them past a fenced node "
            f"that still mapped it, 0 too early ({seconds:.0f} s)\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
