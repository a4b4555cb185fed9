"""What the CNI shim sends, as the agent reads it: frame, environment, configuration."""

import contextlib
import json
import struct
from collections.abc import Sequence

from nodeagent.cni import netconf
from nodeagent.cni.protocol import (
    LENGTH,
    ProtocolError,
    Request,
    decode_request,
    encode_request,
    request_length,
)
from nodeagent.cni.result import CniError

RESULT = {
    "cniVersion": "1.1.0",
    "interfaces": [{"name": "eth0", "sandbox": "/run/netns/x"}],
    "ips": [{"address": "10.244.0.5/32", "gateway": "10.244.0.1", "interface": 0}],
    "routes": [{"dst": "0.0.0.0/0", "gw": "10.244.0.1"}],
    "dns": {"nameservers": ["10.96.0.10"]},
}
CONFIG = {
    "cniVersion": "1.1.0",
    "name": "deltaplane",
    "type": "deltaplane-cni",
    "socket": "/run/deltaplane/agent.sock",
    "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]},
    "cni.dev/valid-attachments": [{"containerID": "x", "ifname": "eth0"}],
}
ARGS = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=uid-1"

WORDS = (
    *(b"cniVersion", b"prevResult", b"runtimeConfig", b"portMappings", b"hostPort", b"hostIP"),
    *(b"valid-attachments", b"0.1.0", b"0.4.0", b"1.0.0", b"null", b"true", b"[]", b"{}", b"1e999"),
    *(
        b'"',
        b"\\u0000",
        b"\\ud800",
        b"-1",
        b"65536",
        b"deltaplane-ipam",
        b"ipam",
        b"gateway",
        b"::1",
    ),
    *(b"ADD", b"DEL", b"CHECK", b"GC", b"STATUS", b"VERSION", b"[" * 2000, b"NaN", b"0" * 5000),
)


def request(command: str, config: object) -> bytes:
    """A request of the shim."""
    return encode_request(
        Request(
            command=command,
            container_id="c1",
            netns="/run/netns/x",
            ifname="eth0",
            args=ARGS,
            path="/opt/cni/bin",
            config=json.dumps(config).encode(),
        )
    )


class CniTarget:
    """A request as it arrives. Lengths that do not fit are put right in every second one."""

    def seeds(self) -> Sequence[bytes]:
        """One of each command, with and without a previous result, in both modes."""
        delegated = CONFIG | {"type": "bridge", "ipam": {"type": "deltaplane-ipam"}}
        configs = (CONFIG, CONFIG | {"prevResult": RESULT}, delegated)
        commands = ("ADD", "DEL", "CHECK", "GC", "STATUS")
        return [request(command, config) for command in commands for config in configs]

    def words(self) -> Sequence[bytes]:
        """Of configurations and environment."""
        return WORDS

    def feed(self, data: bytes) -> None:
        """One request."""
        if len(data) < LENGTH.size:
            return
        with contextlib.suppress(ProtocolError):
            request_length(data[: LENGTH.size])
        body = data[LENGTH.size :]
        for candidate in (body, _mended(body)):
            try:
                found = decode_request(candidate)
            except ProtocolError:
                continue
            netconf.claimed_version(found.config)
            with contextlib.suppress(CniError):
                netconf.parse(found)

    def close(self) -> None:
        """Nothing to let go of."""


def _mended(body: bytes) -> bytes:
    """The same fields, the last one as long as there is left."""
    at, fields = 0, []
    for _ in range(6):
        length = int.from_bytes(body[at : at + 4]) % 256
        fields.append(body[at + 4 : at + 4 + length])
        at += 4 + length
    fields.append(body[at + 4 :])
    return b"".join(struct.pack(">I", len(field)) + field for field in fields)
