"""Replicas of the services: their repositories over the port of one process."""

from collections.abc import Mapping

from deltaplane.model.identity import LabelSet
from nodeagent.control import NodeFacts
from nodeagent.entries import InterfaceRecord
from services.endpoints.identity import LabelFilter
from services.endpoints.records import Node, Owner, Request
from services.endpoints.repository.cleaning import Cleaner
from services.endpoints.repository.endpoints import Endpoints
from services.endpoints.repository.following import Follower
from services.endpoints.repository.identities import Identities, Numbered
from services.endpoints.repository.nodes import Nodes
from services.endpoints.repository.registering import Registrar
from services.endpoints.repository.repairing import Repairer
from services.endpoints.wire.requests import Release
from services.ipam.repository import Repository
from tests.soak.processes import Port, Process

LABELS = LabelFilter()


class Ipam:
    """One replica of services/ipam."""

    def __init__(self, process: Process, port: Port) -> None:
        self.process = process
        self.repository = Repository(port)


class Registry:
    """One replica of services/endpoints. It may know some identities from before."""

    def __init__(self, process: Process, port: Port, numbered: Mapping[LabelSet, Numbered]) -> None:
        self.process = process
        self.port = port
        identities = Identities(port)
        identities._known.update(numbered)
        self.identities = identities
        cleaner = Cleaner(port)
        follower = Follower(port, identities, LABELS)
        self.nodes = Nodes(port, cleaner)
        self.registrar = Registrar(port, identities, follower, LABELS)
        self.endpoints = Endpoints(port)
        self.repairer = Repairer(port, follower, cleaner)


def request_of(record: InterfaceRecord, node: NodeFacts) -> Request:
    """The registration of an interface."""
    return Request(
        node=node.name,
        node_uid=node.uid,
        id=record.number,
        namespace=record.pod.namespace,
        pod=record.pod.name,
        pod_uid=record.pod.uid,
        owner=owner_of(record),
        addresses=record.addresses,
    )


def release_of(record: InterfaceRecord, node: NodeFacts) -> Release:
    """The release of an interface."""
    return Release(
        namespace=record.pod.namespace,
        pod=record.pod.name,
        node=node.name,
        id=record.number,
        guard=owner_of(record),
    )


def owner_of(record: InterfaceRecord) -> Owner:
    """The owner token of an interface."""
    at = record.attachment
    return Owner(
        network=at.network,
        container_id=at.container_id,
        interface=at.ifname,
        attempt=record.attempt,
    )


def node_of(facts: NodeFacts) -> Node:
    """A node as it registers."""
    return Node(name=facts.name, uid=facts.uid, addresses=facts.addresses, boot_id=facts.boot_id)
