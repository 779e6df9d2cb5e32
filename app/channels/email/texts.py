"""What mails say beside the bot's own sentence about an order, in the reader's language."""

from app.channels.telegram.texts import language

Words = dict[str, str]

_DELIVERED = {
    "en": "Order {number} is delivered",
    "ru": "Заказ {number} доставлен",
    "uk": "Замовлення {number} доставлено",
}
_PAID = {
    "en": "Order {number} is paid",
    "ru": "Заказ {number} оплачен",
    "uk": "Замовлення {number} оплачено",
}
_REFUND = {
    "en": "Order {number}: money back",
    "ru": "Заказ {number}: возврат денег",
    "uk": "Замовлення {number}: повернення коштів",
}
_CANCELLED = {
    "en": "Order {number} is cancelled",
    "ru": "Заказ {number} отменён",
    "uk": "Замовлення {number} скасовано",
}
_PAYMENT = {
    "en": "Order {number}: your payment",
    "ru": "Заказ {number}: ваш платёж",
    "uk": "Замовлення {number}: ваш платіж",
}
_NEWS = {
    "en": "Order {number}: news",
    "ru": "Заказ {number}: новости",
    "uk": "Замовлення {number}: новини",
}
_SUBJECTS = {
    "delivered": _DELIVERED, "moved_delivered": _DELIVERED, "paid": _PAID, "preorder": _PAID, "refund": _REFUND,
    "chargeback": _REFUND, "overdue": _REFUND, "refund_refused": _REFUND, "moved_cancelled": _CANCELLED,
    "underpaid": _PAYMENT, "overpaid": _PAYMENT, "second": _PAYMENT, "late": _PAYMENT, "late_part": _PAYMENT,
    "cancelled": _PAYMENT,
}  # fmt: skip

IN_SHOP = frozenset({"delivered", "preorder"})  # news after which goods wait in the shop; a mail never has them

_ORDER = {
    "en": {
        "total": "Total",
        "goods": "The goods are in the shop, under your orders.",
        "open": "Open the shop",
        "why": "You get this mail because you confirmed this address in our shop.",
    },
    "ru": {
        "total": "Итого",
        "goods": "Товары ждут вас в магазине, в разделе заказов.",
        "open": "Открыть магазин",
        "why": "Вы получили это письмо, потому что подтвердили этот адрес в нашем магазине.",
    },
    "uk": {
        "total": "Разом",
        "goods": "Товари чекають на вас у магазині, у розділі замовлень.",
        "open": "Відкрити магазин",
        "why": "Ви отримали цей лист, бо підтвердили цю адресу в нашому магазині.",
    },
}
_CONFIRMATION = {
    "en": {
        "subject": "Confirm your address",
        "lead": "Somebody wants to get news of orders in our shop at this address. If that is you, confirm it:",
        "open": "Confirm the address",
        "why": "The link is good for {hours} hours. If it was not you, do nothing: no other mail comes here.",
    },
    "ru": {
        "subject": "Подтвердите адрес",
        "lead": "Кто-то хочет получать новости о заказах в нашем магазине на этот адрес. Если это вы, подтвердите его:",
        "open": "Подтвердить адрес",
        "why": "Ссылка действует {hours} ч. Если это были не вы, ничего не делайте: больше писем не будет.",
    },
    "uk": {
        "subject": "Підтвердьте адресу",
        "lead": "Хтось хоче отримувати на цю адресу новини про замовлення в нашому магазині. Якщо це ви, підтвердьте:",
        "open": "Підтвердити адресу",
        "why": "Посилання дійсне {hours} год. Якщо це були не ви, нічого не робіть: більше листів не буде.",
    },
}
_PAGE = {
    "en": {
        "ask": "Shall news of your orders come to {address}?",
        "yes": "Yes, confirm",
        "done": "Confirmed: news of your orders come to {address}.",
        "gone": "This link is no longer good. Ask for a new one in the shop.",
    },
    "ru": {
        "ask": "Присылать новости о ваших заказах на {address}?",
        "yes": "Да, подтверждаю",
        "done": "Готово: новости о ваших заказах будут приходить на {address}.",
        "gone": "Эта ссылка больше не действует. Запросите новую в магазине.",
    },
    "uk": {
        "ask": "Надсилати новини про ваші замовлення на {address}?",
        "yes": "Так, підтверджую",
        "done": "Готово: новини про ваші замовлення надходитимуть на {address}.",
        "gone": "Це посилання більше не дійсне. Замовте нове в магазині.",
    },
}


def subject(status: str, code: str, number: int) -> str:
    return _SUBJECTS.get(status, _NEWS)[language(code)].format(number=number)


def order(code: str) -> Words:
    """total, goods, open, why."""
    return _ORDER[language(code)]


def confirmation(code: str) -> Words:
    """subject, lead, open; why, with `hours` to fill in."""
    return _CONFIRMATION[language(code)]


def page(code: str) -> Words:
    """yes, gone; ask and done, with `address` to fill in."""
    return _PAGE[language(code)]
