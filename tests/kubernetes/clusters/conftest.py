"""What only a real kube-apiserver can show: `make test-kubernetes`."""

import pytest

from services.kubernetes.api.kubeconfig import Connection
from tests.kubernetes import real


@pytest.fixture
def connection() -> Connection:
    """Of the real server, and of no other."""
    return real.connection()
