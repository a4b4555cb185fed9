"""Cilium's selectors: labels with a source, of which some stand for the namespace of a pod.

    app, any:app, k8s:app                     a label of the pod
    k8s:io.kubernetes.pod.namespace           the name of its namespace
    k8s:io.cilium.k8s.namespace.labels.KEY    the label KEY of its namespace
    reserved:host                             no pod; see `RESERVED`

Selectors match pods only, NotIn and DoesNotExist included.
"""

import enum
from dataclasses import dataclass, replace

from deltaplane.manifest.document import child
from deltaplane.manifest.networkpolicy import read_requirement
from deltaplane.manifest.reading import Reader
from deltaplane.model import names
from deltaplane.model.identity import NAMESPACE_NAME_LABEL, Reserved
from deltaplane.model.selector import LabelSelector, Operator, Requirement
from deltaplane.model.tiers import Selector

RESERVED = {
    "host": Reserved.HOST,
    "remote-node": Reserved.REMOTE_NODE,
    "world": Reserved.WORLD,
    "kube-apiserver": Reserved.KUBE_APISERVER,
    "init": Reserved.INIT,
    "health": Reserved.HEALTH,
    "unmanaged": Reserved.UNKNOWN,
}
"""What an entity, or a label with the source "reserved", stands for."""

NAMESPACE_NAME = "io.kubernetes.pod.namespace"
NAMESPACE_LABELS = "io.cilium.k8s.namespace.labels."

# Of both, only the above are known here.
_SET_BY_CILIUM = ("io.cilium.k8s.", "io.kubernetes.")
_UNKNOWN_LABELS = {
    "io.cilium.k8s.policy.serviceaccount": "service accounts do not count for identities here",
    "io.cilium.k8s.policy.cluster": "there is only one cluster here; leave the label out",
}
_UNKNOWN_SOURCES = {
    "container": "labels of containers are not known here; use labels of the pod",
    "cidr": "write fromCIDR or toCIDR",
    "fqdn": "names of hosts are not supported",
}


class _About(enum.Enum):
    POD = enum.auto()
    NAMESPACE_NAME = enum.auto()
    NAMESPACE_LABEL = enum.auto()
    RESERVED = enum.auto()


@dataclass(frozen=True, slots=True)
class _Term:
    """A requirement, its key without what it is about. place: its key in the document."""

    about: _About
    requirement: Requirement
    place: Reader


def read_subject(reader: Reader, namespace: str) -> Selector:
    """Reads whom a policy applies to; what is wrong is reported and left out.

    Args:
        reader: an endpointSelector.
        namespace: that the policy lives in; empty for kinds that live in none.
    """
    terms = []
    for term in _terms(reader):
        if term.about is _About.RESERVED:
            term.place.mistake("selects what is no pod; policies apply to pods only")
        elif namespace and term.about is not _About.POD:
            _check_own_namespace(term, namespace)
        else:
            terms.append(term)
    return _selector(terms, namespace)


def read_peer(reader: Reader, namespace: str) -> Selector | Reserved | None:
    """Reads an item of fromEndpoints or toEndpoints; None if it has a mistake.

    Args:
        reader: the item.
        namespace: of pods that the item says nothing about; empty: any.
    """
    terms = _terms(reader)
    reserved = [term for term in terms if term.about is _About.RESERVED]
    if not reserved:
        return _selector(terms, namespace)
    first, entity = reserved[0], RESERVED.get(reserved[0].requirement.key)
    if entity is None:
        first.place.mistake(f"names no identity; known are {', '.join(RESERVED)}")
    elif len(terms) > 1:
        first.place.mistake("is a label of no pod and stands alone; write two items for either")
    elif first.requirement not in (
        Requirement(first.requirement.key, Operator.IN, ("",)),
        Requirement(first.requirement.key, Operator.EXISTS),
    ):
        first.place.mistake('takes the value "", or the operator Exists')
    else:
        return entity
    return None


def _terms(reader: Reader) -> list[_Term]:
    """All requirements but those that have a mistake."""
    if not reader.has_fields(("matchLabels", "matchExpressions")):
        return []
    found = []
    if pairs := reader.get("matchLabels"):
        for text, value in pairs.labels(_key_mistake):
            place = Reader(value, child(pairs.path, text), reader.report)
            found.append(_term(Requirement(text, Operator.IN, (value,)), place))
    expressions = reader.get("matchExpressions")
    for item in expressions.items() if expressions else []:
        requirement, key = read_requirement(item, _key_mistake), item.get("key")
        if requirement is not None and key is not None:
            found.append(_term(requirement, key))
    return [term for term in found if term is not None]


def _term(requirement: Requirement, place: Reader) -> _Term | None:
    about, key = _label(requirement.key)
    if about is _About.NAMESPACE_NAME:
        for value in requirement.values:
            if reason := names.dns_label_mistake(value):
                place.mistake(f'"{value}" {reason}')
                return None
        if requirement.operator is Operator.DOES_NOT_EXIST:
            place.mistake("every pod has a namespace; for what is no pod, name entities")
            return None
    return _Term(about, replace(requirement, key=key), place)


def _key_mistake(text: str) -> str | None:
    try:
        _label(text)
    except ValueError as error:
        return str(error)
    return None


def _label(text: str) -> tuple[_About, str]:
    """What a label is about, and its key there.

    Raises:
        ValueError: it is not valid or not known; the message is the end of a sentence.
    """
    source, colon, key = text.partition(":")
    if not colon and text.startswith("reserved."):
        source, key = "reserved", text.removeprefix("reserved.")
    elif not colon:
        source, key = "any", text
    if source == "reserved":
        return _About.RESERVED, key
    if source not in ("k8s", "any"):
        default = "known are k8s and any, and reserved for peers"
        message = f'has the source "{source}": {_UNKNOWN_SOURCES.get(source, default)}'
        raise ValueError(message)
    if key == NAMESPACE_NAME:
        return _About.NAMESPACE_NAME, NAMESPACE_NAME_LABEL
    about = _About.POD
    if key.startswith(NAMESPACE_LABELS):
        about, key = _About.NAMESPACE_LABEL, key.removeprefix(NAMESPACE_LABELS)
    elif key.startswith(_SET_BY_CILIUM):
        default = "only the namespace's name and labels are known here of what Cilium adds"
        message = f"is not supported: {_UNKNOWN_LABELS.get(key, default)}"
        raise ValueError(message)
    if reason := names.label_key_mistake(key):
        raise ValueError(reason)
    return about, key


def _check_own_namespace(term: _Term, namespace: str) -> None:
    own = Requirement(NAMESPACE_NAME_LABEL, Operator.IN, (namespace,))
    if term.about is not _About.NAMESPACE_NAME or term.requirement != own:
        term.place.mistake(
            f'the policy applies to pods of its own namespace, "{namespace}"; '
            "a CiliumClusterwideNetworkPolicy can select others"
        )


def _selector(terms: list[_Term], namespace: str) -> Selector:
    """The selector of terms that are about pods and namespaces.

    namespace: what they mean if they say nothing about namespaces; empty: any.
    """
    pods = LabelSelector(tuple(t.requirement for t in terms if t.about is _About.POD))
    spaces = [term for term in terms if term.about is not _About.POD]
    if not spaces and namespace:
        return Selector(namespace=namespace, pods=pods)
    # Every pod has a namespace: that it has one is no requirement.
    everywhere = Requirement(NAMESPACE_NAME_LABEL, Operator.EXISTS)
    found = LabelSelector(tuple(t.requirement for t in spaces if t.requirement != everywhere))
    match found.requirements:
        case (Requirement(key=key, operator=Operator.IN, values=(name,)),) if (
            key == NAMESPACE_NAME_LABEL
        ):
            return Selector(namespace=name, pods=pods)
    return Selector(namespaces=found, pods=pods)
