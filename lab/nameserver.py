"""The lab's name server as a workload: one pod and its service, as in a cluster. Pure."""

from collections.abc import Container
from dataclasses import replace

from deltaplane import manifest
from lab import manifests
from lab.manifests import Manifests
from lab.pods import SERVES
from lab.topology import NAME_SERVERS

NAMESPACE, NAME = "kube-system", "kube-dns"
"""As kubeadm calls them: policies that let pods ask for names are written for these."""

TEXT = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {NAME}, namespace: {NAMESPACE}}}
spec:
  selector:
    matchLabels: {{k8s-app: {NAME}}}
  template:
    metadata:
      labels: {{k8s-app: {NAME}}}
      annotations: {{{SERVES}: dns}}
    spec:
      containers:
        - name: dns
          ports:
            - {{name: dns, containerPort: 53, protocol: UDP}}
            - {{name: dns-tcp, containerPort: 53}}
---
apiVersion: v1
kind: Service
metadata: {{name: {NAME}, namespace: {NAMESPACE}}}
spec:
  clusterIPs: ["{NAME_SERVERS[0]}", "{NAME_SERVERS[1]}"]
  ipFamilyPolicy: RequireDualStack
  selector: {{k8s-app: {NAME}}}
  ports:
    - {{name: dns, port: 53, protocol: UDP, targetPort: dns}}
    - {{name: dns-tcp, port: 53, targetPort: dns-tcp}}
"""


def added(known: Manifests, namespaces: Container[str]) -> Manifests:
    """The manifests with the name server, unless they bring one of that name.

    Its namespace is left as it is where namespaces, those that are there, or the manifests have it.
    """
    own = manifests.sort(manifest.parse(TEXT, source="the lab's name server"))
    if any((item.namespace, item.name) == (NAMESPACE, NAME) for item in known.services):
        return known
    given = {item.name for item in known.namespaces}
    is_new = NAMESPACE not in given and NAMESPACE not in namespaces
    return replace(
        known,
        namespaces=(*(own.namespaces if is_new else ()), *known.namespaces),
        workloads=(*own.workloads, *known.workloads),
        services=(*own.services, *known.services),
    )
