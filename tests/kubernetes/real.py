"""A real API server, where there is one: `make test-kubernetes` asks for the one in KUBECONFIG.

An ordinary run never looks at KUBECONFIG: whoever has one set did not mean to lend the cluster.
"""

import os

import pytest

from services.kubernetes.api import kubeconfig
from services.kubernetes.api.kubeconfig import Connection

ASKED = "DELTAPLANE_TEST_KUBERNETES"


def asked() -> bool:
    return bool(os.environ.get(ASKED))


def connection() -> Connection:
    """Of the real server; skips the test where there is none."""
    if not asked():
        pytest.skip("a real kube-apiserver is only asked by `make test-kubernetes`")
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG is not set: there is no real kube-apiserver to ask")
    return kubeconfig.find(os.environ)
