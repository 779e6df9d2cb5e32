"""Addresses that everybody's mail server takes, and the URL of our own."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.base import mailbox
from app.base.mailbox import BadMailbox, Sender, Server

LONG = f"{'l' * 64}@{'.'.join(['d' * 60, 'd' * 60, 'd' * 59])}.example"  # 254 characters


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ann@shop.example", "ann@shop.example"),
        ("Ann.B+news@Shop.EXAMPLE", "Ann.B+news@shop.example"),  # what stands before the @ is the server's own affair
        ("o'hara!#$%&*/=?^_`{|}~-@a-b.c1.example", "o'hara!#$%&*/=?^_`{|}~-@a-b.c1.example"),
        ("ann@почта.рф", "ann@xn--80a1acny.xn--p1ai"),
        ("ann@ПОЧТА.РФ", "ann@xn--80a1acny.xn--p1ai"),
        (LONG, LONG),
    ],
)
def test_an_address_has_one_spelling(text: str, address: str) -> None:
    assert mailbox.parse(text) == address
    assert mailbox.parse(address) == address


@pytest.mark.parametrize(
    "text",
    [
        "", "@", "ann", "ann@", "@shop.example", "ann@@shop.example", "ann@b@shop.example", "ann@localhost",
        "ann@[127.0.0.1]", "ann@127.0.0.1", "ann b@shop.example", '"ann b"@shop.example', "ann@shop..example",
        ".ann@shop.example", "ann.@shop.example", "a..b@shop.example", "ann@.shop.example", "ann@shop.example.",
        "ann@-shop.example", "ann@shop-.example", "ann@shop_x.example", " ann@shop.example", "ann@shop.example ",
        "ann@shop.example\n", "ann\n@shop.example", "ann\r\nBcc: bob@x.example@shop.example", "ann\0@shop.example",
        "ann@shop.example\r\nRCPT TO:<bob@x.example>", "ann>@shop.example", "<ann@shop.example>", "аnn@shop.example",
        "ann@straße.example", "ann@shop。example", f"{'l' * 65}@shop.example", f"ann@{'d' * 64}.example", LONG + "x",
        f"ann@{'я' * 63}.example", "ann@\ud800.example", f"ann@{'.'.join('я' * 125)}",
    ],
)  # fmt: skip
def test_what_is_no_plain_address_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(BadMailbox) as refused:
        mailbox.parse(text)
    assert len(text) < 6 or text not in str(refused.value)


@given(st.text(max_size=300) | st.text(alphabet=string.printable + "яß。", max_size=40).map(lambda t: f"{t}@a.example"))
def test_whatever_is_taken_is_ascii_on_one_line_with_one_at(text: str) -> None:
    try:
        address = mailbox.parse(text)
    except BadMailbox:
        return
    assert address.isascii()
    assert address.isprintable()
    assert address.count("@") == 1
    assert not set(address) & set(' <>()[],;:\\"')
    assert len(address) <= mailbox.MOST
    assert mailbox.parse(address) == address


@pytest.mark.parametrize(
    ("text", "sender"),
    [
        ("orders@shop.example", Sender("", "orders@shop.example")),
        (" Shop <orders@shop.example> ", Sender("Shop", "orders@shop.example")),
        ('"Лавка, и Ко" <orders@shop.example>', Sender("Лавка, и Ко", "orders@shop.example")),
    ],
)
def test_a_sender_is_an_address_with_or_without_a_name(text: str, sender: Sender) -> None:
    assert mailbox.sender(text) == sender
    assert sender.domain() == "shop.example"


@pytest.mark.parametrize("text", ["Shop", "Shop <orders>", "Shop <orders@shop.example", "a\nb <orders@shop.example>"])
def test_what_is_no_sender_is_refused(text: str) -> None:
    with pytest.raises(BadMailbox):
        mailbox.sender(text)


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://shop:p%40ss%2Fw%3Ard@mx.example", Server("mx.example", 587, "smtp", "shop", "p@ss/w:rd")),
        ("smtps://shop:pass@mx.example:4650/", Server("mx.example", 4650, "smtps", "shop", "pass")),
        ("smtps://mx.example", Server("mx.example", 465, "smtps", None, None)),
        ("smtp+plain://[::1]", Server("::1", 25, "smtp+plain", None, None)),
    ],
)
def test_a_server_is_a_url(url: str, server: Server) -> None:
    assert mailbox.server(url) == server


@pytest.mark.parametrize(
    "url",
    ["mx.example", "http://mx.example", "smtp://", "smtp://:25", "smtp://mx.example:x", "smtp://mx.example:99999",
     "smtp://shop@mx.example", "smtp+plain://shop:hidden@mx.example", "smtp://shop:hidden@[mx", "smtp://a:hid/den@mx",
     "smtp://mx.example/path", "smtp://mx.example?tls=off"],
)  # fmt: skip
def test_what_is_no_server_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(BadMailbox) as refused:
        mailbox.server(url)
    assert "hid" not in str(refused.value)
