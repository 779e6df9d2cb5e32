"""What the bot says about an order, in the language of whom it tells."""

from collections.abc import Callable

from app.base import prose
from app.base.money import MINOR_DIGITS

MAX_LENGTH = 4096  # characters of one message (Bot API, sendMessage)

LANGUAGES = ("en", "ru", "uk")

_DELIVERED = {
    "en": "Order {number} is here. Thank you!",
    "ru": "Заказ {number} доставлен. Спасибо!",
    "uk": "Замовлення {number} доставлено. Дякуємо!",
}
_PREORDER = {
    "en": "Order {number} is paid. What is made to order follows by its deadline.",
    "ru": "Заказ {number} оплачен. То, что делается на заказ, придёт в срок.",
    "uk": "Замовлення {number} оплачено. Те, що виготовляється на замовлення, надійде вчасно.",
}
_PAID = {
    "en": "Order {number} is paid. The seller is preparing it.",
    "ru": "Заказ {number} оплачен. Продавец его готовит.",
    "uk": "Замовлення {number} оплачено. Продавець його готує.",
}
_UNDERPAID = {
    "en": "Order {number}: {amount} came: too little. It is on your balance; pay {due} more to get the goods.",
    "ru": "Заказ {number}: пришло {amount}, этого мало. Деньги на балансе; доплатите {due}, чтобы получить товар.",
    "uk": "Замовлення {number}: надійшло {amount}, цього мало. Гроші на балансі; доплатіть {due}, щоб отримати товар.",
}
_OVERPAID = {
    "en": "Order {number}: {amount} more than its price came. The rest is on your balance.",
    "ru": "Заказ {number}: пришло на {amount} больше цены. Остаток на вашем балансе.",
    "uk": "Замовлення {number}: надійшло на {amount} більше за ціну. Залишок на вашому балансі.",
}
_SECOND = {
    "en": "Order {number} was paid already. The second payment of {amount} is on your balance.",
    "ru": "Заказ {number} уже был оплачен. Второй платёж, {amount}, на вашем балансе.",
    "uk": "Замовлення {number} вже було оплачено. Другий платіж, {amount}, на вашому балансі.",
}
_LATE = {
    "en": "Order {number} had expired and its goods are gone. Your {amount} are on your balance.",
    "ru": "Срок заказа {number} истёк, товара больше нет. Ваши {amount} на балансе.",
    "uk": "Термін замовлення {number} минув, товару більше немає. Ваші {amount} на балансі.",
}
_LATE_PART = {
    "en": "Order {number} had expired. Your {amount} are on your balance.",
    "ru": "Срок заказа {number} истёк. Ваши {amount} на балансе.",
    "uk": "Термін замовлення {number} минув. Ваші {amount} на балансі.",
}
_CANCELLED = {
    "en": "Order {number} was cancelled before the payment came. Your {amount} are on your balance.",
    "ru": "Заказ {number} был отменён до оплаты. Ваши {amount} на балансе.",
    "uk": "Замовлення {number} було скасовано до оплати. Ваші {amount} на балансі.",
}
_REFUND = {
    "en": "Order {number}: {amount} refunded in all.",
    "ru": "Заказ {number}: возвращено всего {amount}.",
    "uk": "Замовлення {number}: повернено всього {amount}.",
}
_OVERDUE = {
    "en": "Order {number} was not ready by its deadline. We are sorry; {amount} are back on your balance.",
    "ru": "Заказ {number} не был готов в срок. Простите; {amount} возвращены на ваш баланс.",
    "uk": "Замовлення {number} не було готове вчасно. Вибачте; {amount} повернено на ваш баланс.",
}
_REFUND_REFUSED = {
    "en": "Order {number}: the payment service would not send {amount} back, so it is on your balance.",
    "ru": "Заказ {number}: платёжный сервис не принял возврат {amount}, деньги на вашем балансе.",
    "uk": "Замовлення {number}: платіжний сервіс не прийняв повернення {amount}, гроші на вашому балансі.",
}
_IN_APP = {
    "en": "The goods are in the shop, under your orders.",
    "ru": "Товары ждут вас в магазине, в разделе заказов.",
    "uk": "Товари чекають на вас у магазині, у розділі замовлень.",
}
_BY_STATUS = {
    "delivered": _DELIVERED, "preorder": _PREORDER, "paid": _PAID, "underpaid": _UNDERPAID, "overpaid": _OVERPAID,
    "second": _SECOND, "late": _LATE, "late_part": _LATE_PART, "cancelled": _CANCELLED, "refund": _REFUND,
    "chargeback": _REFUND, "overdue": _OVERDUE, "refund_refused": _REFUND_REFUSED,
}  # fmt: skip
# Moves that somebody else has made, of which the buyer is told.
MOVES = {
    "confirmed": {
        "en": "Order {number} is confirmed by the seller.",
        "ru": "Заказ {number} подтверждён продавцом.",
        "uk": "Замовлення {number} підтверджено продавцем.",
    },
    "ready_for_pickup": {
        "en": "Order {number} is ready to be picked up.",
        "ru": "Заказ {number} готов, его можно забрать.",
        "uk": "Замовлення {number} готове, його можна забрати.",
    },
    "in_delivery": {
        "en": "Order {number} is on its way.",
        "ru": "Заказ {number} в пути.",
        "uk": "Замовлення {number} у дорозі.",
    },
    "partially_delivered": {
        "en": "A part of order {number} has been delivered; the rest follows.",
        "ru": "Часть заказа {number} доставлена, остальное следует.",
        "uk": "Частину замовлення {number} доставлено, решта прибуде згодом.",
    },
    "delivered": {
        "en": "Order {number} is delivered, says the seller.",
        "ru": "Заказ {number} доставлен, сообщает продавец.",
        "uk": "Замовлення {number} доставлено, повідомляє продавець.",
    },
    "completed": {
        "en": "Order {number} is completed. Thank you!",
        "ru": "Заказ {number} завершён. Спасибо!",
        "uk": "Замовлення {number} завершено. Дякуємо!",
    },
    "cancelled": {
        "en": "Order {number} was cancelled by the seller. What you have paid for it comes back to your balance.",
        "ru": "Заказ {number} отменён продавцом. То, что вы за него заплатили, вернётся на ваш баланс.",
        "uk": "Замовлення {number} скасовано продавцем. Сплачене за нього повернеться на ваш баланс.",
    },
}
_BY_STATUS |= {f"moved_{status}": words for status, words in MOVES.items()}
_INFORMED = {
    "delivered": {
        "en": "Order {number}: the buyer says that it has arrived.",
        "ru": "Заказ {number}: покупатель подтвердил получение.",
        "uk": "Замовлення {number}: покупець підтвердив отримання.",
    },
    "cancelled": {
        "en": "Order {number} was cancelled by the buyer.",
        "ru": "Заказ {number} отменён покупателем.",
        "uk": "Замовлення {number} скасовано покупцем.",
    },
}
WITH_GOODS = frozenset({"delivered", "preorder", "paid"})
CURRENCIES = frozenset(MINOR_DIGITS)

Wording = Callable[[str], str]

_ALERTS = {
    "sold": {
        "en": "Order {number} is paid and delivered as far as it can be.",
        "ru": "Заказ {number} оплачен и выдан, насколько возможно.",
        "uk": "Замовлення {number} оплачено й видано, наскільки можливо.",
    },
    "unknown_order": {
        "en": "LOOK: {amount} came by {invoice} for an order that is not here. The event waits in `torg inbox list`.",
        "ru": "ПРОВЕРЬТЕ: {amount} через {invoice} за заказ, которого здесь нет. Событие ждёт в `torg inbox list`.",
        "uk": "ПЕРЕВІРТЕ: {amount} через {invoice} за замовлення, якого тут немає. Подія чекає в `torg inbox list`.",
    },
    "wrong_currency": {
        "en": "LOOK: order {number} was paid in another currency: {amount} by {invoice}. Nothing was delivered for it.",
        "ru": "ПРОВЕРЬТЕ: заказ {number} оплачен в другой валюте: {amount} через {invoice}. По нему ничего не выдано.",
        "uk": "ПЕРЕВІРТЕ: замовлення {number} оплачено в іншій валюті: {amount} через {invoice}. Нічого не видано.",
    },
    "refund": {
        "en": "Order {number}: {amount} refunded in all; goods out of reach: {delivered}.",
        "ru": "Заказ {number}: возвращено всего {amount}; уже выдано товаров: {delivered}.",
        "uk": "Замовлення {number}: повернено всього {amount}; вже видано товарів: {delivered}.",
    },
    "chargeback": {
        "en": "LOOK: order {number} was charged back, {amount} in all; goods out of reach: {delivered}.",
        "ru": "ПРОВЕРЬТЕ: по заказу {number} деньги отозваны, всего {amount}; уже выдано товаров: {delivered}.",
        "uk": "ПЕРЕВІРТЕ: за замовленням {number} гроші відкликано, всього {amount}; вже видано товарів: {delivered}.",
    },
    "overdue": {
        "en": "Order {number} was not made by its deadline: {amount} refunded to the balance.",
        "ru": "Заказ {number} не сделан в срок: {amount} возвращено на баланс.",
        "uk": "Замовлення {number} не зроблено вчасно: {amount} повернено на баланс.",
    },
    "refund_refused": {
        "en": "LOOK: the gateway refused to refund {amount} of order {number}; the money is on the buyer's balance.",
        "ru": "ПРОВЕРЬТЕ: шлюз отказал в возврате {amount} по заказу {number}; деньги на балансе покупателя.",
        "uk": "ПЕРЕВІРТЕ: шлюз відмовив у поверненні {amount} за замовленням {number}; гроші на балансі покупця.",
    },
    "webhook_gone": {
        "en": "The webhook at {endpoint} answered that it is gone. It is disabled.",
        "ru": "Вебхук на {endpoint} ответил, что его больше нет. Он отключён.",
        "uk": "Вебхук на {endpoint} відповів, що його більше немає. Його вимкнено.",
    },
    "webhook_failing": {
        "en": "The webhook at {endpoint} has failed for five days. It is disabled; enable it to go on.",
        "ru": "Вебхук на {endpoint} не отвечает пять дней. Он отключён; включите его, чтобы продолжить.",
        "uk": "Вебхук на {endpoint} не відповідає п'ять днів. Його вимкнено; увімкніть, щоб продовжити.",
    },
}
_SUPPLY = {
    "en": ("Order {number}, paid:", "{quantity} x {title}", "by {due}"),
    "ru": ("Заказ {number}, оплачен:", "{quantity} x {title}", "до {due}"),
    "uk": ("Замовлення {number}, оплачено:", "{quantity} x {title}", "до {due}"),
}


_PAY = {"en": "Pay {price}", "ru": "Оплатить {price}", "uk": "Сплатити {price}"}
_MOST_OF_A_TITLE = 32  # units of a button's label; a phone shows about so many


def language(code: str) -> str:
    """The language of ours that a Telegram language code (`ru`, `pt-br`) asks for."""
    short = code[:2].lower()
    return short if short in LANGUAGES else "en"


def order_news(
    status: str, code: str, number: int, goods: list[tuple[str, str]], *, max_length: int, **money: str
) -> str:
    """The message about what became of an order; goods are (title, content), `amount` and `due` as people read them.

    When the goods do not fit into one message, it says where they are instead of cutting a key in two.
    """
    lang = language(code)
    head = _BY_STATUS[status][lang].format(number=number, **money)
    whole = "\n\n".join([head, *(f"{title}\n{content}" for title, content in goods)])
    return whole if prose.units(whole) <= max_length else f"{head}\n\n{_IN_APP[lang]}"


def pay_label(code: str, price: str, title: str) -> str:
    """A button that buys; with the title when there are others beside it."""
    pay = _PAY[language(code)].format(price=price)
    return f"{prose.one_line(title, _MOST_OF_A_TITLE)} · {pay}" if title else pay


def alert(word: str, code: str, **facts: str) -> str:
    """The admins' message: number, amount, invoice and how many goods were delivered."""
    return _ALERTS[word][language(code)].format(**facts)


def informed(word: str, code: str, number: int) -> str:
    """The seller's message about what the buyer has done with an order."""
    return _INFORMED[word][language(code)].format(number=number)


def supply(code: str, number: int, lines: list[tuple[str, int, str]]) -> str:
    """The seller's message: (title, quantity, due or empty) of each line."""
    head, line, due = _SUPPLY[language(code)]
    told = [
        line.format(title=title, quantity=quantity) + (f", {due.format(due=by)}" if by else "")
        for title, quantity, by in lines
    ]
    return prose.cut("\n".join([head.format(number=number), *told]), MAX_LENGTH)
