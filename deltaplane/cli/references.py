"""Policies as people name them on a command line."""

from deltaplane.errors import Invalid
from deltaplane.model.tiers import PolicyKind, reference

SHORT = {
    "np": PolicyKind.NETWORK_POLICY,
    "netpol": PolicyKind.NETWORK_POLICY,
    "cnp": PolicyKind.CILIUM,
    "ccnp": PolicyKind.CILIUM_CLUSTERWIDE,
    "cnp-cluster": PolicyKind.CLUSTER,
    "anp": PolicyKind.ADMIN,
    "banp": PolicyKind.BASELINE_ADMIN,
}
"""Words of kubectl; cnp-cluster, because cnp is Cilium's."""

WORDS = SHORT | {kind.lower(): kind for kind in PolicyKind}


def policy_reference(text: str, namespace: str) -> str:
    """The reference of the policy that somebody means.

    Args:
        text: NAME or NAMESPACE/NAME of a NetworkPolicy; KIND:NAME or KIND:NAMESPACE/NAME of any
            kind, which is written out or short, in any case; KIND/NAME with a kind written out.
        namespace: of what names none, and does live in one.

    Raises:
        Invalid: the text names no policy.
    """
    word, colon, path = text.rpartition(":")
    before, slash, after = path.partition("/")
    kind = PolicyKind.NETWORK_POLICY
    if colon:
        if (found := WORDS.get(word.lower())) is None:
            raise Invalid("", f"{word!r} is no kind of policies: one of {', '.join(WORDS)}")
        kind = found
    elif slash and before.lower() in WORDS and before.lower() not in SHORT:
        kind, before, slash, after = WORDS[before.lower()], after, "", ""
    if not before or (slash and not after) or "/" in after:
        raise Invalid("", f"{text!r}: write a policy as NAME, NAMESPACE/NAME or KIND:NAME")
    if not kind.is_namespaced:
        if slash:
            raise Invalid("", f"{text!r}: a {kind} lives in no namespace")
        return reference(kind, "", before)
    return reference(kind, before, after) if slash else reference(kind, namespace, before)
