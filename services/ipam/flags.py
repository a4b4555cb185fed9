"""The text form of a pool, for `--pool`.

    NAME=PREFIX[:BLOCK_LENGTH][+static][+on-request][+reserved=PREFIX]...

'+' and not ',': a comma separates pools where one text names several.
"""

import re

from deltaplane.errors import Invalid
from deltaplane.model.addresses import Prefix
from services.ipam.pools import Mode, Pool

FORM = "NAME=PREFIX[:BLOCK_LENGTH][+static][+on-request][+reserved=PREFIX]"

_POOL = re.compile(r"(?P<name>[^=]+)=(?P<prefix>[^/]+/\d+)(?:[:/](?P<block>\d+))?")
_RESERVED = "reserved="


def parse_flag(text: str) -> Pool:
    """Reads one pool, for example "ipv6=fd00:10:244::/64:122+reserved=fd00:10:244::/122".

    Raises:
        Invalid: the text has another form, or names no possible pool.
    """
    first, *options = text.split("+")
    match = _POOL.fullmatch(first)
    if match is None:
        raise Invalid("pool", f"{text!r} is not {FORM}, such as ipv4=10.244.0.0/16:26")
    reserved = [
        _prefix(option.removeprefix(_RESERVED), "pool.reserved")
        for option in options
        if option.startswith(_RESERVED)
    ]
    words = [option for option in options if not option.startswith(_RESERVED)]
    for word in words:
        if word not in ("static", "on-request"):
            raise Invalid("pool", f"{word!r} is none of static, on-request and reserved=PREFIX")
    return Pool.of(
        match["name"],
        _prefix(match["prefix"], "pool.prefix"),
        int(match["block"] or 0),
        reserved=reserved,
        mode=Mode.STATIC if "static" in words else Mode.DEMAND,
        on_request="on-request" in words,
    )


def _prefix(text: str, field: str) -> Prefix:
    try:
        return Prefix.parse(text)
    except ValueError as error:
        raise Invalid(field, str(error)) from error
