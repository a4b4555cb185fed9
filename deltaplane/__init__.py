"""Deltaplane: the pod-network control plane and eBPF data plane for large Kubernetes clusters.

This package holds what the services, the node agent, the lab and the command line share. It starts
no
process of its own and touches neither the kernel nor the network except through `store` and
`runtime`.
"""

__version__ = "0.1.0"
