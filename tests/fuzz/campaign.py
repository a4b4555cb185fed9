"""Feeds targets, by atheris where it is installed, else by seeded mutations of our own."""

import hashlib
import importlib
import random
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from types import MappingProxyType

import structlog

from tests.fuzz import compiled
from tests.fuzz.mutation import mutated
from tests.fuzz.target import Target

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).with_name("corpus")
"""Inputs that broke something once, a folder for each target. They are always fed."""

TARGETS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "services": ("tests.fuzz.services", "ServicesTarget"),
        "agent": ("tests.fuzz.agent", "AgentTarget"),
        "stream": ("tests.fuzz.stream", "StreamTarget"),
        "cni": ("tests.fuzz.cni", "CniTarget"),
        "shim": ("tests.fuzz.shim", "ShimTarget"),
        "maglev": ("tests.fuzz.maglev", "MaglevTarget"),
        "manifests": ("tests.fuzz.manifests", "ManifestsTarget"),
        "apiserver": ("tests.fuzz.apiserver", "ApiserverTarget"),
        "kubeconfig": ("tests.fuzz.kubeconfig", "KubeconfigTarget"),
        "disk": ("tests.fuzz.disk", "DiskTarget"),
        "names": ("tests.fuzz.names", "NamesTarget"),
        "http2": ("tests.fuzz.http2", "Http2Target"),
        "frames": ("tests.fuzz.frames", "FramesTarget"),
        "wrapped": ("tests.fuzz.frames", "WrappedTarget"),
    }
)
"""By name: module and class. Imported late: atheris instruments what is imported under its eyes."""

UNGUIDED = ("frames", "wrapped")
"""What runs in the kernel, where nobody counts branches: atheris would go on with three inputs."""

OURS = ["deltaplane", "services", "nodeagent", "lab"]
"""What atheris looks into."""

LONGEST = 8192
"""Bytes of an input of atheris."""

SILENT = 50
"""Of logs, critical: what is refused on purpose would fill the terminal."""


def make(name: str) -> Target:
    """A target by its name."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(SILENT))
    module, cls = TARGETS[name]
    made: Target = getattr(importlib.import_module(module), cls)()
    return made


def known(name: str) -> list[bytes]:
    """Inputs that broke a target once."""
    return [file.read_bytes() for file in sorted((CORPUS / name).glob("*"))]


def inputs(target: Target, name: str, seed: int) -> Iterator[bytes]:
    """Seeds, what broke it once, then changed ones for ever."""
    corpus = [*target.seeds(), *known(name)]
    yield from corpus
    chance = random.Random(f"{name} {seed}")
    while True:
        yield mutated(chance, corpus, target.words())


def play(name: str, data: bytes) -> int:
    """Feeds one input; the exit code."""
    with closing(make(name)) as target:
        target.feed(data)
    print(f"{name}: nothing broke")
    return 0


def run(name: str, seconds: float, seed: int, engine: str, folder: Path) -> int:
    """Fuzzes one target; the exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    engine = "own" if name in UNGUIDED else engine
    print(f"{name}: {engine}, seed {seed}", flush=True)
    by = _by_atheris if engine == "atheris" else _by_chance
    return by(name, seconds, seed, folder)


def _by_chance(name: str, seconds: float, seed: int, folder: Path) -> int:
    count, broken = 0, set[str]()
    with closing(make(name)) as target:
        ending = time.monotonic() + seconds
        for data in inputs(target, name, seed):
            if time.monotonic() > ending:
                break
            count += 1
            try:
                target.feed(data)
            except Exception as error:  # noqa: BLE001 - that is what is looked for
                place = _place(error)
                if place not in broken:
                    broken.add(place)
                    _keep(name, folder, data, error)
    print(f"{name}: {count} inputs in {seconds:g} s, {len(broken)} findings", flush=True)
    return 1 if broken else 0


def _place(error: Exception) -> str:
    """Where an exception came from: one finding is told once."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(ROOT)
    ]
    # What is found wrong in the end may have many causes.
    more = str(error)[:40] if isinstance(error, AssertionError) else ""
    return f"{type(error).__name__} {frames[-1].filename}:{frames[-1].lineno} {more}"


def _keep(name: str, folder: Path, data: bytes, error: Exception) -> None:
    file = folder / f"crash-{hashlib.sha256(data).hexdigest()[:16]}"
    file.write_bytes(data)
    print(f"{name}: {file}", flush=True)
    traceback.print_exception(error, limit=-6)


def _by_atheris(name: str, seconds: float, seed: int, folder: Path) -> int:
    import atheris  # type: ignore[import-untyped]  # no stubs, and not always there

    libfuzzer = compiled.archive() if name in compiled.SOURCES else None
    with nullcontext() if libfuzzer else atheris.instrument_imports(include=OURS):
        target = make(name)
    arguments = _arguments(name, target, seconds, seed, folder)
    if libfuzzer is not None:
        with closing(target):
            return compiled.run(name, folder, libfuzzer, arguments)
    atheris.Setup([sys.argv[0], *arguments], target.feed)
    atheris.Fuzz()  # ends the process
    return 0


def _arguments(name: str, target: Target, seconds: float, seed: int, folder: Path) -> list[str]:
    """Of libFuzzer; writes what they name."""
    found = folder / "corpus"
    found.mkdir(exist_ok=True)
    for data in (*target.seeds(), *known(name)):
        (found / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    words = folder / "words"
    words.write_text("".join(f"{_quoted(word)}\n" for word in target.words()))
    return [
        f"-max_total_time={int(seconds)}",
        f"-seed={seed % (1 << 31) or 1}",
        f"-max_len={LONGEST}",
        "-timeout=60",
        *([f"-dict={words}"] if target.words() else []),
        f"-artifact_prefix={folder}/",
        "-print_final_stats=1",
        str(found),
    ]


def _quoted(word: bytes) -> str:
    return '"' + "".join(f"\\x{byte:02x}" for byte in word[:128]) + '"'


def short(name: str, seed: int, count: int) -> int:
    """Feeds seeds, known inputs and so many changed ones; how many there were.

    Raises:
        AssertionError: one broke something; the message has it, to be kept in the corpus.
    """
    fed = 0
    with closing(make(name)) as target:
        fixed = len(target.seeds()) + len(known(name))
        for fed, data in enumerate(inputs(target, name, seed), 1):
            try:
                target.feed(data)
            except Exception as error:
                message = f"{name}, seed {seed}, input {fed}: {data.hex()}"
                raise AssertionError(message) from error
            if fed >= fixed + count:
                break
    return fed
