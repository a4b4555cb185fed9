"""The CNI plugin's binary, built with the address and undefined-behaviour sanitizers.

An input is what a runtime gives it and what an agent answers: command, environment, standard input,
answer. One process each.
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.cni import ARGS, CONFIG, RESULT, WORDS
from tests.fuzz.draw import Draw

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "nodeagent/cni/shim/deltaplane-cni.c"
SANITIZERS = "address,undefined"
BROKEN = 99
"""Exit code by which a sanitizer says that it has found something."""

SECONDS = 20.0
COMMANDS = (b"ADD", b"DEL", b"CHECK", b"GC", b"STATUS", b"VERSION", b"", b"add")
HEAD = bytes((0,) * 8)
SOCKET, SPOOL = b"/@SOCKET@", b"/@SPOOL@"
ELSEWHERE = re.compile(rb'"spoolDir"\s*:\s*"(?!/@SPOOL@")')
"""A spool that is not ours: root could write there."""


def built(folder: Path) -> Path:
    """Compiles the plugin as `make build` does, but for the sanitizers."""
    binary = folder / "deltaplane-cni"
    subprocess.run(
        [
            *("gcc", "-g", "-O1", "-Wall", "-Wextra", "-Werror", f"-fsanitize={SANITIZERS}"),
            *("-fno-sanitize-recover=all", SOURCE, "-o", binary),
        ],
        check=True,
    )
    return binary


class _Agent:
    """A unix socket that answers everybody with the same bytes and hangs up."""

    def __init__(self, path: Path) -> None:
        self.answer = b""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(os.fspath(path))
        self._listener.listen(16)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(SECONDS)
                    connection.sendall(self.answer)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(1 << 16):
                        pass

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class ShimTarget:
    """Eight bytes decide command, environment and answer; the rest is standard input."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="dp-fuzz-")
        folder = Path(self._folder.name)
        self._binary = built(folder)
        self._socket = folder / "agent.sock"
        self._spool = folder / "spool"
        self._agent = _Agent(self._socket)

    def seeds(self) -> Sequence[bytes]:
        """Each command, with an agent that answers well, badly, or not at all."""
        config = json.dumps(
            CONFIG
            | {
                "agentSocket": SOCKET.decode(),
                "spoolDir": SPOOL.decode(),
                "prevResult": RESULT,
            }
        ).encode()
        return [
            bytes((command, answer, 0, 0, 0, 0, 0, 0)) + config
            for command in range(len(COMMANDS))
            for answer in range(4)
        ]

    def words(self) -> Sequence[bytes]:
        """Of configurations."""
        return (*WORDS, SOCKET, SPOOL, b'"agentSocket":', b'"spoolDir":', b'"' + b"/a" * 200 + b'"')

    def feed(self, data: bytes) -> None:
        """One call."""
        draw = Draw(data)
        command = draw.pick(COMMANDS)
        self._agent.answer = _answer(draw)
        environment = {
            b"CNI_COMMAND": command,
            b"CNI_CONTAINERID": draw.pick((b"c1", b"", b"x" * 5000, b"../../etc", b'"\\')),
            b"CNI_NETNS": draw.pick((b"/proc/self/ns/net", b"", b"/nowhere", b"/")),
            b"CNI_IFNAME": draw.pick((b"eth0", b"", b"e" * 300)),
            b"CNI_ARGS": draw.pick((ARGS.encode(), b"", b"=" * 70_000)),
            b"CNI_PATH": draw.pick((b"/opt/cni/bin", b"")),
            b"ASAN_OPTIONS": f"exitcode={BROKEN}:detect_leaks=0".encode(),
            b"UBSAN_OPTIONS": f"exitcode={BROKEN}:halt_on_error=1".encode(),
        }
        draw.take(len(HEAD) - 7)
        config = ELSEWHERE.sub(b'"elsewhere":"', draw.rest())
        config = config.replace(SOCKET, os.fsencode(self._socket))
        config = config.replace(SPOOL, os.fsencode(self._spool))
        done = subprocess.run(
            [self._binary],
            env=environment,
            input=config,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
        _judge(done, self._agent.answer)

    def close(self) -> None:
        """Removes what it has made."""
        self._agent.close()
        self._folder.cleanup()


def _answer(draw: Draw) -> bytes:
    text = json.dumps(RESULT).encode()
    return draw.pick(
        (
            bytes(4) + len(text).to_bytes(4) + text,
            b"",
            bytes(3) + b"\1" + (7).to_bytes(4) + b'{"a":1}',
            bytes(4) + b"\xff\xff\xff\xff" + text,
            bytes(4) + (len(text) + 1).to_bytes(4) + text,
            text,
        )
    )


def _judge(done: "subprocess.CompletedProcess[bytes]", answer: bytes) -> None:
    """It ends with 0 or 1, silently on standard error; what it prints of its own is JSON."""
    said = done.stderr.decode(errors="replace")
    assert done.returncode in (0, 1), f"exit code {done.returncode}\n{said}"
    assert not said, said
    if done.stdout and done.stdout not in answer:
        found = json.loads(done.stdout)
        if done.returncode:
            assert set(found) == {"cniVersion", "code", "msg", "details"}, found
