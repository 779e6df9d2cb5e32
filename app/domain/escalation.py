"""Escalation: when a conversation is a human's affair. Pure functions; the first reason in the order of E wins.

What a text asks for is told by whole words and phrases, in three languages whatever the channel's is, because people
mix them. A single word that a product's title may well hold (`legal`, `human`, `operator`, `manager`) says nothing by
itself: `legal action` does, and `operator` as the whole message. So "Legal Ledger" and "a password manager" are
goods, and "Refund Tracker" is what this cannot tell from a refund: a human looks in vain, and hands it back.
"""

import re
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from app.base.wording import alike, folded

Reason = Literal["user_request", "repeated_question", "low_confidence", "sensitive_topic"]

TIMES = 3  # that a question is put, the present one included
WEAK = 0.4  # quality below which an answer counts as weak
ANSWERS = 5  # that are looked back on

_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_APOSTROPHES = str.maketrans({"’": "'", "ʼ": "'", "`": "'", "ё": "е"})

# The whole message is this, but for a please or a hello.
_CALL = re.compile(
    r"human|operator|agent|person|support|manager|representative"
    r"|оператора?|человека?|менеджера?|поддержк[ау]|людин[ау]|підтримк[ау]"
)
_POLITE = re.compile(
    r"please|pls|hello|hi|hey|an?|the|привет|здравствуйте|пожалуйста|плиз|нужна?|привіт|вітаю|будь|ласка|потрібна?"
)

_PERSON_EN = r"(?:human|person|people|operator|agent|manager|representative|support|somebody|someone|staff)"
_PERSON_RU = (
    r"(?:человек\w{0,2}|оператор\w{0,2}|менеджер(?:а|у|ом)|сотрудник\w{0,2}|консультант\w{0,2}|поддержк\w|людьми)"
)
_PERSON_UK = (
    r"(?:людин\w{0,2}|людьми|оператор\w{0,2}|менеджер(?:а|у|ом)|працівник\w{0,3}|консультант\w{0,2}|підтримк\w{1,2})"
)
_REQUESTS = re.compile(
    r"\b(?:"
    r"(?:talk|speak|chat|write|connect me|put me through|transfer me|hand me over|get through)"
    rf" (?:to|with) (?:an? |the |your |some |any )?(?:real |live |actual )?{_PERSON_EN}"
    r"|(?:real|live|actual) (?:human|person|agent|operator)|human (?:agent|operator|support|being|please)"
    r"|(?:call|get|want|need|give me|is there) (?:an? |the |your )(?:human|person|operator|representative)"
    r"|(?:operator|human|manager) please"
    r"|(?:позови(?:те)?|пригласи(?:те)?|соедини(?:те)?|переключи(?:те)?|переведи(?:те)?|свяжи(?:те)?|дай(?:те)?|поговорить"
    rf"|связаться|пообщаться|общаться|говорить)(?: меня| мне)?(?: со?| на)?(?: живым| живого| вашим)? {_PERSON_RU}"
    r"|жив(?:ой|ого|ым) (?:человек\w{0,2}|оператор\w{0,2}|людьми)"
    r"|(?:нужен|хочу|позови|можно) (?:человека?|оператора?|живого)"
    r"|(?:поклич(?:те)?|запросіть|з'єднай(?:те)?|переключіть|переведіть|дайте|поговорити|зв'язатися|поспілкуватися|говорити)"
    rf"(?: мене| мені)?(?: зі?| із| на)?(?: живою| вашим)? {_PERSON_UK}"
    r"|жив(?:а|у|ою) людин\w{0,2}|(?:потрібна|потрібен|хочу|можна) (?:людина|людину|оператора?)"
    r")\b"
)
_SENSITIVE = re.compile(
    r"\b(?:"
    r"complain(?:t|ts|ing)?|lawyers?|attorneys?|lawsuits?|(?:sue|suing) (?:you|them|this)|(?:to|in) court"
    r"|legal (?:action|actions|advice|claim|department|issue|issues|matter|notice|proceedings|question|steps|team)"
    r"|refund(?:s|ed|ing)?|money back|charge ?-?backs?|disput(?:e|es|ed|ing)|billing|billed twice"
    r"|charged (?:me )?twice|double charged|overcharged|scam(?:med|mers?)?|fraud|consumer protection|(?:the|to) police"
    r"|жалоб\w{0,3}|пожал(?:уюсь|оваться)|жаловаться|юрист\w{0,3}|адвокат\w{0,3}|судом|судебн\w{2,3}|(?:в|через) суд"
    r"|претензи\w{1,3}|верни(?:те)? (?:мне )?(?:мои )?деньги|вернуть деньги|возврат(?:а|у|ом|ы)?|оспор\w{1,5}"
    r"|спорн\w{2,3}|мошенн\w{2,8}|обманули|списали (?:дважды|два раза)|двойное списание|бил+инг\w{0,2}"
    r"|чарджб[еэ]к\w{0,2}|роспотребнадзор\w{0,2}|в полици\w"
    r"|скарг\w{0,3}|скаржи(?:тись|тися|тимусь)|поскарж\w{2,6}|судов\w{1,3}|(?:до|через) суду?|претензі\w{1,3}"
    r"|поверн(?:іть|ути) (?:мені )?(?:мої )?(?:гроші|кошти)|поверненн(?:я|ю|ям)|оскарж\w{1,5}|суперечк\w{1,3}"
    r"|шахра\w{1,6}|обдурили|списали двічі|подвійне списання|білінг\w{0,2}|(?:до|в) поліці\w{1,2}"
    r")\b"
)


class Rules(msgspec.Struct, frozen=True):
    """What a channel has to say about it."""

    enabled: bool = True
    threshold: int = 3  # weak answers among the last `ANSWERS`
    keywords: Sequence[str] = ()  # beside the built-in ones: words or phrases, whole


class Talk(msgspec.Struct, frozen=True):
    """What is asked, and what was asked and answered lately, the newest first; quality None: there was no answer."""

    question: str
    questions: Sequence[str] = ()
    qualities: Sequence[float | None] = ()


def reason(rules: Rules, talk: Talk) -> Reason | None:
    """Why a human should have this conversation now; None: no reason, or the channel has nobody."""
    if not rules.enabled:
        return None
    return next((name for name, holds in REASONS.items() if holds(rules, talk)), None)


def user_request(rules: Rules, talk: Talk) -> bool:
    """A human is asked for, in the built-in words or in the channel's own."""
    text = spelt(talk.question)
    called = [word for word in text.split() if not _POLITE.fullmatch(word)]
    return (
        (len(called) == 1 and _CALL.fullmatch(called[0]) is not None)
        or _REQUESTS.search(text) is not None
        or any(f" {spelt(keyword)} " in f" {text} " for keyword in rules.keywords if spelt(keyword))
    )


def repeated_question(rules: Rules, talk: Talk) -> bool:
    """The question is put for the third time, in nearly the same words; one word (`ok`, `thanks`) is no question."""
    asked = folded(talk.question)
    return " " in asked and 1 + sum(alike(asked, folded(before)) for before in talk.questions) >= TIMES


def low_confidence(rules: Rules, talk: Talk) -> bool:
    """Of the last five answers at least `threshold` were weak."""
    answers = [quality for quality in talk.qualities if quality is not None][:ANSWERS]
    return sum(quality < WEAK for quality in answers) >= rules.threshold


def sensitive_topic(rules: Rules, talk: Talk) -> bool:
    """It is about a complaint, law, refund, dispute or billing."""
    return _SENSITIVE.search(spelt(talk.question)) is not None


def spelt(text: str) -> str:
    """Its words alone, one blank apart, in lower case: what the lists above are written in."""
    return " ".join(_WORD.findall(text.casefold().translate(_APOSTROPHES)))


REASONS: dict[Reason, Callable[[Rules, Talk], bool]] = {
    "user_request": user_request,
    "repeated_question": repeated_question,
    "low_confidence": low_confidence,
    "sensitive_topic": sensitive_topic,
}
