"""What the bot says exists in every language, with the same facts in it."""

from string import Formatter

import pytest

from app.bot import texts
from tests.house.tree import below, strings


def facts(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("language", ["ru", "uk"])
def test_every_language_says_everything_with_the_same_facts(language: str) -> None:
    english, other = texts.WORDS["en"], texts.WORDS[language]
    assert list(other) == list(english)
    assert {key: facts(text) for key, text in other.items()} == {key: facts(text) for key, text in english.items()}
    same = {key for key in english if other[key] == english[key]}
    assert same <= {"dead_line", "offer", "goods_head"}


def test_everything_is_said_somewhere_and_nothing_else() -> None:
    spoken = {word for name in below("app") if "/bot/" in name and "words_" not in name for _, word in strings(name)}
    assert set(texts.WORDS["en"]) <= spoken


def test_facts_are_put_in_as_they_are() -> None:
    assert texts.say("uk", "goods_head", number="{number}<b>%s") == "Замовлення {number}<b>%s:"
    assert texts.say("pt-br", "goods_head", number=7) == "Order 7:"
