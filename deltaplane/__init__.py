"""Deltaplane: the pod-network control plane and eBPF data plane for large Kubernetes clusters.

This package holds what the services, the node agent, the lab and the command line share. It starts
no process of its own and touches neither the kernel nor the network except through `store` and
`runtime`.
"""

import os
import sys

__version__ = "0.1.0"

GRPC_CIPHERS = "ECDHE-RSA-AES128-GCM-SHA256"
"""Keeps gRPC from TLS 1.2, which it has no switch for: see `deltaplane.runtime.tls`."""

GRPC_CAME_FIRST = "grpc" in sys.modules
"""Then it has not seen the next line, and `deltaplane.runtime.tls` refuses to work."""

os.environ["GRPC_SSL_CIPHER_SUITES"] = GRPC_CIPHERS
