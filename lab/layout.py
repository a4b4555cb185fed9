"""Where a lab keeps its files. Pure.

/run/deltaplane/LAB/
  lab.json            what was asked for        supervisor.json   what runs
  pods.json           the pods                  logs/PROCESS.log
  names.json          what DNS answers          resolv/NAMESPACE.conf
  run/SERVICE.sock    gRPC of the services      etcd/             etcd's data, in memory its socket
  certs/PEER/         certificates, with --tls  certs/ca/         the CA that they are of
  nodes/NODE/         agent.sock (gRPC)  cni.sock  podhost.sock  state/ (the agent's journal)
"""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/run/deltaplane")
BPFFS = Path("/sys/fs/bpf")
PINS = BPFFS / "deltaplane"
"""Pins of all labs, each in its own folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLayout:
    """Files of one node."""

    folder: Path
    pins: Path

    @property
    def agent_socket(self) -> Path:
        """Where the agent serves gRPC."""
        return self.folder / "agent.sock"

    @property
    def agent_admin(self) -> Path:
        """Admin HTTP of the agent."""
        return self.folder / "admin.sock"

    @property
    def cni_socket(self) -> Path:
        """Where the CNI plugin finds the agent."""
        return self.folder / "cni.sock"

    @property
    def podhost_socket(self) -> Path:
        """Where the lab finds the process that stands for the node's containers."""
        return self.folder / "podhost.sock"

    @property
    def state(self) -> Path:
        """The agent's state folder."""
        return self.folder / "state"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Files of one lab."""

    lab: str
    root: Path = ROOT

    @property
    def folder(self) -> Path:
        """Everything but the pins lies in here."""
        return self.root / self.lab

    @property
    def record(self) -> Path:
        """What was asked for: its presence says that the name is taken."""
        return self.folder / "lab.json"

    @property
    def supervisor(self) -> Path:
        """What the supervisor says about itself and its processes."""
        return self.folder / "supervisor.json"

    @property
    def pods(self) -> Path:
        """The pods."""
        return self.folder / "pods.json"

    @property
    def names(self) -> Path:
        """Records of the name server; absent while there are no services."""
        return self.folder / "names.json"

    @property
    def logs(self) -> Path:
        """One file per process."""
        return self.folder / "logs"

    @property
    def etcd_data(self) -> Path:
        """Data of etcd."""
        return self.folder / "etcd"

    @property
    def etcd_socket(self) -> Path:
        """Where etcd serves if nothing of the lab has a network; etcd wants a colon in the name."""
        return self.etcd_data / "etcd:0"

    @property
    def authority(self) -> Path:
        """The lab's CA; absent where it works in plain text."""
        return self.folder / "certs" / "ca"

    def certificate(self, peer: str) -> Path:
        """Folder with the certificate of a peer, as in "slicer" or "node/node-1"."""
        return self.folder / "certs" / peer

    @property
    def pins(self) -> Path:
        """Pins of all nodes."""
        return PINS / self.lab

    def log(self, process: str) -> Path:
        """Log of one process."""
        return self.logs / f"{process}.log"

    def resolver(self, namespace: str) -> Path:
        """The resolv.conf of a namespace's pods."""
        return self.folder / "resolv" / f"{namespace}.conf"

    def service_socket(self, service: str) -> Path:
        """Where a service serves gRPC."""
        return self.folder / "run" / f"{service}.sock"

    def admin_socket(self, service: str) -> Path:
        """Admin HTTP of a service."""
        return self.folder / "run" / f"{service}-admin.sock"

    def node(self, name: str) -> NodeLayout:
        """Files of a node."""
        return NodeLayout(folder=self.folder / "nodes" / name, pins=self.pins / name)
