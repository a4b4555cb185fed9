"""What a story raises when something is not as it must be."""


class Violation(AssertionError):
    """Something is not as it must be."""


def require(condition: object, *what: object) -> None:
    """Raises Violation unless something is so."""
    if not condition:
        raise Violation(" ".join(map(str, what)))
