"""The options of the bridge."""

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, model_validator

from deltaplane.model import names
from deltaplane.runtime.config import (
    ListenAddress,
    ListenAddresses,
    ProcessConfig,
    existing_folder,
)
from services.kubernetes.kinds import Kind

_WORDS = {kind.word: kind for kind in Kind}


def _kinds(words: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := [word for word in words if word not in _WORDS]:
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(_WORDS)}")
    return words


def _name(text: str) -> str:
    if text and (reason := names.dns_subdomain_mistake(text)):
        raise ValueError(f'"{text}" {reason}')
    return text


class Config(ProcessConfig):
    """Where the API server and the registry are, and who of several replicas writes."""

    EXAMPLES: ClassVar[str] = (
        "  python -m services.kubernetes --registry 10.0.0.5:4002,10.0.0.6:4002\n"
        "  python -m services.kubernetes --registry 127.0.0.1:4002 --kubeconfig ~/.kube/config \\\n"
        "      --unwatch CiliumNetworkPolicy,CiliumClusterwideNetworkPolicy"
    )

    registry: ListenAddresses = Field(
        default=("127.0.0.1:4002",),
        description="endpoint registries (services/endpoints), which take turns",
    )
    slicer: tuple[ListenAddress, ...] = Field(
        default=(),
        description="slicers, which take turns; they say when a pod with the readiness gate "
        "deltaplane.dev/network-ready is known; none: such pods stay unready",
    )
    kubeconfig: str = Field(
        default="",
        description="file that says where the API server is; none: $KUBECONFIG, the pod's service "
        "account, or ~/.kube/config",
    )
    unwatch: Annotated[tuple[str, ...], AfterValidator(_kinds)] = Field(
        default=(),
        description="kind that is neither watched nor written nor removed, as in the field kind; "
        "repeatable",
    )
    lease_name: Annotated[str, AfterValidator(_name)] = Field(
        default="deltaplane-bridge", description="Lease that the writing replica holds"
    )
    lease_namespace: Annotated[str, AfterValidator(_name)] = Field(
        default="", description="where the Lease is; none: the namespace of the pod or kubeconfig"
    )
    lease_seconds: int = Field(
        default=10,
        ge=3,
        le=300,
        description="after the last sign of life of the writing replica another one takes over",
    )
    identity: str = Field(
        default="", description="name of this replica in the Lease; none: made of host and chance"
    )
    audit_seconds: float = Field(
        default=300.0,
        ge=10.0,
        description="how often the registry is listed again: somebody else may have written it",
    )
    clear_node_condition: bool = Field(
        default=True,
        description="set the condition NetworkUnavailable of nodes to False once their agent is up",
    )
    events: bool = Field(
        default=True, description="create Events on objects that cannot be programmed"
    )
    node_ca: Annotated[Path | None, AfterValidator(existing_folder)] = Field(
        default=None,
        description="folder with ca.crt, tls.crt and tls.key of a CA for nodes (`deltaplane certs "
        "node-ca`): agents get their certificates by it; none: not from us",
    )
    node_certificate_days: int = Field(
        default=7, ge=1, le=90, description="for how long such a certificate is, at most"
    )
    agent_account: Annotated[str, AfterValidator(_name)] = Field(
        default="deltaplane-agent",
        description="service account of the agents' pods, in the namespace of the Lease",
    )

    @model_validator(mode="after")
    def _check_kinds(self) -> "Config":
        if {"Namespace", "Pod"} & set(self.unwatch):
            raise ValueError(
                "--unwatch: namespaces and pods are always watched: all else needs them"
            )
        if self.node_ca is not None and "Node" in self.unwatch:
            raise ValueError("--unwatch: --node-ca needs nodes: only those there are get one")
        return self

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds that are watched."""
        return tuple(kind for kind in Kind if kind.word not in self.unwatch)
