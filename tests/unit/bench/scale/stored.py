"""A store that takes operations and nothing else."""

from collections.abc import Iterable, Iterator

from deltaplane.store.port import Delete, Event, KeyValue, Operation, Put


class Stored:
    def __init__(self) -> None:
        self._items: dict[str, KeyValue] = {}
        self.revision = 0

    @property
    def items(self) -> Iterator[KeyValue]:
        for key in sorted(self._items):
            yield self._items[key]

    def take(self, operations: Iterable[Operation]) -> list[Event]:
        """Applies operations, all at one revision; what a watch would say of them."""
        self.revision += 1
        events = []
        for operation in operations:
            match operation:
                case Put(key, value):
                    before = self._items.get(key)
                    created = before.create_revision if before else self.revision
                    self._items[key] = KeyValue(
                        key=key, value=value, create_revision=created, mod_revision=self.revision
                    )
                    events.append(self._event(key, value, created))
                case Delete(key):
                    if self._items.pop(key, None):
                        events.append(self._event(key, None, 0))
                case _:
                    raise NotImplementedError
        return events

    def _event(self, key: str, value: bytes | None, created: int) -> Event:
        return Event(key=key, value=value, create_revision=created, mod_revision=self.revision)
