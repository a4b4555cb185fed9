import pytest

from deltaplane.certs import issuing
from deltaplane.cli.redaction import REMOVED, redacted
from deltaplane.runtime.roles import Peer, Role

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"


def test_no_line_of_a_real_key_is_left() -> None:
    now = issuing.now()
    authority = issuing.authority(now=now)
    made = issuing.issue(authority, issuing.Wanted(peer=Peer(Role.SLICER)), now=now)
    key = made.key.decode()

    for text in (key, f"before\n{key}after", key.rpartition("-----END")[0], repr(key)):
        found = redacted(text)
        assert REMOVED in found
        for line in key.splitlines()[1:-1]:
            assert line not in found


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("password=hunter2 user=me", "hunter2"),
        ('{"etcd_password": "a b\\"c", "x": 1}', "a b"),
        ("DELTAPLANE_TOKEN: s3cr3t", "s3cr3t"),
        ("client-secret = 'x y'", "x y"),
        ("Authorization: Bearer abcdefgh.ijkl", "abcdefgh"),
        ("--auth-token abcdef --listen x", "abcdef"),
        ('argv ["--password", "abcdef"]', "abcdef"),
        ("https://me:hunter2@example.com/x", "hunter2"),
        (f"saw {JWT} here", JWT),
        ("apiKey=zzz", "zzz"),
    ],
)
def test_secrets_go(text: str, secret: str) -> None:
    assert secret not in redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"event": "block_claimed", "prefix": "10.244.0.0/26", "key": "registry/x"}',
        "node-1 agrees with revision 12; 3 tokens left",
        "--tls-dir /etc/deltaplane/tls --listen 127.0.0.1:4002",
        "http://127.0.0.1:2379/health",
    ],
)
def test_the_rest_stays(text: str) -> None:
    assert redacted(text) == text
