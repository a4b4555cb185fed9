import secrets

import pytest

from lab import netns
from tests.chaos.spray import FRESH_AFTER, _Sender


def test_a_pod_that_goes_does_not_end_it() -> None:
    name = f"dpspray{secrets.token_hex(4)}"
    netns.create(name)
    try:
        sender = _Sender((name, "127.0.0.1"))
    finally:
        netns.delete(name)
    try:
        for _ in range(2 * FRESH_AFTER):
            sender.send()
    finally:
        sender.close()
    with pytest.raises(OSError, match=name):
        _Sender((name, "127.0.0.1"))
