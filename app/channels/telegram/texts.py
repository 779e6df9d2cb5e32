"""What the bot says about an order, in the buyer's language."""

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
_IN_APP = {
    "en": "The goods are in the shop, under your orders.",
    "ru": "Товары ждут вас в магазине, в разделе заказов.",
    "uk": "Товари чекають на вас у магазині, у розділі замовлень.",
}
_BY_STATUS = {"delivered": _DELIVERED, "preorder": _PREORDER, "paid": _PAID}


def language(code: str) -> str:
    """The language of ours that a Telegram language code (`ru`, `pt-br`) asks for."""
    short = code[:2].lower()
    return short if short in LANGUAGES else "en"


def order_news(status: str, code: str, number: int, goods: list[tuple[str, str]], *, max_length: int) -> str:
    """The message about an order that became `status`; goods are (title, content), plain text.

    When the goods do not fit into one message, it says where they are instead of cutting a key in two.
    """
    lang = language(code)
    head = _BY_STATUS[status][lang].format(number=number)
    whole = "\n\n".join([head, *(f"{title}\n{content}" for title, content in goods)])
    return whole if len(whole) <= max_length else f"{head}\n\n{_IN_APP[lang]}"
