"""Sayings: what the consultant says when no model speaks for it, in the language of whom it tells."""

from app.channels.telegram.texts import language

_GREETING = {
    "en": "Hello! Say what you are looking for, or ask about your orders. If you want a human, say so.",
    "ru": "Здравствуйте! Скажите, что вы ищете, или спросите о своих заказах. Если нужен человек, так и скажите.",
    "uk": "Вітаю! Скажіть, що ви шукаєте, або запитайте про свої замовлення. Якщо потрібна людина, так і скажіть.",
}
_HUMAN = {
    "en": "I am handing this over to a human, who will answer here.",
    "ru": "Передаю разговор человеку, он ответит здесь.",
    "uk": "Передаю розмову людині, вона відповість тут.",
}
_NOBODY = {
    "en": "Nobody can be called here. Write what you are looking for, and I will help.",
    "ru": "Позвать человека здесь нельзя. Напишите, что вы ищете, и я помогу.",
    "uk": "Покликати людину тут не можна. Напишіть, що ви шукаєте, і я допоможу.",
}
_FOUND = {"en": "This is what we have:", "ru": "Вот что у нас есть:", "uk": "Ось що в нас є:"}
_LEFT = {"en": "{n} left", "ru": "осталось {n}", "uk": "залишилося {n}"}
_SOLD_OUT = {"en": "sold out", "ru": "распродано", "uk": "розпродано"}
_NOTHING_LEFT = {
    "en": "What fits is sold out at the moment:",
    "ru": "То, что подходит, сейчас распродано:",
    "uk": "Те, що підходить, зараз розпродано:",
}
_NOTHING = {
    "en": "I have found nothing that fits. Try other words, or ask for a human.",
    "ru": "Я не нашёл ничего подходящего. Попробуйте другие слова или позовите человека.",
    "uk": "Я не знайшов нічого відповідного. Спробуйте інші слова або покличте людину.",
}
_ORDERS = {"en": "Your orders:", "ru": "Ваши заказы:", "uk": "Ваші замовлення:"}
_NO_ORDERS = {"en": "You have no orders yet.", "ru": "У вас ещё нет заказов.", "uk": "У вас ще немає замовлень."}
_ORDER = {
    "en": "No. {number}: {status}, {total}",
    "ru": "№ {number}: {status}, {total}",
    "uk": "№ {number}: {status}, {total}",
}
_STATUS = {
    "pending": ("waits to be paid", "ждёт оплаты", "чекає на оплату"),
    "paid": ("paid", "оплачен", "оплачено"),
    "preorder": ("paid, being made", "оплачен, готовится", "оплачено, готується"),
    "reviewing": ("being looked at", "рассматривается", "розглядається"),
    "issue_reported": ("has a problem", "есть вопрос", "є питання"),
    "locked": ("on hold", "приостановлен", "призупинено"),
    "confirmed": ("confirmed", "подтверждён", "підтверджено"),
    "preparing": ("being prepared", "готовится", "готується"),
    "ready_for_pickup": ("ready to be picked up", "можно забрать", "можна забрати"),
    "shipped": ("sent", "отправлен", "надіслано"),
    "in_delivery": ("on its way", "в пути", "у дорозі"),
    "partially_delivered": ("delivered in part", "доставлен частично", "доставлено частково"),
    "delivered": ("delivered", "доставлен", "доставлено"),
    "completed": ("completed", "завершён", "завершено"),
    "expired": ("not paid in time", "не оплачен вовремя", "не оплачено вчасно"),
    "cancelled": ("cancelled", "отменён", "скасовано"),
    "refunded": ("refunded", "деньги возвращены", "гроші повернено"),
    "partially_refunded": ("refunded in part", "деньги возвращены частично", "гроші повернено частково"),
}
NAMES = {"en": "English", "ru": "Russian", "uk": "Ukrainian"}
_PLACES = {"en": 0, "ru": 1, "uk": 2}


def greeting(code: str) -> str:
    return _GREETING[language(code)]


def human(code: str) -> str:
    return _HUMAN[language(code)]


def nobody(code: str) -> str:
    """To who asks for a human where none answers: the channel has escalation off."""
    return _NOBODY[language(code)]


def nothing(code: str) -> str:
    return _NOTHING[language(code)]


def goods(code: str, lines: list[tuple[str, str, int | None]]) -> str:
    """What was found: (title, price as people read it, how many are left; None: it never runs out)."""
    lang = language(code)
    head = _FOUND if any(left != 0 for *_, left in lines) else _NOTHING_LEFT
    return "\n".join([head[lang], *(_line(lang, *line) for line in lines)])


def orders(code: str, lines: list[tuple[int, str, str]]) -> str:
    """A buyer's orders: (number, status, total as people read it)."""
    lang = language(code)
    if not lines:
        return _NO_ORDERS[lang]
    told = [
        _ORDER[lang].format(number=number, status=_STATUS[status][_PLACES[lang]], total=total)
        for number, status, total in lines
    ]
    return "\n".join([_ORDERS[lang], *told])


def _line(lang: str, title: str, price: str, left: int | None) -> str:
    if left == 0:
        return f"• {title}: {_SOLD_OUT[lang]}"
    return f"• {title}: {price}" + ("" if left is None else f", {_LEFT[lang].format(n=left)}")
