"""A node in a network namespace with a real agent process, and pods in others."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from deltaplane.runtime import rpc
from deltaplane.v1 import agent_pb2, agent_pb2_grpc
from tests.netns.services_thread import Services

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
NODE_IPV4, NODE_IPV6 = "198.19.77.1", "fd99:77::1"
BPFFS = Path("/sys/fs/bpf")


def run(*command: str, check: bool = True) -> str:
    """Runs a command and returns what it prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stderr or done.stdout}")
    return done.stdout


def until(condition: Callable[[], Any], what: str, seconds: float = 10.0) -> Any:
    """Polls until a condition holds and returns what it returned."""
    deadline = time.monotonic() + seconds
    while True:
        if found := condition():
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


@dataclass(frozen=True)
class CniAnswer:
    """What the plugin binary did."""

    code: int
    document: dict[str, Any]
    seconds: float

    @property
    def addresses(self) -> list[str]:
        return [item["address"].partition("/")[0] for item in self.document["ips"]]


@dataclass
class Node:
    """One node. Everything that it makes is removed by `remove`."""

    name: str
    directory: Path
    shim: Path
    services: Services
    bpffs: Path
    agent: subprocess.Popen[str] | None = None
    pods: list[str] = field(default_factory=list)
    root: Path = ROOT

    @property
    def namespace(self) -> str:
        """Two test runs may share a machine."""
        return f"dpt{os.getpid()}-{self.name}"

    @property
    def pins(self) -> Path:
        return self.bpffs / "deltaplane-test" / f"{self.name}-{os.getpid()}"

    @property
    def cni_socket(self) -> Path:
        return self.directory / "cni.sock"

    @property
    def spool(self) -> Path:
        """Where DELs wait for the agent."""
        return self.directory / "state/cni-spool"

    @property
    def agent_target(self) -> str:
        return f"unix:{self.directory / 'agent.sock'}"

    def create(self) -> None:
        """The namespace with an uplink whose other end goes nowhere."""
        run("ip", "netns", "add", self.namespace)
        self.ip("link", "set", "lo", "up")
        self.ip("link", "add", "uplink", "mtu", "1430", "type", "veth", "peer", "name", "fabric")
        self.ip("address", "add", f"{NODE_IPV4}/24", "dev", "uplink")
        self.ip("address", "add", f"{NODE_IPV6}/64", "dev", "uplink", "nodad")
        self.ip("link", "set", "uplink", "up")
        self.ip("link", "set", "fabric", "up")

    def ip(self, *arguments: str, check: bool = True) -> str:
        return run("ip", "-n", self.namespace, *arguments, check=check)

    def in_node(self, *command: str) -> str:
        return run("ip", "netns", "exec", self.namespace, *command)

    def command(self, **options: str) -> list[str]:
        flags = {
            "node-name": self.name,
            "state-dir": str(self.directory / "state"),
            "socket": str(self.cni_socket),
            "listen": self.agent_target,
            "registry": self.services.target("registry"),
            "ipam": self.services.target("ipam"),
            "slicer": self.services.target("slicer"),
            "pin-dir": str(self.pins),
            "cgroup": "none",
            "uplink": "uplink",
            "node-ipv4": NODE_IPV4,
            "node-ipv6": NODE_IPV6,
            "netns": f"/run/netns/{self.namespace}",
            "log-level": "debug",
        } | {name.replace("_", "-"): value for name, value in options.items()}
        return [
            sys.executable,
            "-m",
            "nodeagent",
            *(part for name, value in flags.items() for part in (f"--{name}", value)),
        ]

    def start(self, **options: str) -> dict[str, Any]:
        """Starts the agent and waits for its ready line."""
        log = (self.directory / "agent.log").open("a")
        self.agent = subprocess.Popen(
            self.command(**options), cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True
        )
        log.close()
        assert self.agent.stdout is not None
        line = self.agent.stdout.readline()
        assert line, f"the agent did not start: {self.log()[-3000:]}"
        ready: dict[str, Any] = json.loads(line)
        return ready

    def start_ready(self, **options: str) -> None:
        """Starts the agent and waits until it can add pods."""
        self.start(**options)
        until(lambda: self.cni("STATUS", "", netns="").code == 0, "the agent is ready")

    def log(self) -> str:
        return (self.directory / "agent.log").read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ends the agent; its exit code."""
        assert self.agent is not None
        agent, self.agent = self.agent, None
        agent.send_signal(number)
        code = agent.wait(20)
        assert agent.stdout is not None
        agent.stdout.close()
        return code

    def remove(self) -> None:
        if self.agent is not None:
            self.stop(signal.SIGKILL)
        for pod in list(self.pods):
            self.delete_pod_namespace(pod)
        run("ip", "netns", "delete", self.namespace, check=False)
        if self.pins.exists():
            for pin in sorted(self.pins.rglob("*"), reverse=True):
                pin.rmdir() if pin.is_dir() else pin.unlink()
            self.pins.rmdir()
            if not any(self.pins.parent.iterdir()):
                self.pins.parent.rmdir()

    # --- pods
    # --------------------------------------------------------------------------------------

    def new_pod_namespace(self, pod: str) -> str:
        """Its path."""
        run("ip", "netns", "add", f"{self.namespace}-{pod}")
        self.pods.append(pod)
        return self.pod_path(pod)

    def delete_pod_namespace(self, pod: str) -> None:
        run("ip", "netns", "delete", f"{self.namespace}-{pod}", check=False)
        self.pods.remove(pod)

    def pod_path(self, pod: str) -> str:
        return f"/run/netns/{self.namespace}-{pod}"

    def in_pod(self, pod: str, *command: str, check: bool = True) -> str:
        return run("ip", "netns", "exec", f"{self.namespace}-{pod}", *command, check=check)

    def cni(
        self,
        command: str,
        pod: str,
        *,
        ifname: str = "eth0",
        version: str = "1.1.0",
        netns: str | None = None,
        **config: Any,
    ) -> CniAnswer:
        """Calls the plugin binary as kubelet does."""
        return self.call(
            *self.cni_call(command, pod, ifname=ifname, version=version, netns=netns, **config)
        )

    def call(self, environment: Mapping[str, str], stdin: str) -> CniAnswer:
        """Runs the plugin binary."""
        started = time.monotonic()
        done = subprocess.run(
            [str(self.shim)],
            env=environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )
        document = json.loads(done.stdout) if done.stdout.strip() else {}
        return CniAnswer(done.returncode, document, time.monotonic() - started)

    def cni_call(
        self,
        command: str,
        pod: str,
        *,
        ifname: str = "eth0",
        version: str = "1.1.0",
        netns: str | None = None,
        **config: Any,
    ) -> tuple[Mapping[str, str], str]:
        """Environment and standard input of a call."""
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": f"container-{pod}",
            "CNI_NETNS": self.pod_path(pod) if netns is None else netns,
            "CNI_IFNAME": ifname,
            "CNI_PATH": str(self.shim.parent),
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={pod};"
            f"K8S_POD_UID=uid-{pod};K8S_POD_INFRA_CONTAINER_ID=container-{pod}",
        }
        document = {
            "cniVersion": version,
            "name": "deltaplane",
            "type": "deltaplane-cni",
            "agentSocket": str(self.cni_socket),
            "spoolDir": str(self.spool),
        } | config
        return environment, json.dumps(document)

    def add(self, pod: str) -> CniAnswer:
        """A pod record, a namespace and an ADD that must work."""
        self.services.apply_pod(pod, self.name, app=pod)
        self.new_pod_namespace(pod)
        answer = self.cni("ADD", pod)
        assert answer.code == 0, (answer.document, self.log()[-3000:])
        return answer

    def take_off_pods(self) -> None:
        """DEL for each, after which nothing may be left."""
        for pod in list(self.pods):
            deleted = self.cni("DEL", pod)
            assert deleted.code == 0, deleted.document
            self.delete_pod_namespace(pod)
        assert self.host_links() == []
        assert self.services.endpoints() == []

    # --- the agent's own API
    # -----------------------------------------------------------------------

    def ask(self, call: "Callable[[agent_pb2_grpc.AgentAsyncStub], Awaitable[T]]") -> T:
        async def do() -> T:
            async with rpc.channel(self.agent_target) as channel:
                return await call(agent_pb2_grpc.AgentStub(channel))

        return self.services.run(do())

    def interfaces(self) -> list[agent_pb2.Interface]:
        request = agent_pb2.ListInterfacesRequest()
        return list(self.ask(lambda stub: stub.ListInterfaces(request)).interfaces)

    def denials(self) -> list[agent_pb2.Denial]:
        request = agent_pb2.ListDenialsRequest()
        return list(self.ask(lambda stub: stub.ListDenials(request)).denials)

    def rule_counters(self) -> list[agent_pb2.RuleCounter]:
        request = agent_pb2.ListRuleCountersRequest()
        return list(self.ask(lambda stub: stub.ListRuleCounters(request)).counters)

    def status(self) -> agent_pb2.GetStatusResponse:
        request = agent_pb2.GetStatusRequest()
        return self.ask(lambda stub: stub.GetStatus(request))

    def host_links(self) -> list[str]:
        """Names of the pods' links on the node."""
        links = json.loads(self.ip("-json", "link", "show"))
        return [link["ifname"] for link in links if link["ifname"].startswith("dp")]
