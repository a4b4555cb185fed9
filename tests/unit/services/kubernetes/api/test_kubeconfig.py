"""Where the server is and who we are, from files of several kinds."""

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization

from deltaplane.certs import issuing
from deltaplane.errors import Invalid
from services.kubernetes.api import kubeconfig
from services.kubernetes.api.kubeconfig import Connection


def config(tmp_path: Path, *, cluster: dict[str, Any], user: dict[str, Any]) -> Path:
    path = tmp_path / "config"
    value = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [
            {"name": "there", "context": {"cluster": "c2", "user": "u2"}},
            {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "dp"}},
        ],
        "clusters": [{"name": "c", "cluster": {"server": "https://api:6443/"} | cluster}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(value))
    return path


def test_data_in_the_file_and_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("authority")
    (tmp_path / "key.pem").write_bytes(b"key")
    user = {"client-certificate-data": base64.b64encode(b"own").decode(), "client-key": "key.pem"}
    cluster = {"certificate-authority": "ca.pem", "tls-server-name": "kubernetes"}
    found = kubeconfig.from_file(config(tmp_path, cluster=cluster, user=user))
    assert found == Connection(
        server="https://api:6443",
        namespace="dp",
        authorities="authority",
        certificate=(b"own", b"key"),
        server_name="kubernetes",
    )


def test_tokens(tmp_path: Path) -> None:
    found = kubeconfig.from_file(config(tmp_path, cluster={}, user={"token": "t"}))
    assert (found.token, found.token_file) == ("t", None)
    found = kubeconfig.from_file(config(tmp_path, cluster={}, user={"tokenFile": "token"}))
    assert (found.token, found.token_file) == (None, tmp_path / "token")


@pytest.mark.parametrize(
    ("cluster", "user", "reason"),
    [
        ({"insecure-skip-tls-verify": True}, {}, "not supported"),
        ({"server": "http://api:8080"}, {}, "must be https"),
        ({}, {"exec": {"command": "print-token"}}, "token or a client certificate"),
        ({}, {"username": "me", "password": "secret"}, "token or a client certificate"),
        ({}, {"auth-provider": {"name": "gcp"}}, "token or a client certificate"),
        ({"certificate-authority": "nowhere"}, {}, "cannot be read"),
        ({"certificate-authority-data": "!"}, {}, "cannot be read"),
        ({"server": 6443}, {}, "cannot be read as a kubeconfig"),
        ({"server": "https://[::1"}, {}, "is no URL"),
        ({"server": "https://api:99999"}, {}, "is no URL"),
        ({"server": "https://a b"}, {}, "is no URL"),
        ({"server": "https://é"}, {}, "is no URL"),
        ({"server": "https://"}, {}, "is no URL"),
        ({"certificate-authority": "a\0b"}, {}, "cannot be read"),
        ({"certificate-authority-data": "é"}, {}, "cannot be read"),
        ({}, {"token": "a\nHost: b"}, "that no token has"),
        ({}, {"token": "é"}, "that no token has"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Invalid, match=reason) as caught:
        kubeconfig.from_file(config(tmp_path, cluster=cluster, user=user))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "a: [", "current-context: nowhere", "\x00", "2020-13-45"),
        *("1" * 5000, "[" * 5000 + "]" * 5000),
    ],
)
def test_files_that_are_no_kubeconfig(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(Invalid):
        kubeconfig.from_file(path)
    with pytest.raises(Invalid):
        kubeconfig.from_file(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("host", "server"),
    [("10.96.0.1", "https://10.96.0.1:443"), ("fd00::1", "https://[fd00::1]:443")],
)
def test_a_pod_knows_where_it_is(tmp_path: Path, host: str, server: str) -> None:
    environment = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "443"}
    with pytest.raises(Invalid, match="mounted"):
        kubeconfig.find(environment, account=tmp_path)
    (tmp_path / "namespace").write_text("dp\n")
    (tmp_path / "ca.crt").write_text("authority")
    assert kubeconfig.find(environment, account=tmp_path) == Connection(
        server=server, namespace="dp", authorities="authority", token_file=tmp_path / "token"
    )


def test_which_one_is_taken(tmp_path: Path) -> None:
    named = config(tmp_path, cluster={}, user={})
    pod = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
    found = kubeconfig.find({"KUBECONFIG": str(named)} | pod, account=tmp_path)
    assert found.server == "https://api:6443"
    home = tmp_path / "home"
    with pytest.raises(Invalid, match="KUBECONFIG"):
        kubeconfig.find({"HOME": str(home)})
    (home / ".kube").mkdir(parents=True)
    named.rename(home / ".kube" / "config")
    assert kubeconfig.find({"HOME": str(home)}).server == "https://api:6443"


def test_certificates_that_are_none() -> None:
    ca = issuing.authority(now=issuing.now())
    locked = serialization.load_pem_private_key(ca.key, password=None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    fields: tuple[dict[str, Any], ...] = (
        {"authorities": "no PEM"},
        {"authorities": "é"},
        {"certificate": (b"no", b"PEM")},
        {"certificate": (b"\0", ca.key)},
        # Nobody is asked for the passphrase.
        {"certificate": (ca.certificate, locked)},
    )
    for given in fields:
        with pytest.raises(Invalid, match="certificate"):
            Connection(server="https://api", **given).tls()
