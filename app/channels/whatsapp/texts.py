"""What WhatsApp users read beside the consultant's words and the news: buttons, links, refusals."""

from app.channels.telegram.texts import language

_PAY = {"en": "Pay {price}", "ru": "Оплатить {price}", "uk": "Сплатити {price}"}
_PAY_ONE = {"en": "{n}: pay {price}", "ru": "{n}: {price}", "uk": "{n}: {price}"}
_CHOOSE = {"en": "To pay, choose:", "ru": "Чтобы оплатить, выберите:", "uk": "Щоб сплатити, оберіть:"}
_MORE = {
    "en": "Also there; name it to get its button:",
    "ru": "Есть ещё; назовите, и появится кнопка:",
    "uk": "Є ще; назвіть, і з'явиться кнопка:",
}
_LINK = {
    "en": "Order {number}, {total}. Pay here within {minutes} minutes:",
    "ru": "Заказ {number}, {total}. Оплатите здесь в течение {minutes} минут:",
    "uk": "Замовлення {number}, {total}. Сплатіть тут протягом {minutes} хвилин:",
}
_PLACED = {
    "en": "Order {number} is there already.",
    "ru": "Заказ {number} уже есть.",
    "uk": "Замовлення {number} вже є.",
}
_SAID = {
    "only_words": {
        "en": "I can read only words. Please write what you are looking for.",
        "ru": "Я понимаю только текст. Напишите, пожалуйста, что вы ищете.",
        "uk": "Я розумію лише текст. Напишіть, будь ласка, що ви шукаєте.",
    },
    "stale": {
        "en": "This offer is not valid any more. Ask again, and I will look what there is now.",
        "ru": "Это предложение уже не действует. Спросите ещё раз, и я посмотрю, что есть сейчас.",
        "uk": "Ця пропозиція вже не діє. Запитайте ще раз, і я подивлюся, що є зараз.",
    },
    "sold_out": {
        "en": "It has just been sold. Ask again, and I will look for something else.",
        "ru": "Этот товар только что продан. Спросите ещё раз, и я поищу другой.",
        "uk": "Цей товар щойно продано. Запитайте ще раз, і я пошукаю інший.",
    },
    "too_many": {
        "en": "You have unpaid orders. Pay one of them, or wait until they expire.",
        "ru": "У вас есть неоплаченные заказы. Оплатите один из них или дождитесь, пока их срок истечёт.",
        "uk": "У вас є неоплачені замовлення. Сплатіть одне з них або зачекайте, доки їхній термін мине.",
    },
    "no_gateway": {
        "en": "Nobody here takes payments in this currency at the moment.",
        "ru": "Сейчас здесь не принимают оплату в этой валюте.",
        "uk": "Зараз тут не приймають оплату в цій валюті.",
    },
    "not_now": {
        "en": "The payment service does not answer. Please press the button again in a minute.",
        "ru": "Платёжный сервис не отвечает. Нажмите кнопку ещё раз через минуту.",
        "uk": "Платіжний сервіс не відповідає. Натисніть кнопку ще раз за хвилину.",
    },
}

WORDS = tuple(_SAID)


def pay(code: str, price: str) -> str:
    """The one button."""
    return _PAY[language(code)].format(price=price)


def pay_one(code: str, n: int, price: str) -> str:
    """One button of several, by the number of its line."""
    return _PAY_ONE[language(code)].format(n=n, price=price)


def choose(code: str) -> str:
    """Above the buttons, when the reply itself went ahead."""
    return _CHOOSE[language(code)]


def more(code: str) -> str:
    """Above the offers for which there is no button."""
    return _MORE[language(code)]


def links(code: str, number: int, total: str, minutes: int, urls: list[str]) -> str:
    """Where an order is paid; without an address, that it is there."""
    lang = language(code)
    if not urls:
        return _PLACED[lang].format(number=number)
    return "\n".join([_LINK[lang].format(number=number, total=total, minutes=max(minutes, 1)), *urls])


def said(word: str, code: str) -> str:
    """A plain answer."""
    return _SAID[word][language(code)]
