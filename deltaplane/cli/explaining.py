"""`deltaplane policy explain`: would this connection pass, and who says so?"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from deltaplane.cli.getting import connected
from deltaplane.cli.options import Output

if TYPE_CHECKING:
    from deltaplane.cli.answers import Answer, Traffic
    from deltaplane.cli.output import Record
    from deltaplane.cli.world import World
    from deltaplane.policy.explain import Match, Side

EXAMPLES = 3
"""Pairs of addresses that are shown of those with the same answer."""


def explain(
    context: typer.Context,
    source: Annotated[
        str, typer.Option("--from", help="NAMESPACE/POD, an address or a CIDR.", metavar="WHO")
    ],
    destination: Annotated[
        str, typer.Option("--to", help="NAMESPACE/POD, an address or a CIDR.", metavar="WHO")
    ],
    port: Annotated[
        str,
        typer.Option(
            "--port",
            help="443/TCP (TCP is the default), a name of a port of the destination, or of ICMP "
            "and ICMPv6 a type: 8/ICMP.",
            metavar="PORT",
        ),
    ],
    output: Output = "table",
) -> None:
    """Say whether a new connection is allowed, and by which rule of which policy on which side.

    Both sides are asked: the policies of the source about egress, those of the destination about
    ingress. Answers to what is allowed pass by themselves. It reads the policies as they are
    stored; `deltaplane policy status` says where they are in force.

    A pod is asked about in both families, and a CIDR in each part that is judged differently.

    Examples: deltaplane policy explain --from shop/web --to shop/db --port 5432/TCP

    deltaplane policy explain --from shop/web --to 10.0.0.0/8 --port 443
    """
    from deltaplane.cli import answers, world
    from deltaplane.cli import output as out

    form = out.choose(output)
    traffic = answers.read_traffic(port)
    with connected(context) as client:
        known = world.load(client)
    found = answers.ask(known, source, destination, traffic)
    if form is out.Format.TABLE:
        for answer in found:
            for line in lines(known, traffic, answer):
                typer.echo(line)
        return
    out.show_one(
        {
            "from": source,
            "to": destination,
            "protocol": traffic.protocol.name,
            "allowed": all(answer.explanation.allowed for answer in found),
            "answers": [record(known, answer) for answer in found],
        },
        form,
    )


def lines(known: "World", traffic: "Traffic", answer: "Answer") -> "Iterator[str]":
    """One answer for people."""
    from deltaplane.cli.world import text_of

    explanation = answer.explanation
    source, destination = answer.pairs[0]
    port = answer.port if traffic.port is not None else f"{traffic.name} ({answer.port})"
    yield (
        f"{text_of(known.owner(source), source)} -> "
        f"{text_of(known.owner(destination), destination)}, {traffic.protocol.name} {port}: "
        f"{'allowed' if explanation.allowed else 'denied'}"
    )
    if more := _others(answer):
        yield f"  the same: {more}"
    yield from _side_lines(explanation.egress)
    yield from _side_lines(explanation.ingress)
    if explanation.allowed and not explanation.allowed_under_audit:
        yield "  under audit: it would be denied"


def _others(answer: "Answer") -> str:
    from deltaplane.model.addresses import format_address

    rest = answer.pairs[1 : EXAMPLES + 1]
    shown = ", ".join(f"{format_address(one)} -> {format_address(two)}" for one, two in rest)
    more = len(answer.pairs) - 1 - len(rest)
    return f"{shown} and {more} more" if more else shown


def _side_lines(side: "Side") -> "Iterator[str]":
    tier = f" ({side.decision.tier.name.lower()} tier)" if side.decision.tier else ""
    yield f"  {side}{tier}"
    deciding = set(side.decision.by)
    for match in side.matching:
        if match not in deciding:
            yield f"    also matches: {_match_text(match)}"
    silent = sorted(set(side.policies) - {match.policy for match in side.matching})
    if silent and (side.matching or side.allowed):
        yield f"    no rule matches of: {', '.join(silent)}"


def _match_text(match: "Match") -> str:
    audit = ", under audit" if match.audit else ""
    return f"{match} ({match.tier.name.lower()} tier, {match.action.name.lower()}{audit})"


def record(known: "World", answer: "Answer") -> "Record":
    """One answer for programs."""
    explanation = answer.explanation
    return {
        "pairs": [
            {"from": _end(known, source), "to": _end(known, destination)}
            for source, destination in answer.pairs
        ],
        "port": answer.port,
        "allowed": explanation.allowed,
        "allowed_under_audit": explanation.allowed_under_audit,
        "egress": _side_record(explanation.egress),
        "ingress": _side_record(explanation.ingress),
    }


def _end(known: "World", address: bytes) -> "Record":
    from deltaplane.cli.world import reserved
    from deltaplane.model.addresses import format_address

    owner = known.owner(address)
    return {
        "address": format_address(address),
        "name": owner.name,
        "node": owner.node,
        "identity": owner.identity if owner.is_pod else reserved(owner.identity),
    }


def _side_record(side: "Side") -> "Record":
    return {
        "allowed": side.allowed,
        "reason": side.reason,
        "tier": side.decision.tier.name.lower() if side.decision.tier else "",
        "by": [_match_record(match) for match in side.decision.by],
        "matching": [_match_record(match) for match in side.matching],
        "policies": list(side.policies),
        "isolating": list(side.isolating),
        "allowed_under_audit": side.audit.allowed,
    }


def _match_record(match: "Match") -> "Record":
    return {
        "policy": match.policy,
        "rule": match.rule,
        "name": match.name,
        "tier": match.tier.name.lower(),
        "action": match.action.name.lower(),
        "audit": match.audit,
    }
