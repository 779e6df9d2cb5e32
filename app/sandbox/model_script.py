"""The scripted shop assistant: from what was said it makes out the next thing to do, by rules, as a model would."""

import re
from collections.abc import Callable
from typing import Any

import msgspec

from app.sandbox.model_wire import Instead, Said, Use

MOST_SEARCHES, SHOWN = 3, 3
LONGEST_QUERY = 100  # characters
HUGE = 200_000  # characters
GHOST = 987_654_321  # no product

_WORDS = re.compile(r"[^\W_]+")
_HUMAN = re.compile(r"\b(human|operator|person|оператор\w*|человек\w*|людин\w*)\b")
_ORDERS = re.compile(r"\b(my orders?|where is my order|мо[йи] заказ\w*|мо[їє] замовлення)\b")
_BUY = re.compile(r"\b(buy|take|order|purchase|куп\w*|беру|возьму|закаж\w*|придба\w*|візьму|замов\w*)\b")
_CART = re.compile(r"\b(cart|basket|корзин\w*|кошик\w*)\b")
_ANYTHING = re.compile(
    r"\b(on sale|what do you have|for a gift|в продаж[еуі]|что у вас есть|що у вас є|в подарок|у подарунок)\b"
)
_CATALOG = re.compile(r"^\[\d+,.*\]$", re.MULTILINE)  # lines of the prompt: [id, title, category, price]
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
_NO_ORDERS = {
    "en": "You have no orders yet.", "ru": "У вас ещё нет заказов.", "uk": "У вас ще немає замовлень.",
}  # fmt: skip
HELLO, NOTHING, SORRY, HAVE, OFFERED, IN_CART, ORDERS, HUMAN = range(8)

Message = dict[str, Any]


class Asked(msgspec.Struct, frozen=True):
    """What the buyer says, what they said before, and what the prompt tells."""

    words: str
    before: str
    language: str
    catalog: list[list[Any]]  # [id, title, category, price]


def play(body: dict[str, Any]) -> Said:
    """What the assistant says or does next in this conversation."""
    messages: list[Message] = body["messages"]
    asked = max((n for n, message in enumerate(messages) if message["role"] == "user"), default=-1)
    since = messages[asked + 1 :]
    now = _asked(messages, asked)
    if not body.get("tools") or body.get("tool_choice") == "none":
        return Said(_say(now, HELLO))
    if not since:
        return _begin(now)
    calls = [call["function"]["name"] for message in since for call in message.get("tool_calls") or ()]
    told = [_decoded(_text(message)) for message in since if message["role"] == "tool"]
    return _go_on(now, calls, told)


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


def _asked(messages: list[Message], asked: int) -> Asked:
    words = _text(messages[asked]) if asked >= 0 else ""
    prompt = "\n".join(_text(message) for message in messages if message["role"] == "system")
    low = words.lower()
    ukrainian = re.search("[іїєґ]", low) or ("Ukrainian" in prompt and not re.search("[ыэъё]", low))
    language = ("uk" if ukrainian else "ru") if re.search("[а-яіїєґ]", low) else "en"
    catalog = [msgspec.json.decode(line) for line in _CATALOG.findall(prompt)]
    return Asked(words, _before(messages[: max(asked, 0)]), language, catalog)


def _begin(now: Asked) -> Said:
    spelt = now.words.lower()
    if _HUMAN.search(spelt):
        return Said(uses=[Use("hand_over_to_human", "{}")])
    if _ORDERS.search(spelt):
        return Said(uses=[Use("my_orders", "{}")])
    if _ANYTHING.search(spelt) and now.catalog:
        return Said(_have(now, [(title, price) for _, title, _, price in now.catalog]))
    query = _queries(now.words) or (_queries(now.before) if _BUY.search(spelt) else [])
    return Said(uses=[_use("search_catalog", query=query[0])]) if query else Said(_say(now, HELLO))


def _go_on(now: Asked, calls: list[str], told: list[dict[str, Any]]) -> Said:
    """After a tool has told something."""
    last, name = told[-1], calls[-1]
    if "error" in last:
        return Said(_say(now, SORRY).format(last["error"]))
    if name == "search_catalog":
        return _found(now, last["products"], calls.count(name))
    if name == "offer_payment":
        offered = last["offered"]
        return Said(f"{_say(now, OFFERED)} {offered['quantity']} × {offered['title']}, {offered['price']}.")
    if name == "my_orders":
        if not last["orders"]:
            return Said(_NO_ORDERS[now.language])
        lines = [f"{order['number']}: {order['status']}, {order['total']}" for order in last["orders"]]
        return Said("\n".join([_say(now, ORDERS), *lines]))
    return Said(_say(now, HUMAN if name == "hand_over_to_human" else IN_CART))


def _found(now: Asked, products: list[dict[str, Any]], searches: int) -> Said:
    words = now.words
    queries = _queries(words) or _queries(now.before)
    if not products:
        more = queries[searches : searches + 1] if searches < MOST_SEARCHES else []
        return Said(uses=[_use("search_catalog", query=more[0])]) if more else Said(_say(now, NOTHING))
    there = [product for product in products if product["left"] != 0] or products
    count = next(
        (int(word) for word in _WORDS.findall(words) if word.isascii() and word.isdigit() and len(word) < 3), 1
    )
    if _CART.search(words.lower()):
        return Said(uses=[_use("add_to_cart", product_id=there[0]["id"], quantity=count)])
    if _BUY.search(words.lower()):
        return Said(uses=[_use("offer_payment", product_id=there[0]["id"], quantity=count)])
    return Said(_have(now, [(p["title"], p["price"]) for p in there]))


def _queries(words: str) -> list[str]:
    """What to look for: the words that mean something, all of them, then one by one."""
    telling = [word for word in _WORDS.findall(words.lower()) if word not in _DULL and not word.isdigit()][:3]
    tried = [" ".join(telling), *sorted(telling, key=len, reverse=True)] if telling else []
    return list(dict.fromkeys(query[:LONGEST_QUERY] for query in tried))


def _before(messages: list[Message]) -> str:
    """What the buyer said last before this."""
    return next((_text(message) for message in reversed(messages) if message["role"] == "user"), "")


def _have(now: Asked, goods: list[tuple[str, str]]) -> str:
    return f"{_say(now, HAVE)} {'; '.join(f'{title}, {price}' for title, price in goods[:SHOWN])}."


def _say(now: Asked, which: int) -> str:
    return _SAYINGS[now.language][which]


def _text(message: Message) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else ""


def _use(name: str, **arguments: Any) -> Use:
    return Use(name, msgspec.json.encode(arguments).decode())


def _decoded(text: str) -> dict[str, Any]:
    found = msgspec.json.decode(text)
    return found if isinstance(found, dict) else {"error": "no object"}
