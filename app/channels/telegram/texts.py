"""What the bot says about an order, in the language of whom it tells."""

from collections.abc import Callable

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
}
_SUPPLY = {
    "en": ("Order {number}, paid:", "{quantity} x {title}", "by {due}"),
    "ru": ("Заказ {number}, оплачен:", "{quantity} x {title}", "до {due}"),
    "uk": ("Замовлення {number}, оплачено:", "{quantity} x {title}", "до {due}"),
}


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
    return whole if len(whole) <= max_length else f"{head}\n\n{_IN_APP[lang]}"


def alert(word: str, code: str, **facts: str) -> str:
    """The admins' message: number, amount, invoice and how many goods were delivered."""
    return _ALERTS[word][language(code)].format(**facts)


def supply(code: str, number: int, lines: list[tuple[str, int, str]]) -> str:
    """The seller's message: (title, quantity, due or empty) of each line."""
    head, line, due = _SUPPLY[language(code)]
    told = [
        line.format(title=title, quantity=quantity) + (f", {due.format(due=by)}" if by else "")
        for title, quantity, by in lines
    ]
    return "\n".join([head.format(number=number), *told])[:MAX_LENGTH]
