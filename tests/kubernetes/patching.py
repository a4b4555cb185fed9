"""Patches, as the API applies them: RFC 7396, and the strategic kind for lists of conditions."""

import copy
from typing import Any

from tests.kubernetes.storing import Object, Refusal

MERGE_KEYS = {"conditions": "type", "addresses": "type", "hostIPs": "ip", "podIPs": "ip"}
"""Of the lists that a strategic patch merges by a key, in the status of pods and nodes."""


def merge(value: Any, patch: Any, *, strategic: bool = False, field: str = "") -> Any:
    if strategic and isinstance(patch, list) and field in MERGE_KEYS:
        return _merge_list(value or [], patch, MERGE_KEYS[field])
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(value) if isinstance(value, dict) else {}
    for name, part in patch.items():
        if part is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), part, strategic=strategic, field=name)
    return result


def _merge_list(values: list[Object], patch: list[Object], key: str) -> list[Object]:
    merged = {it[key]: it for it in values}
    for part in patch:
        if part.get("$patch") == "delete":
            merged.pop(part[key], None)
        else:
            merged[part[key]] = merge(merged.get(part[key]), part, strategic=True)
    return list(merged.values())


def apply(value: Object, patch: Object, content_type: str) -> Object:
    match content_type:
        case "application/merge-patch+json":
            return merge(value, patch)  # type: ignore[no-any-return]
        case "application/strategic-merge-patch+json":
            return merge(value, patch, strategic=True)  # type: ignore[no-any-return]
        case _:
            raise Refusal(415, "UnsupportedMediaType", content_type)
