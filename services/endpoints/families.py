"""Which IP families a service has, the primary first.

    addresses and families that are given  >  what the service has  >  what the cluster has first

The family policy then adds the other one, or takes it away.
"""

from deltaplane.errors import Invalid
from services.endpoints.demand import Demand, FamilyPolicy, family_of
from services.endpoints.ranges import Ranges

Families = tuple[int, ...]
"""4, 6 or both."""


def choose(wanted: Demand, before: Demand | None, ranges: Ranges, path: str) -> Families:
    """The families that a service is to have.

    Args:
        wanted: the request.
        before: the stored service; None: there is none, or it had no families.
        ranges: of the cluster.
        path: where the service lies in the request.

    Raises:
        Invalid: they contradict each other, or the cluster has them not.
    """
    given = tuple(map(family_of, wanted.service.cluster_ips))
    _check_given(given, wanted.families, path)
    named = wanted.families if len(wanted.families) > len(given) else given
    had = before.families if before is not None else _unasked(wanted, ranges)
    if not named or (len(named) == 1 and not wanted.families and named == had[:1]):
        # An address says which family comes first, and not that there is no other.
        families = had if before is not None or not named else named
    else:
        families = named
    if wanted.policy is FamilyPolicy.SINGLE_STACK:
        # Two that are those of before: somebody writes all back, but wants to be rid of one.
        if len(named) == 2 and named != (before.families if before else ()):
            raise Invalid(f"{path}.family_policy", "is SINGLE_STACK, but two are given")
        families = families[:1]
    elif wanted.policy is not FamilyPolicy.OPEN:
        families = _both(families, wanted.policy, ranges, path)
    for index, family in enumerate(families):
        if family not in ranges.families and not wanted.headless:
            raise Invalid(
                f"{path}.families[{index}]",
                f"services have no range of IPv{family} here; ask for another family, or start "
                "endpoints with a --service-range of it",
            )
    return families


def _unasked(wanted: Demand, ranges: Ranges) -> Families:
    """Of a new service that says nothing about families."""
    first = ranges.families[:1]
    if wanted.headless and wanted.service.selector is None:
        # Whoever makes its slices knows their families.
        return first + tuple(it for it in (4, 6) if it not in first)
    return first


def _both(families: Families, policy: FamilyPolicy, ranges: Ranges, path: str) -> Families:
    both = families + tuple(it for it in ranges.families if it not in families)
    if len(both) < 2 and policy is FamilyPolicy.REQUIRE_DUAL_STACK:
        raise Invalid(
            f"{path}.family_policy",
            "services have a range of one family here; PREFER_DUAL_STACK takes what is there",
        )
    return both


def _check_given(given: Families, families: Families, path: str) -> None:
    if len(given) == 2 and given[0] == given[1]:
        raise Invalid(f"{path}.cluster_ips[1]", f"is a second IPv{given[1]} address")
    for index, (address, family) in enumerate(zip(given, families, strict=False)):
        if address != family:
            raise Invalid(
                f"{path}.cluster_ips[{index}]",
                f"is an IPv{address} address, but families[{index}] is {family}",
            )
    if families and len(given) > len(families):
        raise Invalid(f"{path}.cluster_ips[1]", f"families names IPv{families[0]} only")
