"""Changes bytes a little, from a seed. Pure."""

import random
from collections.abc import Sequence

NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, (1 << 63) - 1, (1 << 64) - 1)
MOST_CHANGES = 6
LONGEST = 1 << 16


def mutated(chance: random.Random, corpus: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """One of a corpus with a few changes.

    Args:
        chance: decides.
        corpus: one or more.
        words: what such inputs are made of; may be put in anywhere.
    """
    data = bytearray(chance.choice(corpus))
    for _ in range(chance.randint(1, MOST_CHANGES)):
        _change(chance, data, corpus, words)
    return bytes(data[:LONGEST])


def _change(
    chance: random.Random, data: bytearray, corpus: Sequence[bytes], words: Sequence[bytes]
) -> None:
    at = chance.randint(0, len(data))
    end = min(len(data), at + chance.choice((1, 1, 2, 4, 8, 32)))
    match chance.randrange(8 if words else 7):
        case 0 if at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        case 1 if at < len(data):
            data[at] = chance.randrange(256)
        case 2:
            del data[at:end]
        case 3:
            data[at:at] = chance.randbytes(end - at)
        case 4:
            data[at:at] = data[at:end] * chance.choice((1, 2, 16))
        case 5:
            size = chance.choice((1, 2, 4, 8))
            number = chance.choice(NUMBERS) & ((1 << 8 * size) - 1)
            data[at : at + size] = number.to_bytes(size, chance.choice(("big", "little")))
        case 6:
            other = chance.choice(corpus)
            cut = chance.randint(0, len(other))
            data[at:] = other[cut:]
        case _ if words:
            data[at:end] = chance.choice(words)
        case _:
            data[at:at] = b"\0"
