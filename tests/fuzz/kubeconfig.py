"""Kubeconfig files and service accounts' tokens, up to the request that is made with them."""

import asyncio
import base64
import contextlib
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization

from deltaplane.certs import issuing
from deltaplane.certs.issuing import Wanted
from deltaplane.errors import DeltaplaneError
from deltaplane.runtime.roles import Peer, Role
from services.kubernetes.api import kubeconfig, transport
from tests.fuzz.draw import Draw
from tests.fuzz.manifests import WORDS, places


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _locked(key: bytes) -> bytes:
    """A key with a passphrase, for which nobody is there to be asked."""
    loaded = serialization.load_pem_private_key(key, password=None)
    return loaded.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


STRANGE: tuple[Any, ...] = (
    *(None, True, 0, 1 << 70, 1.5, "", "a", "é", "\0", "a" * 5000, "a\nb", " ", "../x", "/", "."),
    *("https://[::1", "https://a b", "https://h:99999", "https://é", "http://127.0.0.1", "ftp://h"),
    *("https://", "https://[::1]:6443/path?x#y", "QUJD", "QUJD=", "é==", [], {}, [None], {"a": 1}),
    *("ca.crt", "key", "locked", "folder", "token", "torn", "strange", "crt"),
)
AUTHORITY = issuing.authority(now=issuing.now())
CLIENT = issuing.issue(AUTHORITY, Wanted(peer=Peer(role=Role.BRIDGE)), now=issuing.now())
BESIDE = {
    "ca.crt": AUTHORITY.certificate,
    "crt": CLIENT.certificate,
    "key": CLIENT.key,
    "locked": _locked(CLIENT.key),
    "token": b"abc\n",
    "torn": CLIENT.certificate[:200],
    "strange": "é\nx: y\n".encode(),
}
"""Files that a kubeconfig may name."""
CLUSTERS = (
    {"server": "https://127.0.0.1:6443", "certificate-authority": "ca.crt"},
    {
        "server": "https://[::1]:6443/",
        "certificate-authority-data": _encoded(AUTHORITY.certificate),
        "tls-server-name": "kubernetes",
    },
)
USERS = (
    {"token": "abc"},
    {"tokenFile": "token"},
    {"client-certificate": "crt", "client-key": "key"},
    {
        "client-certificate-data": _encoded(CLIENT.certificate),
        "client-key-data": _encoded(CLIENT.key),
    },
)


class KubeconfigTarget:
    """First byte: whether the rest is a file, or decisions about what to change in a sound one."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="dp-fuzz-")
        self._path = Path(self._folder.name) / "config"
        for name, text in BESIDE.items():
            self._path.with_name(name).write_bytes(text)
        self._path.with_name("folder").mkdir()
        self._documents = [_config(cluster, user) for cluster in CLUSTERS for user in USERS]
        self._loop = asyncio.new_event_loop()

    def seeds(self) -> Sequence[bytes]:
        """Each as text, and decisions about each."""
        texts = [b"\0" + yaml.safe_dump(document).encode() for document in self._documents]
        decisions = [bytes((1, number, number * 7 % 256)) for number in range(8)]
        return [*texts, *decisions]

    def words(self) -> Sequence[bytes]:
        """Of YAML, URLs and PEM."""
        more = (b"https://", b"[::1]", b"-----BEGIN CERTIFICATE-----\\n", b"-data: ", b"2020-13-45")
        return (*WORDS, *more, b"!!int ", b"1" * 5000, b"[" * 2000, b"tokenFile: token")

    def feed(self, data: bytes) -> None:
        """One file."""
        if not data:
            return
        draw = Draw(data)
        text = draw.rest() if draw.below(2) == 0 else self._changed(draw)
        self._path.write_bytes(text)
        with contextlib.suppress(DeltaplaneError):
            self._loop.run_until_complete(_first_request(kubeconfig.from_file(self._path)))

    def _changed(self, draw: Draw) -> bytes:
        document = deepcopy(draw.pick(self._documents))
        for _ in range(1 + draw.below(3)):
            found = list(places(document))
            if found:
                holder, key = draw.pick(found)
                holder[key] = deepcopy(draw.pick(STRANGE))
        return yaml.safe_dump(document, allow_unicode=True).encode()

    def close(self) -> None:
        """Removes the files."""
        self._loop.close()
        self._folder.cleanup()


def _config(cluster: object, user: object) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [
            {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}
        ],
        "clusters": [{"name": "c", "cluster": deepcopy(cluster)}],
        "users": [{"name": "u", "user": deepcopy(user)}],
    }


async def _first_request(connection: kubeconfig.Connection) -> None:
    """All but sending it."""
    made = transport._connections(connection, connection.tls(), 1)
    async with made:
        made.build_request("GET", "/api/v1/pods", headers=transport._Token(connection).headers())
