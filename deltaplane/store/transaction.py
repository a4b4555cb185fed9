"""What both adapters check before a transaction reaches a store."""

from collections.abc import Sequence

from deltaplane.errors import Invalid
from deltaplane.store.port import (
    MAX_PART_OPERATIONS,
    MAX_PARTS,
    MAX_TRANSACTION_OPERATIONS,
    Absent,
    Compare,
    CreatedAt,
    Delete,
    DeletePrefix,
    Operation,
    Part,
    Put,
    Unchanged,
)


def check(compares: Sequence[Compare], operations: Sequence[Operation]) -> None:
    """Refuses what etcd would refuse, before it is sent.

    Raises:
        Invalid: more than MAX_TRANSACTION_OPERATIONS compares or operations, an empty key or
            prefix, a key written twice, or a key both written and deleted.
    """
    for field, size in (("compares", len(compares)), ("operations", len(operations))):
        if size > MAX_TRANSACTION_OPERATIONS:
            raise Invalid(field, f"{size} are more than {MAX_TRANSACTION_OPERATIONS}")
    _check_compares(compares)
    _check_operations(operations)


def check_parts(parts: Sequence[Part]) -> None:
    """The same for a transaction of parts.

    Raises:
        Invalid: no part, more than MAX_PARTS, one of more than MAX_PART_OPERATIONS compares or
            operations, or what `check` refuses, in one part or between two.
    """
    if not 1 <= len(parts) <= MAX_PARTS:
        raise Invalid("parts", f"there are {len(parts)}, not 1..{MAX_PARTS}")
    for part in parts:
        size = max(len(part.compares), len(part.operations))
        if size > MAX_PART_OPERATIONS:
            raise Invalid("parts", f"{size} in one are more than {MAX_PART_OPERATIONS}")
        if not part.operations:
            raise Invalid("parts", "one has no operations")
        _check_compares(part.compares)
    _check_operations([operation for part in parts for operation in part.operations])


def _check_compares(compares: Sequence[Compare]) -> None:
    if not all(compare.key for compare in compares):
        raise Invalid("compares", "a key is empty")
    for compare in compares:
        # etcd would take revision 0 for "does not exist", which is what Absent says.
        if not isinstance(compare, Absent) and _revision(compare) < 1:
            raise Invalid("compares", f"{compare} has no revision")


def _check_operations(operations: Sequence[Operation]) -> None:
    puts = [operation.key for operation in operations if isinstance(operation, Put)]
    deletes = {operation.key for operation in operations if isinstance(operation, Delete)}
    prefixes = tuple(
        operation.prefix for operation in operations if isinstance(operation, DeletePrefix)
    )
    if not all((*puts, *deletes, *prefixes)):
        raise Invalid("operations", "a key or prefix is empty")
    if len(set(puts)) < len(puts):
        raise Invalid("operations", "a key is written twice")
    for key in puts:
        if key in deletes or key.startswith(prefixes):
            raise Invalid("operations", f"{key!r} is both written and deleted")


def check_keys(keys: Sequence[str]) -> None:
    """Refuses reads that do not fit into one transaction.

    Raises:
        Invalid: more than MAX_TRANSACTION_OPERATIONS keys, or an empty one.
    """
    if len(keys) > MAX_TRANSACTION_OPERATIONS:
        raise Invalid("keys", f"{len(keys)} are more than {MAX_TRANSACTION_OPERATIONS}")
    if not all(keys):
        raise Invalid("keys", "a key is empty")


def _revision(compare: Unchanged | CreatedAt) -> int:
    return compare.mod_revision if isinstance(compare, Unchanged) else compare.create_revision
