"""Understand: what a buyer's words ask for, as far as rules can tell; what no rule knows is a search."""

import re
from enum import Enum, auto

from app.domain.catalog import words_of

MOST_READ = 40  # words of a message
MOST_ORDERED = 8  # words of one that asks for orders or for a human: a longer one is about something else

_ORDERS = re.compile(
    r"\b(my|where|track\w*)\b.*\borders?\b|\border (status|history)\b"
    r"|\b(мо[йиюея]|моего|моих|где|статус)\b.*\bзаказ(|а|у|е|ы|ов|ами|ах)\b"
    r"|\b(мо[їєяю]|мій|мого|моїх|де|статус)\b.*\bзамовлен\w*"
)
_HUMAN = re.compile(
    r"\b(human|operator|real person|a person|support|staff|complain\w*)\b"
    r"|\b(оператор\w*|человек\w*|поддержк\w*|менеджер\w*|жалоб\w*)\b"
    r"|\b(людин\w*|підтримк\w*|скарг\w*)\b"
)
_SMALL_TALK = frozenset(
    words_of(
        "hello hi hey good morning evening day start help thanks thank bye ok okay yes no "
        "привет здравствуй здравствуйте добрый доброе день утро вечер помощь помоги помогите спасибо пока да нет ок "
        "привіт вітаю добрий доброго дня ранку вечора допомога допоможи допоможіть дякую бувай так ні",
        most=1000,
    )
)
STOP = _SMALL_TALK | frozenset(
    words_of(
        "a an the i you me my we it is are am do does did can could would will want wanna need like looking look for "
        "find buy get give have has show sell sale please what which how much many price cost costs any some of to in "
        "on and or with from this that there your something anything order us at by be was if so just not "
        "я ты вы мне меня мой мы он она это есть у вас ли не и или а но что какой какая какие какое сколько стоит цена "
        "хочу хотел хотела хотелось бы нужен нужна нужно нужны ищу найди найти покажи покажите купить куплю взять дай "
        "дайте можно можете пожалуйста для на в во с со за по из от до как где когда продаёте продаете продается один "
        "одну штук заказать закажу посоветуй посоветуйте то нибудь почему "
        "ти ви мені мене мій ми він вона це є чи та або але що який яка які яке скільки коштує ціна хотів хотіла б "
        "потрібен потрібна потрібно потрібні шукаю знайди знайти покажіть купити придбати взяти дайте можна можете "
        "будь ласка щось для на в у з із за від до як де коли продаєте один одну замовити порадь порадьте",
        most=1000,
    )
)


# Words that ask for no goods in particular: with nothing else said, for whatever there is.
_ANY = frozenset(
    words_of(
        "sale sell available stock assortment catalog catalogue recommend suggest gift present "
        "продаже продаёте продаете наличии ассортимент ассортименте каталог каталоге посоветуй посоветуйте "
        "посоветуете порекомендуй порекомендуйте подарок подарка "
        "продажу продажі продаєте наявності асортимент асортименті каталог каталозі порадь порадьте порадите "
        "подарунок подарунка",
        most=1000,
    )
)
_HAVE = re.compile(r"\b(what|which)\b.*\bhave\b|\b(что|какие)\b.*\bесть\b|\b(що|які)\b.*\bє\b")


class Wish(Enum):
    """What a message is about."""

    GREETING = auto()  # small talk, or a call for help with nothing named
    ORDERS = auto()
    HUMAN = auto()
    SHELF = auto()  # whatever there is
    SEARCH = auto()


def wish(text: str) -> Wish:
    """What this message asks for."""
    words = words_of(text, MOST_READ)
    spelt = " ".join(words)
    if len(words) <= MOST_ORDERED and _ORDERS.search(spelt):
        return Wish.ORDERS
    if len(words) <= MOST_ORDERED and _HUMAN.search(spelt):
        return Wish.HUMAN
    if set(telling(text)) - _ANY:
        return Wish.SEARCH
    return Wish.SHELF if _ANY.intersection(words) or _HAVE.search(spelt) else Wish.GREETING


def telling(text: str) -> list[str]:
    """The words that say what is looked for."""
    return [word for word in words_of(text, MOST_READ) if word not in STOP]


def begun(word: str) -> str:
    """The word without the ending that case and number change: search takes every word that begins so."""
    return word[: -2 if len(word) >= 7 else -1] if len(word) >= 5 else word
