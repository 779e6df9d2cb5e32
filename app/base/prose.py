"""Text for people: measured as Telegram measures it, and names that cannot bend what stands around them."""

import unicodedata

ELLIPSIS = "…"
_FSI, _PDI = "\u2068", "\u2069"  # what stands between has a direction of its own
# What turns the text around it: embeddings, overrides, isolates and marks of direction.
_BENDS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_BREAKS = ("\n\n", "\n", " ")  # where a text is cut best


def units(text: str) -> int:
    """Its length in UTF-16, as Telegram counts."""
    return len(text) + sum(char > "\uffff" for char in text)


def one_line(name: str, most: int = 64) -> str:
    """A name that somebody chose, on one line and of at most so many units: nothing in it bends what is around it."""
    kept = (" " if unicodedata.category(char) in ("Cc", "Cs") else char for char in name if char not in _BENDS)
    line = cut(" ".join("".join(kept).split()), most)
    right_to_left = any(unicodedata.bidirectional(char) in ("R", "AL", "AN") for char in line)
    return f"{_FSI}{cut(line, most - 2)}{_PDI}" if right_to_left else line


def cut(text: str, most: int) -> str:
    """The text, or as much of it as `most` units hold, with an ellipsis."""
    return text if units(text) <= most else text[: _fits(text, most - 1)].rstrip() + ELLIPSIS


def pieces(text: str, most: int) -> list[str]:
    """The whole text in messages of at most `most` units, cut between paragraphs, lines or words where that is near."""
    found, rest = [], text.strip()
    while units(rest) > most:
        end = _fits(rest, most)
        end = next((at for mark in _BREAKS if (at := rest.rfind(mark, end // 2, end + 1)) > 0), end)
        found.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    return [*found, rest] if rest or not found else found


def _fits(text: str, most: int) -> int:
    """How many characters `most` units hold."""
    if len(text) <= most and text.isascii():
        return len(text)
    held = 0
    for count, char in enumerate(text):
        held += 2 if char > "\uffff" else 1
        if held > most:
            return count
    return len(text)
