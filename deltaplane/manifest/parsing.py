"""Kubernetes YAML to manifests, or all mistakes in it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from deltaplane.manifest.ciliumpolicy import read_cilium_policy
from deltaplane.manifest.clusterpolicy import baseline_name_mistake, read_cluster_policy
from deltaplane.manifest.document import Document, Value, load
from deltaplane.manifest.endpointslices import read_endpoint_slice
from deltaplane.manifest.fields import API_VERSIONS, METADATA
from deltaplane.manifest.mistakes import ManifestError, Mistake
from deltaplane.manifest.networkpolicy import read_policy
from deltaplane.manifest.objects import (
    GeneralPolicyManifest,
    Manifest,
    NamespaceManifest,
    PolicyManifest,
)
from deltaplane.manifest.reading import Reader
from deltaplane.manifest.services import read_service
from deltaplane.manifest.workloads import (
    read_audit,
    read_deployment,
    read_labels,
    read_namespace,
    read_pod,
    read_stateful_set,
)
from deltaplane.model import names
from deltaplane.model.tiers import PolicyKind

DEFAULT_NAMESPACE = "default"


def parse(text: str, source: str) -> tuple[Manifest, ...]:
    """Reads manifests.

    Args:
        text: YAML, any number of documents; JSON is YAML, too.
        source: name of the file, for mistakes.

    Returns:
        The objects in the order of the text; those of a List stand in its place.

    Raises:
        ManifestError: there are mistakes; it holds all of them.
    """
    parsing = _Parsing(source)
    for document in load(text, parsing.report):
        parsing.read(document)
    if parsing.mistakes:
        raise ManifestError(sorted(parsing.mistakes, key=lambda item: (item.document, item.line)))
    return tuple(parsing.manifests)


OBSERVED = ("Service", "EndpointSlice")
"""Kinds of which `observe` ignores fields that are not known."""
POLICIES = tuple(kind.value for kind in PolicyKind)
"""Kinds of which it ignores none: a restriction that is not heeded would open what it closes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """An object of a cluster.

    Attributes:
        manifest: what it says.
        warnings: what of it is not heeded, in no order.
    """

    manifest: Manifest
    warnings: tuple[Mistake, ...]


def observe(value: Value, source: str) -> Observed:
    """Reads an object that an API server has taken already.

    That server may be newer than we are: fields that are not known are ignored with a warning,
    but for those of policies.

    Args:
        value: plain value of one object of a kind in OBSERVED or POLICIES.
        source: where it comes from, for mistakes and warnings.

    Raises:
        ManifestError: it breaks a rule of its kind, or is of another kind.
    """
    is_policy = isinstance(value, dict) and value.get("kind") in POLICIES
    parsing = _Parsing(source, warnings=None if is_policy else [])
    parsing.read(Document(1, value, {}), kinds=POLICIES if is_policy else OBSERVED)
    if parsing.mistakes:
        raise ManifestError(parsing.mistakes)
    return Observed(manifest=parsing.manifests[0], warnings=tuple(parsing.warnings or ()))


@dataclass(slots=True)
class _Parsing:
    source: str
    manifests: list[Manifest] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)
    # None: what could be a warning is a mistake.
    warnings: list[Mistake] | None = None
    # Kind, namespace and name → where it was seen first.
    _seen: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def report(self, document: int, line: int, path: str, reason: str) -> None:
        """Adds a mistake."""
        self.mistakes.append(
            Mistake(source=self.source, document=document, line=line, path=path, reason=reason)
        )

    def read(self, document: Document, kinds: Sequence[str] = ()) -> None:
        """Reads the object or list of objects in a document; kinds: one object of these."""

        def mistake(path: str, reason: str) -> Mistake:
            line = document.line(path)
            return Mistake(
                source=self.source, document=document.number, line=line, path=path, reason=reason
            )

        def report(path: str, reason: str) -> None:
            self.mistakes.append(mistake(path, reason))

        def warn(path: str, reason: str) -> None:
            if self.warnings is not None:
                self.warnings.append(mistake(path, reason))

        reader = Reader(document.value, "", report, None if self.warnings is None else warn)
        if kinds:
            self._object(reader, document, kinds)
        elif isinstance(document.value, dict) and document.value.get("kind") == "List":
            reader.has_fields(("apiVersion", "kind", "metadata", "items"))
            _check_version(reader, "v1")
            items = reader.require("items")
            for item in items.items() if items else []:
                self._object(item, document)
        else:
            self._object(reader, document)

    def _object(self, reader: Reader, document: Document, kinds: Sequence[str] = ()) -> None:
        if not isinstance(reader.value, dict):
            reader.mistake("must be a Kubernetes object, a mapping with apiVersion and kind")
            return
        kind = reader.require("kind")
        word = kind.choice(kinds or tuple(_KINDS)) if kind else None
        if word is None:
            return
        rules = _KINDS[word]
        reader.has_fields(("apiVersion", "kind", "metadata", *rules.fields))
        _check_version(reader, rules.version, *rules.other_versions)
        metadata = reader.require("metadata")
        if metadata is None or not metadata.has_fields(METADATA):
            return
        name, namespace = _name(metadata, rules), _namespace(metadata, rules)
        manifest = rules.read(reader, namespace, name)
        self.manifests.append(manifest)
        if name:
            where = f"document {document.number}, line {document.line(reader.path)}"
            first = self._seen.setdefault((word, namespace, name), where)
            if first is not where:
                shown = f"{namespace}/{name}" if namespace else name
                metadata.mistake(f"{word} {shown} is given twice; first in {first}", field="name")


@dataclass(frozen=True, slots=True)
class _KindRules:
    """How to read a kind.

    Attributes:
        version: its apiVersion.
        namespace: where it lives unless it says so; None: in no namespace.
        name_mistake: check of its name.
        fields: names at the top besides apiVersion, kind and metadata.
        read: makes the manifest out of the object, its namespace and name ("" when it has none).
        other_versions: apiVersions with the same fields.
    """

    version: str
    namespace: str | None
    name_mistake: Callable[[str], str | None]
    fields: tuple[str, ...]
    read: Callable[[Reader, str, str], Manifest]
    other_versions: tuple[str, ...] = ()


def _read_namespace(reader: Reader, _: str, name: str) -> NamespaceManifest:
    return read_namespace(reader, name)


def _read_policy(reader: Reader, namespace: str, name: str) -> PolicyManifest:
    # An absent spec is an empty one: it selects every pod and allows nothing in.
    spec = reader.get("spec") or Reader({}, "spec", reader.report, reader.warn)
    metadata = reader.get("metadata")
    # Checked, then dropped: nothing selects policies.
    read_labels(metadata)
    policy = read_policy(spec, namespace, name, audit=read_audit(metadata))
    return PolicyManifest(policy=policy)


def _read_cilium(reader: Reader, namespace: str, name: str) -> GeneralPolicyManifest:
    return read_cilium_policy(reader, PolicyKind.CILIUM, namespace, name)


def _read_cilium_clusterwide(reader: Reader, _: str, name: str) -> GeneralPolicyManifest:
    return read_cilium_policy(reader, PolicyKind.CILIUM_CLUSTERWIDE, "", name)


def _read_cluster(kind: PolicyKind) -> Callable[[Reader, str, str], GeneralPolicyManifest]:
    return lambda reader, _, name: read_cluster_policy(reader, kind, name)


_KINDS = {
    "Namespace": _KindRules(
        "v1", None, names.dns_label_mistake, ("spec", "status"), _read_namespace
    ),
    "Pod": _KindRules(
        "v1", DEFAULT_NAMESPACE, names.dns_subdomain_mistake, ("spec", "status"), read_pod
    ),
    "Deployment": _KindRules(
        "apps/v1",
        DEFAULT_NAMESPACE,
        names.dns_subdomain_mistake,
        ("spec", "status"),
        read_deployment,
    ),
    "StatefulSet": _KindRules(
        "apps/v1",
        DEFAULT_NAMESPACE,
        names.dns_subdomain_mistake,
        ("spec", "status"),
        read_stateful_set,
    ),
    "Service": _KindRules(
        "v1", DEFAULT_NAMESPACE, names.service_name_mistake, ("spec", "status"), read_service
    ),
    "EndpointSlice": _KindRules(
        "discovery.k8s.io/v1",
        DEFAULT_NAMESPACE,
        names.dns_subdomain_mistake,
        ("addressType", "endpoints", "ports"),
        read_endpoint_slice,
    ),
    "NetworkPolicy": _KindRules(
        API_VERSIONS[PolicyKind.NETWORK_POLICY],
        DEFAULT_NAMESPACE,
        names.dns_subdomain_mistake,
        ("spec",),
        _read_policy,
    ),
    PolicyKind.CILIUM.value: _KindRules(
        API_VERSIONS[PolicyKind.CILIUM],
        DEFAULT_NAMESPACE,
        names.dns_subdomain_mistake,
        ("spec", "specs", "status"),
        _read_cilium,
    ),
    PolicyKind.CILIUM_CLUSTERWIDE.value: _KindRules(
        API_VERSIONS[PolicyKind.CILIUM_CLUSTERWIDE],
        None,
        names.dns_subdomain_mistake,
        ("spec", "specs", "status"),
        _read_cilium_clusterwide,
    ),
    PolicyKind.CLUSTER.value: _KindRules(
        API_VERSIONS[PolicyKind.CLUSTER],
        None,
        names.dns_subdomain_mistake,
        ("spec", "status"),
        _read_cluster(PolicyKind.CLUSTER),
        other_versions=("policy.networking.k8s.io/v1beta1",),
    ),
    PolicyKind.ADMIN.value: _KindRules(
        API_VERSIONS[PolicyKind.ADMIN],
        None,
        names.dns_subdomain_mistake,
        ("spec", "status"),
        _read_cluster(PolicyKind.ADMIN),
    ),
    PolicyKind.BASELINE_ADMIN.value: _KindRules(
        API_VERSIONS[PolicyKind.BASELINE_ADMIN],
        None,
        baseline_name_mistake,
        ("spec", "status"),
        _read_cluster(PolicyKind.BASELINE_ADMIN),
    ),
}


def _check_version(reader: Reader, *versions: str) -> None:
    given = reader.require("apiVersion")
    if given is not None:
        given.choice(versions)


def _name(metadata: Reader, rules: _KindRules) -> str:
    given = metadata.get("name")
    if given is None:
        generated = metadata.get("generateName") is not None
        advice = "; generateName is not supported" if generated else ""
        metadata.mistake(f"is required{advice}", field="name")
        return ""
    return given.text(rules.name_mistake) or ""


def _namespace(metadata: Reader, rules: _KindRules) -> str:
    given = metadata.get("namespace")
    if rules.namespace is None:
        if given is not None:
            given.mistake("must be absent: this kind does not live in a namespace")
        return ""
    if given is None:
        return rules.namespace
    return given.text(names.dns_label_mistake) or ""
