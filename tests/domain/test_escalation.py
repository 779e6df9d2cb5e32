"""When a human should have a conversation: four reasons in one order, told by whole words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.base.wording import alike, folded
from app.domain.escalation import REASONS, WEAK, Rules, Talk, reason, spelt

ASKS = (
    "operator", "Operator, please!", "hi human", "I want to talk to a human", "can I speak with your manager?",
    "real person please", "connect me to support", "get me… I need a human", "оператор", "Позовите человека!",
    "дайте оператора", "хочу поговорить с живым человеком", "свяжите меня с менеджером", "Нужен оператор",
    "людина", "покличте оператора", "з’єднайте мене з оператором", "потрібна людина",
)  # fmt: skip
SENSITIVE = (
    "refund", "I want my money back", "this is a DISPUTE", "billing question", "my lawyer will call you",
    "legal action follows", "a complaint", "I was charged twice", "chargeback!", "верните мне деньги", "возврат",
    "жалоба на продавца", "подам в суд", "оспорю платёж", "списали дважды", "скарга", "поверніть мої гроші",
    "повернення", "звернуся до суду", "оскаржу платіж",
)  # fmt: skip
GOODS = (
    "Legal Ledger", "have you got Legal Ledger 2?", "Human Anatomy Atlas", "a password manager", "менеджер паролей",
    "нужен менеджер паролей", "mobile operator top-up", "Operator's Handbook", "Support Vector Machines",
    "The Suede Album", "судно в бутылке", "спортивный абонемент", "agent 47", "disputatious", "refundable?",
    "the human condition", "personal plan", "людинознавство",
)  # fmt: skip

words = st.text(alphabet="abcdefgh абвгґєі", min_size=1, max_size=40)
qualities = st.lists(st.none() | st.floats(0, 1), max_size=10)
rules = st.builds(Rules, st.booleans(), st.integers(1, 5), st.lists(words, max_size=3))
asked = st.sampled_from([*ASKS, *SENSITIVE, *GOODS]) | words
talks = st.builds(Talk, asked, st.lists(asked, max_size=10), qualities)


@pytest.mark.parametrize("text", ASKS)
def test_a_human_is_asked_for(text: str) -> None:
    assert reason(Rules(), Talk(text)) == "user_request"


@pytest.mark.parametrize("text", SENSITIVE)
def test_a_topic_is_a_humans(text: str) -> None:
    assert reason(Rules(), Talk(text)) == "sensitive_topic"


@pytest.mark.parametrize("text", GOODS)
def test_goods_are_no_topic(text: str) -> None:
    assert reason(Rules(), Talk(text)) is None


@pytest.mark.parametrize(
    ("text", "asks"),
    [("Call the Shop Director!", True), ("shop   director", True), ("shop directory", False), ("director", False)],
)
def test_a_channels_keywords_are_whole_too(text: str, asks: bool) -> None:
    found = reason(Rules(keywords=["Shop director", "  ", "…"]), Talk(text))
    assert found == ("user_request" if asks else None)


@given(rules, talks)
def test_the_first_reason_of_the_order_is_the_one(rules: Rules, talk: Talk) -> None:
    holding = [name for name, holds in REASONS.items() if holds(rules, talk)]
    assert reason(rules, talk) == (holding[0] if holding and rules.enabled else None)
    assert list(REASONS) == ["user_request", "repeated_question", "low_confidence", "sensitive_topic"]


@given(st.sampled_from([*ASKS, *SENSITIVE, *GOODS]), st.sampled_from(["", "!", " …", "?!", "\n"]))
def test_case_and_what_stands_around_change_nothing(text: str, around: str) -> None:
    assert reason(Rules(), Talk(f"{around}{text.upper()}{around}")) == reason(Rules(), Talk(text))


@given(st.sampled_from([*ASKS, *SENSITIVE]), st.sampled_from("abcжщ"))
def test_a_word_within_a_word_is_none(text: str, letter: str) -> None:
    glued = " ".join(f"{letter}{letter}{word}{letter}{letter}" for word in spelt(text).split())
    assert reason(Rules(), Talk(glued)) is None


@given(qualities, st.integers(1, 5))
def test_weak_answers_are_counted_among_the_last_five(found: list[float | None], threshold: int) -> None:
    last = [quality for quality in found if quality is not None][:5]
    weak = sum(quality < 0.4 for quality in last)
    talk = Talk("a question", (), found)
    assert (reason(Rules(threshold=threshold), talk) == "low_confidence") is (weak >= threshold)


def test_the_threshold_is_reached_and_not_approached() -> None:
    for weak, expected in ((2, None), (3, "low_confidence")):
        found = [WEAK - 0.01] * weak + [WEAK] * (5 - weak) + [0.0] * 5
        assert reason(Rules(), Talk("a question", (), found)) == expected


@pytest.mark.parametrize(
    ("before", "repeated"),
    [
        (["where is it?"], False),
        (["where is it?", "WHERE  is it?"], True),
        (["where is it?", "something else", "where is it"], True),
        (["where is it?", "where was he?"], False),
    ],
)
def test_a_question_is_repeated_the_third_time(before: list[str], repeated: bool) -> None:
    assert reason(Rules(), Talk("Where is it?", before)) == ("repeated_question" if repeated else None)


def test_one_word_is_no_question() -> None:
    assert reason(Rules(), Talk("thanks", ["thanks"] * 9)) is None


@given(st.text(max_size=200), st.text(max_size=200))
def test_alike_is_the_same_both_ways_and_holds_for_itself(a: str, b: str) -> None:
    a, b = folded(a), folded(b)
    assert alike(a, a)
    assert alike(a, b) is alike(b, a)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("a" * 10, "a" * 9 + "b", False),  # 0.9 exactly
        ("a" * 11, "a" * 10 + "b", True),
        ("order 1041 is late", "order 1042 is late", False),
        ("", "a", False),
    ],
)
def test_alike_begins_above_nine_tenths(a: str, b: str, same: bool) -> None:
    assert alike(a, b) is same


def test_long_texts_are_compared_at_once() -> None:
    assert alike("ab" * 2048, "ba" * 2048)
    assert not alike("a" * 4096, "b" * 4096)
