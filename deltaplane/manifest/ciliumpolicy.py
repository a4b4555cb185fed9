"""CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy, what is about layers 3 and 4.

The rules are those of Cilium's reference and of what its agent accepts. What is not supported is
refused by the name of its field. docs/reference/policies-cilium.md lists all fields.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from deltaplane.manifest.ciliumlabels import read_subject
from deltaplane.manifest.ciliumrules import Direction, read_rule
from deltaplane.manifest.objects import GeneralPolicyManifest
from deltaplane.manifest.reading import Reader
from deltaplane.manifest.workloads import read_audit, read_labels
from deltaplane.model.tiers import Action, Policy, PolicyKind, Rule, Selector

_SECTIONS = {
    Direction.INGRESS: {"ingress": Action.ALLOW, "ingressDeny": Action.DENY},
    Direction.EGRESS: {"egress": Action.ALLOW, "egressDeny": Action.DENY},
}
_SECTION_NAMES = tuple(name for sections in _SECTIONS.values() for name in sections)
_NOTES = ("description", "labels")
"""Fields for people."""
_REFUSED = {
    "nodeSelector": (
        "traffic of nodes is not judged here, only that of pods; select pods with endpointSelector"
    ),
    "log": "flows carry no text of policies here; use description",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Section:
    """What a spec says about one direction."""

    isolates: bool
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spec:
    """One of the specs of an object. place: where its subject stands."""

    subject: Selector
    place: Reader
    ingress: _Section
    egress: _Section


def read_cilium_policy(
    reader: Reader, kind: PolicyKind, namespace: str, name: str
) -> GeneralPolicyManifest:
    """Reads an object; what is wrong in it is reported and left out.

    Several specs of one object become one policy and must have equal subjects: policies are
    replaced and deleted by name, and there cannot be two of one name.
    """
    metadata = reader.get("metadata")
    # Checked, then dropped: nothing selects policies.
    read_labels(metadata)
    one, several = reader.get("spec"), reader.get("specs")
    given = [("", one)] if one else []
    if several:
        given += [(f"specs[{i}].", item) for i, item in enumerate(several.items())]
    elif one is None:
        reader.mistake("is required", field="spec")
    if several and several.value == []:
        several.mistake("must hold at least one spec")
    read = (_read_spec(item, namespace, label) for label, item in given)
    specs = [spec for spec in read if spec is not None]
    _check_subjects(specs)
    policy = Policy(
        kind=kind,
        namespace=namespace,
        name=name,
        subject=specs[0].subject if specs else Selector(),
        isolates_ingress=any(spec.ingress.isolates for spec in specs),
        isolates_egress=any(spec.egress.isolates for spec in specs),
        audit=read_audit(metadata),
        ingress=tuple(rule for spec in specs for rule in spec.ingress.rules),
        egress=tuple(rule for spec in specs for rule in spec.egress.rules),
    )
    values = [item.value for _, item in given]
    return GeneralPolicyManifest(
        policy=policy, spec=json.dumps(values if several else next(iter(values), None))
    )


def _check_subjects(specs: Sequence[_Spec]) -> None:
    for spec in specs:
        if spec.subject != specs[0].subject:
            spec.place.mistake(
                "selects other pods than the first spec; a policy has one subject here: write "
                "this spec as a policy of its own"
            )


def _read_spec(reader: Reader, namespace: str, label: str) -> _Spec | None:
    known = ("endpointSelector", *_SECTION_NAMES, "enableDefaultDeny", *_NOTES, *_REFUSED)
    if not reader.has_fields(known):
        return None
    reader.refuse(_REFUSED)
    _read_notes(reader)
    if not any((section := reader.get(name)) and section.value for name in _SECTION_NAMES):
        names = ", ".join(_SECTION_NAMES)
        reader.mistake(f"must have a rule in one of {names}; the rule {{}} isolates, nothing else")
    denies = reader.get("enableDefaultDeny")
    if denies is not None:
        denies.has_fields(("ingress", "egress"))
    ingress = _read_section(reader, Direction.INGRESS, namespace, label)
    egress = _read_section(reader, Direction.EGRESS, namespace, label)
    place = reader.get("endpointSelector")
    if place is None:
        if reader.get("nodeSelector") is None:
            reader.mistake("is required; {} selects every pod", field="endpointSelector")
        return None
    return _Spec(
        subject=read_subject(place, namespace), place=place, ingress=ingress, egress=egress
    )


def _read_notes(reader: Reader) -> None:
    if description := reader.get("description"):
        description.text()
    if labels := reader.get("labels"):
        labels.items()


def _read_section(reader: Reader, direction: Direction, namespace: str, label: str) -> _Section:
    rules = []
    for name, action in _SECTIONS[direction].items():
        section = reader.get(name)
        for index, item in enumerate(section.items() if section else []):
            rule = read_rule(item, direction, action, namespace, f"{label}{name}[{index}]")
            rules.append(rule)
    denies, field = reader.get("enableDefaultDeny"), direction.name.lower()
    flag = denies.get(field) if denies else None
    wanted = flag.boolean() if flag else None
    if flag is not None and wanted and not rules:
        flag.mistake(f"has no effect without a rule, as in Cilium; add {field}: [{{}}]")
    return _Section(isolates=bool(rules) and wanted is not False, rules=tuple(rules))
