"""Text for people is cut where Telegram counts, and a name controls nothing around it."""

import random

import pytest

from app.base import prose


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("  Ann \n\t Lee ", "Ann Lee"),
        ("a\0b\x1bc\x7fd", "a b c d"),
        ("\u202eevil\u202c", "evil"),
        ("x\u2066y\u2069\u200fz", "xyz"),
        ("שלום", "\u2068שלום\u2069"),
        ("مرحبا 12", "\u2068مرحبا 12\u2069"),
        ("👨‍👩‍👧 <b>&*_", "👨‍👩‍👧 <b>&*_"),
        ("\ud800x", "x"),
        ("", ""),
    ],
)
def test_a_name_is_one_line_that_bends_nothing(name: str, line: str) -> None:
    assert prose.one_line(name) == line


def test_a_name_is_as_long_as_allowed_with_all_that_is_around_it() -> None:
    for name in ("x" * 100, "🙂" * 100, "ש" * 100, "ש🙂" * 100):
        for most in (5, 6, 7, 64):
            assert prose.units(prose.one_line(name, most)) <= most


def test_units_are_those_of_utf_16() -> None:
    for text in ("", "abc", "щ", "🙂", "a🙂щ" * 9):
        assert prose.units(text) == len(text.encode("utf-16-le")) // 2


def test_a_cut_text_says_so() -> None:
    assert prose.cut("hello", 5) == "hello"
    assert prose.cut("hello world", 7) == "hello…"
    assert prose.cut("🙂🙂🙂", 5) == "🙂🙂…"


def test_pieces_hold_the_whole_text_and_none_is_too_long() -> None:
    chance = random.Random(5)
    for _ in range(300):
        words = ["".join(chance.choices("aщ🙂", k=chance.randint(1, 30))) for _ in range(chance.randint(0, 60))]
        text = "".join(word + chance.choice([" ", "\n", "\n\n", ""]) for word in words)
        most = chance.choice([10, 50, 200, 4096])
        found = prose.pieces(text, most)
        assert all(prose.units(piece) <= most for piece in found)
        assert "".join("".join(found).split()) == "".join(text.split())
        assert all(found) or not text.strip()


def test_pieces_end_where_a_reader_pauses() -> None:
    assert prose.pieces("one two\n\nthree four", 12) == ["one two", "three four"]
    assert prose.pieces("one two\nthree four", 14) == ["one two", "three four"]
    assert prose.pieces("one two three", 9) == ["one two", "three"]
    assert prose.pieces("x" * 25, 10) == ["x" * 10, "x" * 10, "x" * 5]
    assert prose.pieces("", 10) == [""]
