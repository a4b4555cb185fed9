"""From object files to loaded programs and open maps.

Maps are pinned under <pin directory>/v<schema version>/<name> and adopted when they are there.
Programs are not pinned: those attached to links live with their links, and a new agent replaces
them in place.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from nodeagent.dataplane import abi, bpffs, libbpf
from nodeagent.dataplane.maps import KernelMap, Shape, open_pinned, shape_of

TUNNEL_OBJECT = "from_tunnel"
DIRECT_OBJECT = "from_entry"
OBJECTS = ("from_pod", "to_pod", "from_net", TUNNEL_OBJECT, DIRECT_OBJECT, "sock")
"""Object files: one program each, of the same name, but for those of sockets."""

CONFIG_MAP = ".rodata.config"

_PACKAGE = Path(__file__).resolve().parent
OBJECT_FOLDERS = (
    # A wheel carries them beside the package,
    _PACKAGE.parent / "prebuilt",
    # a source tree where `make build` puts them.
    _PACKAGE.parents[1] / "bpf" / "build",
)


class ObjectsMissing(Exception):
    """The compiled programs are not there."""


class NoBpffs(Exception):
    """The pin directory is not in a mounted bpffs."""


class SchemaMismatch(Exception):
    """A pinned map has another layout than these programs."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Descriptors of everything. programs: name → descriptor; maps: name → map."""

    programs: Mapping[str, int]
    maps: Mapping[str, KernelMap]

    def close(self) -> None:
        """Closes all descriptors; pins and attached programs stay."""
        for fd in self.programs.values():
            os.close(fd)
        for kernel_map in self.maps.values():
            kernel_map.close()


def find_object(name: str) -> Path:
    """An object file.

    Raises:
        ObjectsMissing: it has not been built.
    """
    for folder in OBJECT_FOLDERS:
        path = folder / f"{name}.bpf.o"
        if path.is_file():
            return path
    places = " or ".join(str(folder) for folder in OBJECT_FOLDERS)
    raise ObjectsMissing(f"{name}.bpf.o is not in {places}: run `make build`")


def schema_folder(pin_dir: Path) -> Path:
    """Where the maps of this schema version are pinned."""
    return pin_dir / f"v{abi.SCHEMA_VERSION}"


def is_schema_folder(path: Path) -> bool:
    """Whether a folder in a pin directory holds the maps of some schema version."""
    return path.is_dir() and path.name[:1] == "v" and path.name[1:].isdigit()


def load(pin_dir: Path, *, config: abi.Config, capacities: Mapping[str, int]) -> Loaded:
    """Loads the programs on maps that are created and pinned, or adopted.

    Those of the tunnel and of direct return only where there are such links: the verifier takes a
    third of its time for each.

    Args:
        pin_dir: a folder of a mounted bpffs; made if missing.
        config: goes into read-only data before the verifier runs, so branches on it are pruned.
        capacities: map name → entries, for maps that are created; an adopted map keeps its own.

    Raises:
        NoBpffs: pin_dir lies elsewhere.
        ObjectsMissing: not built.
        SchemaMismatch: an adopted map has other sizes.
        OSError: the kernel refuses; libbpf has written its log to standard error.
    """
    if not bpffs.holds(pin_dir):
        raise NoBpffs(f"{pin_dir} is in no bpffs: run `mount -t bpf bpf {bpffs.BPFFS}`")
    folder = schema_folder(pin_dir)
    folder.mkdir(parents=True, exist_ok=True)
    programs: dict[str, int] = {}
    maps: dict[str, KernelMap] = {}
    try:
        for name in OBJECTS:
            if name == TUNNEL_OBJECT and not config.tunnel_ifindex:
                continue
            if name == DIRECT_OBJECT and not config.direct_ifindex:
                continue
            with _Object(find_object(name)) as opened:
                opened.prepare(folder, config.pack(), capacities)
                opened.load()
                for program, fd in opened.programs():
                    programs[program] = os.dup(fd)
                for map_name, fd in opened.pinned_maps():
                    if map_name not in maps:
                        maps[map_name] = KernelMap(map_name, os.dup(fd))
    except BaseException:
        Loaded(programs, maps).close()
        raise
    return Loaded(programs, maps)


class _Object:
    """An open libbpf object; closed by the end of a `with`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pointer: int | None = None

    def __enter__(self) -> Self:
        self._pointer = libbpf.call("bpf_object__open_file", os.fsencode(self._path), None)
        if not self._pointer:
            raise OSError(f"{self._path} is no BPF object that libbpf can read")
        return self

    def __exit__(self, *_: object) -> None:
        libbpf.call("bpf_object__close", self._pointer)

    def prepare(self, folder: Path, config: bytes, capacities: Mapping[str, int]) -> None:
        """Sets pins, capacities and constants; all of it must happen before loading."""
        for name, pointer in self._maps():
            if name == CONFIG_MAP:
                result = libbpf.call("bpf_map__set_initial_value", pointer, config, len(config))
                libbpf.checked(result, name)
            elif libbpf.call("bpf_map__pin_path", pointer):
                self._prepare_pinned(name, pointer, folder / name, capacities.get(name))

    @staticmethod
    def _prepare_pinned(name: str, pointer: int, path: Path, capacity: int | None) -> None:
        pinned = _pinned_shape(path)
        if pinned is not None:
            capacity = pinned.capacity
            wanted = Shape(
                libbpf.call("bpf_map__type", pointer),
                libbpf.call("bpf_map__key_size", pointer),
                libbpf.call("bpf_map__value_size", pointer),
                libbpf.call("bpf_map__map_flags", pointer),
                capacity,
            )
            if pinned != wanted:
                raise SchemaMismatch(f"{path} is {pinned}, these programs need {wanted}")
        if capacity is not None:
            libbpf.checked(libbpf.call("bpf_map__set_max_entries", pointer, capacity), name)
        libbpf.checked(libbpf.call("bpf_map__set_pin_path", pointer, os.fsencode(path)), name)

    def load(self) -> None:
        """Creates or adopts the maps, and hands the programs to the verifier."""
        libbpf.checked(libbpf.call("bpf_object__load", self._pointer), str(self._path))

    def programs(self) -> list[tuple[str, int]]:
        """Names and descriptors of loaded programs; the descriptors belong to the object."""
        found, pointer = [], None
        while pointer := libbpf.call("bpf_object__next_program", self._pointer, pointer):
            name = libbpf.call("bpf_program__name", pointer).decode()
            fd = libbpf.checked(libbpf.call("bpf_program__fd", pointer), name)
            found.append((name, fd))
        return found

    def pinned_maps(self) -> list[tuple[str, int]]:
        """Names and descriptors; the descriptors belong to the object."""
        return [
            (name, libbpf.checked(libbpf.call("bpf_map__fd", pointer), name))
            for name, pointer in self._maps()
            if libbpf.call("bpf_map__pin_path", pointer)
        ]

    def _maps(self) -> list[tuple[str, int]]:
        found, pointer = [], None
        while pointer := libbpf.call("bpf_object__next_map", self._pointer, pointer):
            found.append((libbpf.call("bpf_map__name", pointer).decode(), pointer))
        return found


def _pinned_shape(path: Path) -> Shape | None:
    try:
        fd = open_pinned(path)
    except FileNotFoundError:
        return None
    try:
        return shape_of(fd)
    finally:
        os.close(fd)
