"""The scripted shop assistant: from what was said it makes out the next thing to do, by rules, as a model would."""

import re
from collections.abc import Callable
from typing import Any

import msgspec

from app.sandbox.model_wire import Instead, Said, Use

MOST_SEARCHES = 3
HUGE = 200_000  # characters
GHOST = 987_654_321  # no product

_WORDS = re.compile(r"[^\W_]+")
_HUMAN = re.compile(r"\b(human|operator|person|оператор\w*|человек\w*|людин\w*)\b")
_ORDERS = re.compile(r"\b(my orders?|where is my order|мо[йи] заказ\w*|мо[їє] замовлення)\b")
_BUY = re.compile(r"\b(buy|take|order|purchase|куп\w*|беру|возьму|закаж\w*|придба\w*|візьму|замов\w*)\b")
_CART = re.compile(r"\b(cart|basket|корзин\w*|кошик\w*)\b")
_DULL = frozenset(
    _WORDS.findall(
        "hello hi i want to would like buy take order purchase please you have do a an the some for me my and it of is "
        "there what how much put in into cart basket can could need pieces piece will ll yes one that "
        "привет здравствуйте хочу купить куплю беру возьму закажу мне у вас есть пожалуйста нужен нужна в корзину "
        "вітаю привіт хочу придбати візьму замовлю мені у вас є будь ласка потрібен у кошик"
    )
)
_SAYINGS = {
    "en": ("Hello! What are you looking for?", "I found nothing that fits.", "Sorry: {}.", "We have:",
           "Press the button to buy:", "It is in your cart.", "Your orders:", "A human will answer you here."),
    "ru": ("Здравствуйте! Что вы ищете?", "Ничего подходящего не нашлось.", "Увы: {}.", "У нас есть:",
           "Нажмите кнопку, чтобы купить:", "Уже в корзине.", "Ваши заказы:", "Вам ответит человек."),
    "uk": ("Вітаю! Що ви шукаєте?", "Нічого відповідного не знайшлося.", "На жаль: {}.", "У нас є:",
           "Натисніть кнопку, щоб купити:", "Уже в кошику.", "Ваші замовлення:", "Вам відповість людина."),
}  # fmt: skip
HELLO, NOTHING, SORRY, HAVE, OFFERED, IN_CART, ORDERS, HUMAN = range(8)

Message = dict[str, Any]


def play(body: dict[str, Any]) -> Said:
    """What the assistant says or does next in this conversation."""
    messages: list[Message] = body["messages"]
    asked = max((n for n, message in enumerate(messages) if message["role"] == "user"), default=-1)
    words = _text(messages[asked]) if asked >= 0 else ""
    since = messages[asked + 1 :]
    if not body.get("tools") or body.get("tool_choice") == "none":
        return Said(_say(words, HELLO))
    if not since:
        return _begin(words, _before(messages[:asked]))
    calls = [call["function"]["name"] for message in since for call in message.get("tool_calls") or ()]
    told = [_decoded(_text(message)) for message in since if message["role"] == "tool"]
    return _go_on(words, calls, told, _before(messages[:asked]))


def misplay(instead: Instead, body: dict[str, Any]) -> Said:
    """What a model does that has lost its way."""
    if instead == "unknown_tool":
        seen = any(message["role"] == "tool" for message in body["messages"])
        return play(body | {"tool_choice": "none"}) if seen else Said(uses=[Use("delete_all_orders", '{"user_id":1}')])
    made: dict[Instead, Callable[[], Said]] = {
        "broken_arguments": lambda: Said(uses=[Use("offer_payment", '{"product_id": 1, "quantity": ')]),
        "tool_loop": lambda: Said(uses=[Use("my_orders", "{}")]),
        "huge_text": lambda: Said(("very-" * 199 + "long ") * (HUGE // 1000)),
        "ghost_offer": lambda: Said(uses=[_use("offer_payment", product_id=GHOST, quantity=1)]),
        "nothing": Said,
    }
    return made[instead]()


def _begin(words: str, before: str) -> Said:
    spelt = words.lower()
    if _HUMAN.search(spelt):
        return Said(uses=[Use("hand_over_to_human", "{}")])
    if _ORDERS.search(spelt):
        return Said(uses=[Use("my_orders", "{}")])
    query = _queries(words) or (_queries(before) if _BUY.search(spelt) else [])
    return Said(uses=[_use("search_catalog", query=query[0])]) if query else Said(_say(words, HELLO))


def _go_on(words: str, calls: list[str], told: list[dict[str, Any]], before: str) -> Said:
    """After a tool has told something."""
    last, name = told[-1], calls[-1]
    if "error" in last:
        return Said(_say(words, SORRY).format(last["error"]))
    if name == "search_catalog":
        return _found(words, last["products"], calls.count(name), before)
    if name == "offer_payment":
        offered = last["offered"]
        return Said(f"{_say(words, OFFERED)} {offered['quantity']} × {offered['title']}, {offered['price']}.")
    if name == "my_orders":
        lines = [f"{order['number']}: {order['status']}, {order['total']}" for order in last["orders"]]
        return Said("\n".join([_say(words, ORDERS), *lines]))
    return Said(_say(words, HUMAN if name == "hand_over_to_human" else IN_CART))


def _found(words: str, products: list[dict[str, Any]], searches: int, before: str) -> Said:
    queries = _queries(words) or _queries(before)
    if not products:
        more = queries[searches : searches + 1] if searches < MOST_SEARCHES else []
        return Said(uses=[_use("search_catalog", query=more[0])]) if more else Said(_say(words, NOTHING))
    there = [product for product in products if product["left"] != 0] or products
    count = next(
        (int(word) for word in _WORDS.findall(words) if word.isascii() and word.isdigit() and len(word) < 3), 1
    )
    if _CART.search(words.lower()):
        return Said(uses=[_use("add_to_cart", product_id=there[0]["id"], quantity=count)])
    if _BUY.search(words.lower()):
        return Said(uses=[_use("offer_payment", product_id=there[0]["id"], quantity=count)])
    return Said(" ".join([_say(words, HAVE), "; ".join(f"{p['title']}, {p['price']}" for p in there[:3])]) + ".")


def _queries(words: str) -> list[str]:
    """What to look for: the words that mean something, all of them, then one by one."""
    telling = [word for word in _WORDS.findall(words.lower()) if word not in _DULL and not word.isdigit()][:3]
    return list(dict.fromkeys([" ".join(telling), *sorted(telling, key=len, reverse=True)])) if telling else []


def _before(messages: list[Message]) -> str:
    """What the buyer said last before this."""
    return next((_text(message) for message in reversed(messages) if message["role"] == "user"), "")


def _say(words: str, which: int) -> str:
    low = words.lower()
    language = "uk" if re.search("[іїєґ]", low) else "ru" if re.search("[а-я]", low) else "en"
    return _SAYINGS[language][which]


def _text(message: Message) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else ""


def _use(name: str, **arguments: Any) -> Use:
    return Use(name, msgspec.json.encode(arguments).decode())


def _decoded(text: str) -> dict[str, Any]:
    found = msgspec.json.decode(text)
    return found if isinstance(found, dict) else {"error": "no object"}
