"""Wording: when two texts say the same, whatever their case, their blanks and a slip of the finger."""

import re

from rapidfuzz.distance import Levenshtein

ALIKE = 0.9  # above this much similarity two texts are one

_NUMBER = re.compile(r"\d+")


def folded(text: str) -> str:
    """The text without what changes nothing: case, and how wide its blanks are."""
    return " ".join(text.casefold().split())


def alike(a: str, b: str) -> bool:
    """Two folded texts are the same, or nearly and with the same numbers: order 1041 is not order 1042.

    Cost: some 0.2 ms at worst for two texts of 4096 characters, because the search ends at the cutoff.
    """
    if a == b:
        return True
    similarity = Levenshtein.normalized_similarity(a, b, score_cutoff=ALIKE)
    return similarity > ALIKE and _NUMBER.findall(a) == _NUMBER.findall(b)
