from dataclasses import replace

from deltaplane import manifest
from lab import manifests, nameserver
from lab.manifests import Manifests
from lab.topology import NAME_SERVERS

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{port: 80}]}
"""


def known(text: str = SERVICE) -> Manifests:
    return manifests.sort(manifest.parse(text, source="test"))


def test_the_name_server_is_a_pod_and_a_service() -> None:
    found = nameserver.added(known(), ())

    (workload,) = found.workloads
    assert (workload.namespace, workload.owner) == ("kube-system", "kube-dns")
    server, web = found.services
    assert (server.namespace, server.name, web.name) == ("kube-system", "kube-dns", "web")
    assert len(server.service.cluster_ips) == len(NAME_SERVERS)
    assert [item.name for item in found.namespaces] == ["kube-system"]


def test_its_namespace_is_not_written_over() -> None:
    own = "{apiVersion: v1, kind: Namespace, metadata: {name: kube-system, labels: {a: b}}}"
    given = replace(known(), namespaces=known(own).namespaces)

    assert nameserver.added(given, ()).namespaces == given.namespaces
    assert nameserver.added(known(), {"kube-system"}).namespaces == ()


def test_somebody_elses_is_left_alone() -> None:
    theirs = known(SERVICE.replace("name: web", "name: kube-dns, namespace: kube-system"))
    assert nameserver.added(theirs, ()) is theirs
