"""The bot's news come in the buyer's language and never cut a key in two."""

import pytest

from app.base import prose
from app.channels.telegram.texts import LANGUAGES, MAX_LENGTH, alert, language, order_news, supply

STATUSES = ("delivered", "preorder", "paid")


@pytest.mark.parametrize(
    ("code", "ours"),
    [("en", "en"), ("ru", "ru"), ("uk", "uk"), ("ru-RU", "ru"), ("RU", "ru"), ("uk_UA", "uk"), ("pt-br", "en"),
     ("", "en"), ("x", "en"), ("🙂", "en")],
)  # fmt: skip
def test_a_telegram_language_is_one_of_ours(code: str, ours: str) -> None:
    assert language(code) == ours


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("code", LANGUAGES)
def test_news_tell_the_number_and_every_good_whole(status: str, code: str) -> None:
    text = order_news(status, code, 7, [("Editor", "AAAA-BBBB"), ("<b>Book*_", "link")], max_length=MAX_LENGTH)
    head, first, second = text.split("\n\n")
    assert "7" in head
    assert (first, second) == ("Editor\nAAAA-BBBB", "<b>Book*_\nlink")


def test_each_status_and_language_has_its_own_words() -> None:
    texts = {order_news(status, code, 7, [], max_length=MAX_LENGTH) for status in STATUSES for code in LANGUAGES}
    assert len(texts) == len(STATUSES) * len(LANGUAGES)
    assert not any("{" in text for text in texts)


@pytest.mark.parametrize("code", LANGUAGES)
def test_goods_that_do_not_fit_wait_in_the_shop(code: str) -> None:
    goods = [("Key", "K" * 40)]
    whole = order_news("delivered", code, 7, goods, max_length=MAX_LENGTH)
    assert order_news("delivered", code, 7, goods, max_length=len(whole)) == whole
    short = order_news("delivered", code, 7, goods, max_length=len(whole) - 1)
    assert "KK" not in short
    assert short.startswith(order_news("delivered", code, 7, [], max_length=MAX_LENGTH))
    assert len(order_news("preorder", code, 10**18, [("t" * 200, "c" * 10_000)], max_length=MAX_LENGTH)) <= MAX_LENGTH


def test_what_telegram_counts_are_units() -> None:
    faces = [("Key", "🙂" * 3000)]
    assert "🙂" not in order_news("delivered", "en", 7, faces, max_length=MAX_LENGTH)
    assert prose.units(supply("en", 7, [("🙂" * 3000, 1, "")])) <= MAX_LENGTH


def test_a_webhook_that_was_disabled_is_told_in_each_language() -> None:
    facts = {"number": "?", "amount": "", "invoice": "", "delivered": "0", "endpoint": "erp.example"}
    told = {alert(word, code, **facts) for word in ("webhook_gone", "webhook_failing") for code in LANGUAGES}
    assert len(told) == 2 * len(LANGUAGES)
    assert all("erp.example" in text and "{" not in text for text in told)
