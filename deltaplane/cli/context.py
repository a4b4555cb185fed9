"""Which services a command talks to: flags, then environment, then a lab."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from deltaplane.cli.client import Targets
from deltaplane.cli.options import Options
from deltaplane.errors import Invalid, NotFound

SERVICES = ("registry", "ipam", "slicer")
LAB_VARIABLE = "DELTAPLANE_LAB"
PREFIX = "DELTAPLANE_"
TRUE = frozenset({"1", "true", "yes", "on"})


def resolve(options: Options, environment: Mapping[str, str], labs: Sequence[str]) -> str | Targets:
    """Decides between a lab, by name, and targets.

    Args:
        options: flags of the command line.
        environment: DELTAPLANE_LAB, DELTAPLANE_REGISTRY and so on.
        labs: names of the labs that run.

    Raises:
        Invalid: only some targets are given and no lab fills in the others, or several labs run.
        NotFound: nothing is given and no lab runs.
    """
    given = {
        service: options.targets.get(service) or environment.get(f"{PREFIX}{service.upper()}", "")
        for service in SERVICES
    }
    lab = options.lab or environment.get(LAB_VARIABLE, "")
    if any(given.values()) and not lab:
        if lacking := [service for service, target in given.items() if not target]:
            flags = ", ".join(f"--{service}" for service in lacking)
            raise Invalid("", f"also give {flags}, or --lab for the services of a lab")
        return Targets(registry=given["registry"], ipam=given["ipam"], slicer=given["slicer"])
    if lab:
        return lab
    if not labs:
        raise NotFound(
            "no lab runs and no service is named: start one with `deltaplane lab up`, or give "
            "--registry, --ipam and --slicer (host:port or unix:/path)"
        )
    if len(labs) > 1:
        raise Invalid("--lab", f"several labs run ({', '.join(labs)}); name one")
    return labs[0]


def certificate(options: Options, environment: Mapping[str, str]) -> Path | None:
    """The folder of the certificate for services that are named; None: in plain text.

    Raises:
        Invalid: neither is said, or both are.
    """
    folder = options.tls_dir or environment.get(f"{PREFIX}TLS_DIR", "")
    if options.tls_dir and options.insecure:
        raise Invalid("", "--tls-dir and --insecure: choose one")
    if options.insecure:
        return None
    if folder:
        return Path(folder)
    if environment.get(f"{PREFIX}INSECURE", "").lower() in TRUE:
        return None
    raise Invalid(
        "",
        "--tls-dir (or DELTAPLANE_TLS_DIR) names the folder of your certificate; `deltaplane certs "
        "issue` makes one of the role admin. Without TLS: --insecure (or DELTAPLANE_INSECURE=1)",
    )


def targets(options: Options) -> Targets:
    """The services to talk to. Looks for labs on this machine only when nothing is named.

    Raises:
        Invalid: as `resolve` and `certificate`.
        NotFound: as `resolve`, or there is no lab of that name.
    """
    from lab import cluster, lifecycle
    from lab.layout import Layout

    choice = resolve(options, os.environ, running_labs())
    if isinstance(choice, Targets):
        return replace(choice, tls_dir=certificate(options, os.environ))
    layout = Layout(lab=choice)
    lifecycle.topology_of(layout)
    found = cluster.targets(layout)
    overrides = {
        service: options.targets[service] for service in SERVICES if options.targets.get(service)
    }
    return Targets(
        registry=overrides.get("registry", found.registry),
        ipam=overrides.get("ipam", found.ipam),
        slicer=overrides.get("slicer", found.slicer),
        hint=found.hint,
        tls_dir=Path(options.tls_dir) if options.tls_dir else found.tls_dir,
    )


def agents(options: Options) -> Mapping[str, str]:
    """The targets of a lab's agents by node; none where services are named instead of a lab.

    Raises:
        Invalid: as `resolve`.
        NotFound: as `targets`.
    """
    from lab import lifecycle
    from lab.layout import Layout

    if not (lab := lab_of(options)):
        return {}
    layout = Layout(lab=lab)
    return {
        node.name: f"unix:{layout.node(node.name).agent_socket}"
        for node in lifecycle.topology_of(layout).nodes
    }


def admins(options: Options) -> Mapping[str, str]:
    """The admin addresses of a lab's processes by name; none where services are named instead.

    Raises:
        Invalid: as `resolve`.
        NotFound: as `targets`.
    """
    from lab import lifecycle, programs
    from lab.layout import Layout

    if not (lab := lab_of(options)):
        return {}
    layout = Layout(lab=lab)
    found = {name: layout.admin_socket(name) for name in programs.SERVICES}
    for node in lifecycle.topology_of(layout).nodes:
        found[programs.agent_name(node.name)] = layout.node(node.name).agent_admin
    return {name: f"unix:{path}" for name, path in found.items()}


def lab_of(options: Options) -> str:
    """The lab whose processes to look at; empty: services are named instead."""
    choice = resolve(options, os.environ, running_labs())
    return "" if isinstance(choice, Targets) else choice


def running_labs() -> tuple[str, ...]:
    """Names of the labs whose supervisor is alive."""
    from lab import lifecycle
    from lab.layout import Layout

    return tuple(name for name in lifecycle.labs() if lifecycle.is_running(Layout(lab=name)))


def lab_name(name: str) -> str:
    """The lab that a `lab` command means: the option, the environment's, or the only one.

    Raises:
        NotFound: there is none.
        Invalid: there are several.
    """
    from lab import lifecycle

    if chosen := name or os.environ.get(LAB_VARIABLE, ""):
        return chosen
    there = lifecycle.labs()
    if not there:
        raise NotFound("there is no lab; start one with `deltaplane lab up`")
    if len(there) > 1:
        raise Invalid("--name", f"there are several labs ({', '.join(there)}); name one")
    return there[0]
