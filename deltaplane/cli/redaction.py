"""Takes secrets out of text that leaves the cluster. Pure.

What looks like a secret goes, also where it is none: a bundle is read by strangers.
"""

import re

REMOVED = "(removed)"

_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]+-----.*?(-----END [A-Z0-9 ]+-----|\Z)", re.DOTALL)
_NAMED = re.compile(
    # What stands before the word is not looked at: a search from every letter of a long line would
    # take for ever.
    r"""(?ix)
    ( (?:password|passwd|secret|token|authorization|credential|(?:api|private)[_\-]?key)
      [\w.\-]{0,40} ["']? \s{0,4} [:=] \s{0,4} )
    ( "(?:[^"\\]|\\.)*" | '[^']*' | (?:bearer|basic)\s+\S+ | [^\s,;&}\]]+ )
    """
)
_OPTION = re.compile(
    r"(?i)(--(?:[a-z]{1,20}-){0,4}(?:password|secret|token|credential)[\w\-]{0,20}[ ,\"']{1,4})"
    r"([^\s,\"'\]]+)"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[\w\-.~+/]{8,}=*")
_USERINFO = re.compile(r"(\w://)[^/\s:@]{1,200}:[^/\s@]{1,200}@")
_JWT = re.compile(r"\beyJ[\w\-]{10,}\.[\w\-]{10,}(?:\.[\w\-]*)?")


def redacted(text: str) -> str:
    """The text without PEM blocks, tokens, passwords and what is named like one."""
    text = _PEM.sub(REMOVED, text)
    text = _JWT.sub(REMOVED, text)
    text = _NAMED.sub(rf"\1{REMOVED}", text)
    text = _OPTION.sub(rf"\1{REMOVED}", text)
    text = _BEARER.sub(rf"\1 {REMOVED}", text)
    return _USERINFO.sub(rf"\1{REMOVED}@", text)
