"""AAIO's adapter; also the bad notifications of FAILURES §4 (`F9`: number 9)."""

import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode
from uuid import UUID

import httpx
import pytest
from litestar import Litestar, Request, Response, post

from app import errors
from app.base.money import Money
from app.gateways import registry
from app.gateways.aaio import wire
from app.gateways.aaio.gateway import Aaio, Config
from app.gateways.base import Ask, Callback, Foreign, Invoice, InvoiceState, Notice, RefundRefused
from app.infra.http import MAX_ANSWER_BYTES, Answer
from app.sandbox.serve import running
from app.settings import BadSettings, Settings

MIB = 1024 * 1024
MERCHANT, KEY, ONE, TWO = "11111111-2222-3333-4444-555555555555", "api-key", "secret_one", "secret_two"
THEIRS = "48ebfc18-e6c7-11ed-a05b-0242ac120003"  # AAIO's own id of the order
ORDER = UUID("0197f0aa-0000-7000-8000-000000000001")
REFERENCE = f"{ORDER}-3"
OURS = {"merchant_id": MERCHANT, "api_key": KEY, "secret_1": ONE, "secret_2": TWO}

# Field by field PROTOCOLS §2, with our order id.
FIELDS = {
    "status": "success", "merchant_id": MERCHANT, "invoice_id": THEIRS, "order_id": REFERENCE, "amount": "1490.50",
    "currency": "RUB", "profit": "1445.79", "commission": "44.71", "commission_client": "0",
    "commission_type": "100:0", "method": "sbp", "desc": "Order 7", "email": "", "us_ref": "x",
}  # fmt: skip
# "informaciya-o-zakaze".
SAMPLE: dict[str, Any] = {
    "type": "success", "id": THEIRS, "order_id": REFERENCE, "desc": "Order 7", "merchant_id": MERCHANT,
    "merchant_domain": "aaio.io", "method": "tether_trc20", "amount": 500, "currency": "RUB", "profit": 485,
    "commission": 15, "commission_client": 0, "commission_type": "100:0", "email": None, "status": "success",
    "date": "2026-01-01 12:00:00", "expired_date": "2026-01-02 00:00:00", "complete_date": "2026-01-01 12:01:00",
    "us_vars": [],
}  # fmt: skip


def hashed(fields: Mapping[str, str], secret: str = TWO) -> str:
    """The signature, written down a second time: from the documentation and not from the adapter."""
    text = hashlib.sha256()
    for name in ("merchant_id", "amount", "currency"):
        text.update(fields[name].encode() + b":")
    text.update(secret.encode() + b":" + fields["order_id"].encode())
    return text.hexdigest()


RIGHT = hashed(FIELDS)


def event(**changes: Any) -> bytes:
    """A notification with the right signature of the unchanged one; `...` leaves a field out."""
    fields = FIELDS | {"sign": RIGHT} | changes
    return urlencode({name: value for name, value in fields.items() if value is not ...}).encode()


def proven(secret: str = TWO, **changes: str) -> bytes:
    """Whatever it says, its signature is right."""
    fields = FIELDS | changes
    return urlencode(fields | {"sign": hashed(fields, secret)}).encode()


def tail(text: str) -> bytes:
    return event() + text.encode()


UNPROVEN = {
    "F1 none": event(sign=...),
    "F2 empty": event(sign=""),
    "F3 null": event(sign="null"),
    "F3 zero": event(sign="0"),
    "F3 array": event(sign=..., **{"sign[]": RIGHT}),
    "F4 wrong": event(sign="0" * 64),
    "F4 last digit": event(sign=RIGHT[:-1] + ("0" if RIGHT[-1] != "0" else "1")),
    "F5 truncated": event(sign=RIGHT[:-1]),
    "F5 trailing space": event(sign=RIGHT + " "),
    "F5 newline": event(sign=RIGHT + "\n"),
    "F5 upper case": event(sign=RIGHT.upper()),
    "F6 not ASCII": event(sign="é" * 64),
    "F6 wide digits": event(sign=RIGHT.translate({ord(c): ord(c) + 0xFEE0 for c in "0123456789"})),
    "F7 another order's": event(sign=hashed(FIELDS | {"order_id": f"{ORDER}-4"})),
    "F7 on another order": event(order_id=f"{ORDER}-4"),
    "F8 another secret": proven("another"),
    "F8 no secret": proven(""),
    "F9 the first secret": proven(ONE),
    "F31 amount edited": event(amount="1490.49"),
    "F31 amount spelt otherwise": event(amount="1490.5"),
    "F33 currency edited": event(currency="UAH"),
    "F42 another merchant": proven(merchant_id="99999999-2222-3333-4444-555555555555"),
    "F42 merchant edited": event(merchant_id=THEIRS),
    "F43 fields shifted": event(amount="1490.50:RUB", currency=""),
    "F49 semicolons": event().replace(b"&", b";"),
    "F49 multipart": b'--b\r\nContent-Disposition: form-data; name="sign"\r\n\r\n' + RIGHT.encode() + b"\r\n--b--\r\n",
    "F46 another gateway's body": b"id=123456789_abcdefghij&state=payed&signature=" + RIGHT.encode(),
}
MALFORMED = {
    **{f"{name} missing": event(**{name: ...}) for name in (
        "amount", "order_id", "merchant_id", "currency", "status", "invoice_id",
    )},
    "status empty": event(status=""),
    "status a sentence": event(status="success; paid"),
    "invoice_id with colon": event(invoice_id="1:success"),
    **{f"F34 amount {text!r}": proven(amount=text) for text in (
        "1e2", "100,00", "1,000.00", "0100", "+100", " 100", "100 ", "100.", ".5", "0x64", "100.001", "１００", "",
    )},
    **{f"F35 amount {text!r}": proven(amount=text) for text in ("NaN", "Infinity", "-1", "-0", "1e309", "9" * 40)},
    "F36 zero": proven(amount="0"),
    "F36 zero and cents": proven(amount="0.00"),
    "F33 a currency that it does not take": proven(currency="KZT"),
    "F33 a coin": proven(currency="USDT"),
    "currency in lower case": proven(currency="rub"),
    "F43 order id with colon": proven(order_id=f"{REFERENCE}:1"),
    "F43 order id and secret": proven(order_id=f"RUB:{TWO}:{REFERENCE}"),
    "F44 order id with SQL": proven(order_id="1'; DROP TABLE orders; --"),
    "F44 order id with CRLF": proven(order_id=f"{REFERENCE}\r\nX: y"),
    "F44 order id with a newline at its end": proven(order_id=f"{REFERENCE}\n"),
    "F44 order id as a path": proven(order_id="../../etc/passwd"),
    "order id empty": proven(order_id=""),
    "F58 order id of 65": proven(order_id="a" * 65),
    "F58 order id of nearly 1 MiB": proven(order_id="a" * (MIB - 2000)),
    "F46 YooKassa's body": b'{"type":"notification","event":"payment.succeeded","object":{"id":"22e12f66"}}',
    "F49 JSON": json.dumps(FIELDS | {"sign": RIGHT}).encode(),
    "F49 BOM": b"\xef\xbb\xbf" + event(),
    "F49 utf-16": event().decode().encode("utf-16"),
    "F51 no body": b"",
    "F51 one byte": b"&",
    "F53 sign twice": tail(f"&sign={RIGHT}"),
    "F53 status twice": tail("&status=hold"),
    "F53 an escaped twin": tail("&st%61tus=success"),
    "a piece without =": tail("&a"),
    "an empty piece": tail("&"),
    "a field without name": tail("&=1"),
    "F55 escape cut": tail("&a=%4"),
    "F55 escape in a name": tail("&%=1"),
    "F55 bad UTF-8": event() + b"&a=\xff\xfe",
    "F55 bad UTF-8, escaped": tail("&a=%ff%fe"),
    "F55 overlong UTF-8": tail("&a=%c0%af"),
    "F55 surrogate": tail("&a=%ed%a0%80"),
    "F55 NUL": tail("&a=%00"),
    "F55 NUL in a name": tail("&%00=a"),
    "F57 100 000 fields": tail("".join(f"&a{n}=" for n in range(100_000))),
    "F58 a long value": tail("&a=" + "x" * 3000),
    "F58 a long name": tail("&" + "x" * 65 + "=1"),
}  # fmt: skip
BAD = {name: (errors.BadSignature, body) for name, body in UNPROVEN.items()} | {
    name: (errors.Malformed, body) for name, body in MALFORMED.items()
}


@asynccontextmanager
async def merchant(*answers: bytes, status: int = 200) -> AsyncIterator[tuple[Aaio, list[tuple[str, Any, bytes]]]]:
    """The adapter before an AAIO that gives these answers, and what this AAIO was sent: path, headers, body."""
    given, asked = list(answers), []

    @post(["/merchant/get_pay_url", "/api/info-pay"])
    async def answer(request: Request[Any, Any, Any]) -> Response[bytes]:
        asked.append((request.url.path, dict(request.headers), await request.body()))
        return Response(given.pop(0), status_code=status, media_type="application/json")

    async with running(Litestar([answer], openapi_config=None)) as url, httpx.AsyncClient(timeout=5) as http:
        yield Aaio(Config(**OURS, url=url + "/"), http), asked


def gateway() -> Aaio:
    return Aaio(Config(**OURS, url="https://aaio.invalid"), httpx.AsyncClient(verify=False))


def verified(body: bytes) -> Notice:
    return gateway().verify(Callback(body, {}, "192.0.2.1"))


def told(**changes: Any) -> bytes:
    """The sample's answer; `...` leaves a field out."""
    return json.dumps({name: value for name, value in (SAMPLE | changes).items() if value is not ...}).encode()


def ask(amount_minor: int, currency: str = "RUB") -> Ask:
    return Ask(
        order_id=ORDER,
        payment_id=3,
        number=7,
        money=Money(amount_minor, currency),
        lifetime_s=901,
        return_url="https://shop.example/?order=1",
        callback_url="https://shop.example/hook",
    )


# Notifications.


@pytest.mark.parametrize(
    ("secret", "signature"),
    [(ONE, "5436d92fad5b5f8c7c524d16116f41b86ca55397e490fa75b613ffab39049a72"),
     (TWO, "4d7a0b9f9c3d5ce1aaa8458eec00126f11fb1c0ee11a37f2b19dd6b752177c58")],
)  # fmt: skip
def test_the_signatures_are_the_documented_ones(secret: str, signature: str) -> None:
    assert wire.sign(MERCHANT, "150.00", "RUB", secret, "order-42") == signature  # PROTOCOLS §2, SELF
    fields = {"merchant_id": MERCHANT, "amount": "150.00", "currency": "RUB", "order_id": "order-42"}
    assert hashed(fields, secret) == signature


@pytest.mark.parametrize("name", BAD)
def test_a_bad_notification_is_not_verified(name: str) -> None:
    kind, body = BAD[name]
    with pytest.raises(kind) as caught:
        verified(body)
    assert len(str(caught.value)) < 200
    assert RIGHT not in str(caught.value)


@pytest.mark.parametrize("status", ["success", "hold"])
def test_a_right_notification_is_the_payment_itself(status: str) -> None:
    state = InvoiceState(id=REFERENCE, state=status, paid=True, final=True, money=Money(149_050, "RUB"), order_id=ORDER)
    assert verified(event(status=status)) == Notice(
        event_key=f"{REFERENCE}:{THEIRS}:{status}", invoice_id=REFERENCE, claims="paid", state=state
    )


@pytest.mark.parametrize("status", ["in_process", "expired", "refund", "successful"])
def test_a_status_that_is_not_notified_of_is_asked_about(status: str) -> None:
    notice = verified(event(status=status))
    assert (notice.event_key, notice.claims, notice.state) == (f"{REFERENCE}:{THEIRS}:{status}", "other", None)


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [("500", "RUB", 500_00), ("500.00", "RUB", 500_00), ("500.5", "EUR", 500_50), ("0.01", "USD", 1),
     ("100.000", "UAH", 100_00), ("123456789012345.67", "RUB", 12_345_678_901_234_567)],
)  # fmt: skip
def test_the_amount_is_hashed_as_it_is_spelt_and_read_as_what_it_is(text: str, currency: str, minor: int) -> None:
    state = verified(proven(amount=text, currency=currency)).state
    assert state is not None
    assert state.money == Money(minor, currency)


@pytest.mark.parametrize("order_id", ["order-42", str(ORDER), REFERENCE.upper(), f"{ORDER}-x", "a" * 64, "_"])
def test_another_shops_order_at_our_merchant_is_kept_for_a_human(order_id: str) -> None:
    notice = verified(proven(order_id=order_id))  # F41
    assert (notice.invoice_id, notice.claims) == (order_id, "paid")
    assert notice.state is not None
    assert notice.state.order_id is None


def test_what_else_the_form_says_is_inert() -> None:
    plain = verified(event())
    odd = {"us_order": f"{ORDER}-9", "order_id[]": "1", "desc": "'; DROP\r\nx", "__proto__": "1", "profit": "0.01"}
    assert verified(event(**odd)) == plain  # F39, F44, F45, F57
    assert verified(event(desc="Ключ + сдача=%")) == plain
    assert verified(tail("&note=" + "Ключ")) == plain  # UTF-8 as it is
    assert verified(tail("".join(f"&a{n}=" for n in range(64 - 15)))) == plain


def test_a_plus_and_an_escape_are_read_as_a_form_has_them() -> None:
    assert wire.decode_form(b"a=1+2%2B3%3D&b=x=y&c=") == {"a": "1 2+3=", "b": "x=y", "c": ""}


# What AAIO says of an order.


@pytest.mark.parametrize(
    ("status", "paid", "final"),
    [("in_process", False, False), ("success", True, True), ("hold", True, True), ("expired", False, True),
     ("SUCCESS", False, False), ("", False, False), ("refund", False, False)],
)  # fmt: skip
def test_paid_and_final_are_what_the_status_says(status: str, paid: bool, final: bool) -> None:
    state = wire.read_state(Answer(200, told(status=status)), MERCHANT, REFERENCE)
    assert (state.paid, state.final, state.state) == (paid, final, status)
    assert (state.id, state.money, state.order_id) == (REFERENCE, Money(500_00, "RUB"), ORDER)


@pytest.mark.parametrize(
    ("amount", "minor"), [(500, 500_00), (10.54, 10_54), (10.5, 10_50), ("500.00", 500_00), (0.1 + 0.2, None)]
)
def test_an_amount_is_read_exactly_or_not_at_all(amount: Any, minor: int | None) -> None:
    answer = Answer(200, told(amount=amount, profit=1, commission=1))
    if minor is None:
        with pytest.raises(errors.ProviderDown):  # F37: what PHP makes of a sum of floats is no amount
            wire.read_state(answer, MERCHANT, REFERENCE)
    else:
        assert wire.read_state(answer, MERCHANT, REFERENCE).money == Money(minor, "RUB")


UNREADABLE = {
    "error": b'{"type":"error","code":1,"message":"no such order"}',
    "no type": told(type=...),
    "another type": told(type="ok"),
    "another order": told(order_id=f"{ORDER}-4"),
    "order id in other case": told(order_id=REFERENCE.upper()),
    "another merchant": told(merchant_id=THEIRS),
    "no status": told(status=...),
    "status null": told(status=None),
    "no amount": told(amount=...),
    "amount null": told(amount=None),
    "amount negative": told(amount=-500),
    "amount exponent": told().replace(b": 500,", b": 5e2,"),
    "amount grouped": told(amount="1,000.00"),
    "amount of 10^5 digits": told(amount="9" * 100_000),
    "no currency": told(currency=...),
    "HTML": b"<html>502</html>",
    "nothing": b"",
    "an array": b"[]",
    "bad UTF-8": told().replace(b"RUB", b"RU\xff"),
    "cut": told()[:-5],
}


@pytest.mark.parametrize("answer", UNREADABLE.values(), ids=UNREADABLE)
def test_an_answer_out_of_protocol_is_the_gateways_failure(answer: bytes) -> None:
    with pytest.raises(errors.ProviderDown) as caught:
        wire.read_state(Answer(200, answer), MERCHANT, REFERENCE)
    assert len(str(caught.value)) < 300


def test_an_order_in_a_currency_that_it_does_not_take_is_nobodys() -> None:
    with pytest.raises(Foreign):
        wire.read_state(Answer(200, told(currency="KZT")), MERCHANT, REFERENCE)


async def test_an_order_is_asked_for_with_exactly_the_documented_fields() -> None:
    url = "https://aaio.example/pay/48ebfc18"
    async with merchant(json.dumps({"type": "success", "url": url}).encode()) as (adapter, asked):
        made = await adapter.create(ask(149_050))
    assert made == Invoice(REFERENCE, url)
    ((path, headers, body),) = asked
    assert path == "/merchant/get_pay_url"
    assert (headers["accept"], "x-api-key" in headers) == ("application/json", False)
    assert headers["content-type"] == Aaio.traits.media == "application/x-www-form-urlencoded"
    assert dict(parse_qsl(body.decode(), strict_parsing=True)) == {
        "merchant_id": MERCHANT, "amount": "1490.50", "currency": "RUB", "order_id": REFERENCE, "desc": "Order 7",
        "lang": "ru", "sign": hashed(FIELDS, ONE),
    }  # fmt: skip


@pytest.mark.parametrize(("minor", "text"), [(10_000, "100.00"), (1, "0.01"), (10**14 + 1, "1000000000000.01")])
def test_the_amount_is_an_exact_text(minor: int, text: str) -> None:
    assert f"&amount={text}&" in wire.create_form(ask(minor), MERCHANT, ONE).decode()


@pytest.mark.parametrize(
    "answer",
    [{"type": "error", "code": 1, "message": "sign"}, {"type": "success"}, {"type": "success", "url": None},
     {"type": "success", "url": "javascript:alert(1)"}, {"type": "success", "url": "https://x y"}, {"url": "https://x"},
     {"type": "success", "url": "https://" + "x" * 3000}],
    ids=lambda answer: repr(answer)[:60],
)  # fmt: skip
def test_an_order_without_a_usable_address_is_none(answer: dict[str, Any]) -> None:
    with pytest.raises(errors.ProviderDown):
        wire.read_created(Answer(200, json.dumps(answer).encode()), ask(100))


async def test_an_order_is_asked_about_by_its_id_and_with_the_key() -> None:
    async with merchant(told(), told(order_id="other")) as (adapter, asked):
        assert (await adapter.fetch(REFERENCE)).paid
        with pytest.raises(errors.ProviderDown, match="another order"):
            await adapter.fetch(REFERENCE)
    for path, headers, body in asked:
        assert (path, headers["x-api-key"]) == ("/api/info-pay", KEY)
        assert body.decode() == f"merchant_id={MERCHANT}&order_id={quote(REFERENCE)}"


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [(500, told(), "answered 500"), (302, told(), "answered 302"), (200, told().ljust(MAX_ANSWER_BYTES + 1), "more"),
     (403, b"<html>", "answered 403"), (400, told(), "refused: 400"),
     (401, b'{"type":"error","code":5,"message":"wrong key"}', "refused: 401 5 wrong key")],
)  # fmt: skip
async def test_only_a_small_2xx_answer_counts(status: int, answer: bytes, said: str) -> None:
    async with merchant(answer, status=status) as (adapter, _):
        with pytest.raises(errors.ProviderDown, match=said) as caught:
            await adapter.fetch(REFERENCE)
    assert not any(secret in repr(caught.value) for secret in (KEY, ONE, TWO))


async def test_a_gateway_that_is_not_there_is_down_and_none_refunds() -> None:
    async with httpx.AsyncClient(timeout=1) as http:
        adapter = Aaio(Config(**OURS, url="http://127.0.0.1:9"), http)
        with pytest.raises(errors.ProviderDown, match="ConnectError"):
            await adapter.fetch(REFERENCE)
        with pytest.raises(RefundRefused):
            await adapter.refund(REFERENCE, Money(100, "RUB"), "key")


async def test_a_missing_secret_keeps_it_out_and_an_impossible_key_stops_the_start() -> None:
    async with httpx.AsyncClient() as http:
        for name in OURS:
            settings = Settings(gateways={"aaio": {k: v for k, v in OURS.items() if k != name}})
            assert "aaio" not in registry.build(settings, http)  # F10
        assert "aaio" in registry.build(Settings(gateways={"aaio": OURS}), http)
        with pytest.raises(BadSettings, match="TORG_AAIO_API_KEY"):
            registry.build(Settings(gateways={"aaio": OURS | {"api_key": "ключ"}}), http)
