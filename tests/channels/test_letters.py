"""Mails say the same as text and as HTML, in the reader's language, and nothing in them is more than text."""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from app.base import mailbox
from app.channels.email import texts
from app.channels.email.letter import Letter, Line, confirmation_letter, message, order_letter
from app.channels.telegram.texts import LANGUAGES
from tests.infra.smtpserver import parts, read

SENDER = mailbox.sender("Лавка <orders@shop.example>")
AT = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
STATUSES = (
    "delivered", "preorder", "paid", "underpaid", "overpaid", "second", "late", "late_part", "cancelled", "refund",
    "chargeback", "overdue", "refund_refused", "moved_confirmed", "moved_in_delivery", "moved_delivered",
    "moved_cancelled",
)  # fmt: skip


def letter(status: str = "delivered", code: str = "en", **changes: Any) -> Letter:
    told: dict[str, Any] = {
        "lines": [Line("Editor", 2, "20.00 EUR"), Line("Book", 1, "5.00 EUR")], "total": "25.00 EUR",
        "link": "https://t.me/shop_bot?startapp", "amount": "7.00 EUR", "due": "1.00 EUR",
    }  # fmt: skip
    return order_letter(status, code, 42, **told | changes)


def sent(written: Letter, to: str = "ann@x.example", key: str = "torg.1.a") -> Any:
    return read(message(written, SENDER, to, key=key, at=AT))


@pytest.mark.parametrize("code", LANGUAGES)
@pytest.mark.parametrize("status", STATUSES)
def test_news_of_every_kind_have_the_order_and_a_way_into_the_shop(status: str, code: str) -> None:
    mail = sent(letter(status, code))
    text, html = parts(mail)
    assert "42" in mail["Subject"]
    for said in ("42", "2 x Editor", "20.00 EUR", "1 x Book", "25.00 EUR", "https://t.me/shop_bot?startapp"):
        assert said in text
        assert said in html
    assert "{" not in mail["Subject"] + text
    assert f'<html lang="{code}">' in html


def test_each_language_has_its_own_words() -> None:
    for written in (
        [letter("paid", code) for code in LANGUAGES],
        [confirmation_letter(code, link="l", hours=24) for code in LANGUAGES],
    ):
        for part in ("subject", "text", "html"):
            assert len({getattr(one, part) for one in written}) == len(LANGUAGES)
    for words in (texts.order, texts.confirmation, texts.page):
        assert [words(code).keys() for code in LANGUAGES] == [words("en").keys()] * len(LANGUAGES)
    assert letter("paid", "pt-br") == letter("paid", "en")


def test_where_goods_wait_is_said_only_when_some_do() -> None:
    assert "goods are in the shop" in letter("delivered").text
    assert "goods are in the shop" in letter("delivered").html
    assert "goods are in the shop" not in letter("refund").text + letter("refund").html


TAGS = {"html", "head", "meta", "title", "body", "div", "p", "table", "tr", "td", "th", "a"}
HOSTILE = "<script>alert(1)</script>\"'&\r\nBcc: eve@x.example\x00\x1b\u202e{total}"


def test_a_hostile_title_stays_text() -> None:
    mail = sent(letter(lines=[Line(HOSTILE, 1, "5.00 EUR")]))
    text, html = parts(mail)
    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&amp; Bcc: eve@x.example {total}" in html
    assert "\nBcc:" not in text
    assert not re.search("[\x00\x1b\u202e]", text + html)
    assert mail["Bcc"] is None
    assert set(re.findall(r"<(\w+)", html)) <= TAGS


def test_a_hostile_link_stays_a_link() -> None:
    html = letter(link='https://a.example/"><script>').html
    assert 'href="https://a.example/&quot;&gt;&lt;script&gt;"' in html


@pytest.mark.parametrize("subject", ["a\r\nBcc: eve@x.example", "a\nBcc: eve@x.example", "a\rBcc: eve@x.example",
                                     "a\u2028Bcc: eve@x.example", "a\x00Bcc: eve@x.example"])  # fmt: skip
def test_a_subject_cannot_begin_another_header(subject: str) -> None:
    made = message(Letter(subject, "text", "<p>text</p>"), SENDER, "ann@x.example", key="k", at=AT)
    mail = read(made)
    assert mail["Bcc"] is None
    assert mail["Subject"] == "a Bcc: eve@x.example"
    assert not re.search(rb"(?mi)^bcc:", made)


def test_headers_are_those_of_an_automatic_message_and_ascii_on_the_wire() -> None:
    made = message(letter("paid", "uk"), SENDER, "o'hara+x@xn--80a1acny.xn--p1ai", key="torg.7.5f", at=AT)
    assert made.isascii()
    assert max(map(len, made.split(b"\r\n"))) <= 998
    assert b"\n" not in made.replace(b"\r\n", b"")
    mail = read(made)
    assert (mail["From"], mail["To"]) == ("Лавка <orders@shop.example>", "o'hara+x@xn--80a1acny.xn--p1ai")
    assert mail["Subject"] == "Замовлення 42 оплачено"
    assert (mail["Message-ID"], mail["Auto-Submitted"]) == ("<torg.7.5f@shop.example>", "auto-generated")
    assert parsedate_to_datetime(mail["Date"]) == AT
    assert mail.get_content_type() == "multipart/alternative"


def test_a_thousand_long_lines_are_a_mail_like_any_other() -> None:
    made = message(letter(lines=[Line("слово " * 33, 1, "1.00 RUB")] * 1000), SENDER, "ann@x.example", key="k", at=AT)
    assert max(map(len, made.split(b"\r\n"))) <= 998
    assert parts(read(made))[0].count("слово") == 33_000


def test_the_confirmation_has_its_link_and_nothing_of_an_order() -> None:
    for code in LANGUAGES:
        text, html = parts(sent(confirmation_letter(code, link="https://shop.example/c?token=v1.a&b", hours=24)))
        assert "https://shop.example/c?token=v1.a&b" in text
        assert 'href="https://shop.example/c?token=v1.a&amp;b"' in html
        assert "24" in text
