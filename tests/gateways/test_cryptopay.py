"""Crypto Pay's adapter; also the bad webhooks of FAILURES §4 (`F11`: number 11)."""

import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC
from litestar import Litestar, Request, Response, get, post

from app import errors
from app.base.money import MINOR_DIGITS, Money
from app.gateways import registry
from app.gateways.base import Ask, Callback, Foreign, Invoice, InvoiceState, Notice, RefundRefused
from app.gateways.cryptopay import wire
from app.gateways.cryptopay.gateway import Config, CryptoPay
from app.infra.http import MAX_ANSWER_BYTES, Answer
from app.sandbox.serve import running
from app.settings import BadSettings, Settings

TOKEN = "12345:AAtesttoken"
ID = 528890
ORDER = UUID("0197f0aa-0000-7000-8000-000000000001")
REFERENCE = f"{ORDER}-3"

# The class Invoice of Crypto Pay API 1.5, paid; one in money has no `asset`.
PAID: dict[str, Any] = {
    "invoice_id": ID, "hash": "IVDoTcNBYEfk", "currency_type": "fiat", "fiat": "RUB", "amount": "1490.5",
    "paid_asset": "USDT", "paid_amount": "18.31", "paid_fiat_rate": "81.4", "accepted_assets": ["USDT", "TON"],
    "fee_asset": "USDT", "fee_amount": "0.5493", "bot_invoice_url": "https://t.me/CryptoBot?start=IVDoTcNBYEfk",
    "mini_app_invoice_url": "https://t.me/CryptoBot/app?startapp=invoice-IVDoTcNBYEfk",
    "web_app_invoice_url": "https://app.send.tg/invoices/IVDoTcNBYEfk", "description": "Order 7", "status": "paid",
    "created_at": "2026-01-01T12:00:00.000Z", "paid_usd_rate": "1", "allow_comments": False, "allow_anonymous": True,
    "expiration_date": "2026-01-01T12:15:00.000Z", "paid_at": "2026-01-01T12:01:00.000Z", "paid_anonymously": False,
    "payload": REFERENCE, "paid_btn_name": "callback", "paid_btn_url": "https://shop.example/?order=1",
}  # fmt: skip
STATE = InvoiceState(id=str(ID), state="paid", paid=True, final=True, money=Money(149_050, "RUB"), order_id=ORDER)


def hashed(body: bytes, token: str = TOKEN) -> str:
    """The signature by another library: OpenSSL's HMAC, keyed with the digest's bytes."""
    made = HMAC(bytes.fromhex(hashlib.sha256(token.encode()).hexdigest()), hashes.SHA256())
    made.update(body)
    return made.finalize().hex()


def less(fields: dict[str, Any]) -> dict[str, Any]:
    """`...` leaves a field out."""
    return {name: value for name, value in fields.items() if value is not ...}


def event(update: dict[str, Any] | None = None, **invoice: Any) -> bytes:
    """A webhook about the paid invoice, but for these fields."""
    given = {"update_id": 1, "update_type": "invoice_paid", "request_date": "2026-01-01T12:01:01.000Z"}
    return json.dumps(less(given | {"payload": less(PAID | invoice)} | (update or {})), ensure_ascii=False).encode()


def led(text: str) -> bytes:
    """The webhook with `text` before its first field."""
    return event().replace(b"{", b"{" + text.encode(), 1)


BODY = event()
RIGHT = hashed(BODY)
UNPROVEN: dict[str, tuple[bytes, str | None]] = {
    "F1 none": (BODY, None),
    "F2 empty": (BODY, ""),
    "F3 null": (BODY, "null"),
    "F4 wrong": (BODY, "0" * 64),
    "F4 last digit": (BODY, RIGHT[:-1] + ("0" if RIGHT[-1] != "0" else "1")),
    "F5 truncated": (BODY, RIGHT[:-1]),
    "F5 trailing space": (BODY, RIGHT + " "),
    "F5 upper case": (BODY, RIGHT.upper()),
    "F6 not ASCII": (BODY, "é" * 64),
    "F7 another invoice's": (BODY, hashed(event(invoice_id=ID + 1))),
    "F8 another app's": (BODY, hashed(BODY, "54321:AAother")),
    "F8 no token": (BODY, hashed(BODY, "")),
    "F8 keyed with the token itself": (
        BODY, hmac.new(TOKEN.encode(), BODY, "sha256").hexdigest(),
    ),
    "F8 keyed with the digest's text": (
        BODY, hmac.new(hashlib.sha256(TOKEN.encode()).hexdigest().encode(), BODY, "sha256").hexdigest(),
    ),
    "F11 re-serialised": (json.dumps(json.loads(BODY), separators=(",", ":")).encode(), RIGHT),
    "F11 a space more": (BODY + b" ", RIGHT),
    "F11 keys sorted": (json.dumps(json.loads(BODY), sort_keys=True).encode(), RIGHT),
    "F12 active edited to paid": (BODY, hashed(event(status="active"))),
    "F31 amount edited": (event(amount="1490.49"), RIGHT),
    "F33 currency edited": (event(fiat="KZT"), RIGHT),
    "F46 another gateway's body": (b'{"type":"notification","event":"payment.succeeded","object":{}}', RIGHT),
    "F51 no body": (b"", RIGHT),
    "F59 sent twice": (BODY, f"{RIGHT}, {RIGHT}"),
    "F59 sent twice, one wrong": (BODY, f"{'0' * 64}, {RIGHT}"),
    "F64 no JSON and no proof": (b"[" * 100_000, "0" * 64),
}  # fmt: skip
# Properly signed, every one.
MALFORMED = {
    "F51 no body": b"",
    "F51 one byte": b"{",
    "F53 status twice": event().replace(b'"status"', b'"status": "active", "status"'),
    "F53 payload twice": led('"payload": {}, '),
    "F53 escaped twice": led('"update\\u005ftype": "x", '),
    "F49 a form": b"invoice_id=1&status=paid",
    "F49 a tail": event() + b"x",
    "F49 BOM": b"\xef\xbb\xbf" + event(),
    "F49 utf-16": event().decode().encode("utf-16"),
    "F55 bad UTF-8": event().replace(b"Order", b"\xff\xfe"),
    "F55 NUL": event(description="\0"),
    "F55 lone surrogate": event().replace(b"Order", b"\\ud800"),
    "F35 NaN": led('"fee": NaN, '),
    "F35 10^5 digits": led(f'"fee": {"9" * 100_000}, '),
    "F54 deep arrays": led(f'"deep": {"[" * 100_000}{"]" * 100_000}, '),
    "F56 array": b"[" + event() + b"]",
    "F56 null": b"null",
    "payload missing": event({"payload": ...}),
    "payload null": event({"payload": None}),
    "payload array": event({"payload": [PAID]}),
    "payload text": event({"payload": json.dumps(PAID)}),
    "id missing": event(invoice_id=...),
    "id null": event(invoice_id=None),
    "id text": event(invoice_id=str(ID)),
    "id true": event(invoice_id=True),
    "id float": event(invoice_id=528890.0),
    "id zero": event(invoice_id=0),
    "id negative": event(invoice_id=-ID),
    "F58 id too long for the database": event(invoice_id=2**63),
}
BAD = {name: (errors.BadSignature, *sent) for name, sent in UNPROVEN.items()} | {
    f"{name}, proven": (errors.Malformed, body, hashed(body)) for name, body in MALFORMED.items()
}


@asynccontextmanager
async def app(*answers: bytes, status: int = 200) -> AsyncIterator[tuple[CryptoPay, list[tuple[str, Any, bytes]]]]:
    """The adapter before a Crypto Pay that gives these answers, and what this one was sent: URL, headers, body."""
    given, asked = list(answers), []

    async def answer(request: Request[Any, Any, Any]) -> Response[bytes]:
        url = request.url
        asked.append((f"{request.method} {url.path}?{url.query}", dict(request.headers), await request.body()))
        return Response(given.pop(0), status_code=status, media_type="application/json")

    routes = [post("/api/createInvoice")(answer), get("/api/getInvoices")(answer)]
    async with running(Litestar(routes, openapi_config=None)) as url, httpx.AsyncClient(timeout=5) as http:
        yield CryptoPay(Config(token=TOKEN, url=url + "/"), http), asked


def verified(body: bytes, signature: str | None = "right") -> Notice:
    headers = (
        {} if signature is None else {"crypto-pay-api-signature": hashed(body) if signature == "right" else signature}
    )
    gateway = CryptoPay(Config(token=TOKEN), httpx.AsyncClient(verify=False))
    return gateway.verify(Callback(body, headers, "192.0.2.1"))


def told(*invoices: dict[str, Any]) -> bytes:
    return json.dumps({"ok": True, "result": {"items": [less(PAID | invoice) for invoice in invoices]}}).encode()


def ask(amount_minor: int, currency: str = "RUB", lifetime_s: int = 901) -> Ask:
    return Ask(
        order_id=ORDER,
        payment_id=3,
        number=7,
        money=Money(amount_minor, currency),
        lifetime_s=lifetime_s,
        return_url="https://shop.example/?order=1",
        callback_url="https://shop.example/hook",
    )


# Webhooks.


def test_the_signature_is_the_documented_one() -> None:
    body = (
        b'{"update_id":1,"update_type":"invoice_paid","request_date":"2026-01-01T00:00:00.000Z",'
        b'"payload":{"invoice_id":528890,"status":"paid","amount":"10.5"}}'
    )
    vector = "9eb82e1f8d4b3782a9bde9b4b79bfedce2058c1ddbdb64785ec453c1c9f52ca0"  # PROTOCOLS §4, SELF
    assert wire.sign(body, TOKEN) == hashed(body) == vector
    assert verified(body, vector) == Notice(event_key="528890:paid", invoice_id="528890", claims="paid")


@pytest.mark.parametrize("name", BAD)
def test_a_bad_webhook_is_not_verified(name: str) -> None:
    kind, body, signature = BAD[name]
    with pytest.raises(kind) as caught:
        verified(body, signature)
    assert len(str(caught.value)) < 200
    assert RIGHT not in str(caught.value)


def test_a_right_webhook_is_the_payment_itself() -> None:
    assert verified(BODY) == Notice(event_key=f"{ID}:paid", invoice_id=str(ID), claims="paid", state=STATE)


def test_what_is_not_the_invoice_in_money_is_inert() -> None:
    plain = verified(BODY)
    assert verified(event({"update_id": 7, "request_date": "1970-01-01T00:00:00.000Z"})) == plain
    assert verified(event({"request_date": "nan"})) == plain  # F23: the scheme has no window
    odd: dict[str, Any] = {
        "paid_amount": "0.01",
        "fee_amount": "1e9",
        "asset": "TON",
        "comment": "'; DROP\r\nx",
        "__proto__": {},
    }
    assert verified(event(**odd)) == plain  # F39, F44, F57
    assert verified(event(hash=..., paid_asset=..., accepted_assets=...)) == plain
    assert verified(led(f'"payload_": {{"payload": "{ORDER}-9"}}, ')) == plain  # F45


@pytest.mark.parametrize(
    ("update", "invoice", "key", "claims"),
    [({}, {"status": "active"}, "active", "other"), ({}, {"status": "expired"}, "expired", "other"),
     ({}, {"status": "PAID"}, "other", "other"), ({}, {"status": "a:b"}, "other", "other"),
     ({}, {"status": None}, "other", "other"), ({}, {"status": ...}, "other", "other"),
     ({"update_type": "invoice_created"}, {}, "other", "other"), ({"update_type": ...}, {}, "other", "other"),
     ({"update_type": ["invoice_paid"]}, {}, "other", "other")],
)  # fmt: skip
def test_only_a_paid_invoice_in_an_update_about_it_claims_payment(
    update: dict[str, Any], invoice: dict[str, Any], key: str, claims: str
) -> None:
    notice = verified(event(update, **invoice))
    assert (notice.event_key, notice.claims, notice.state) == (f"{ID}:{key}", claims, None)


COINS = {"currency_type": "crypto", "asset": "USDT", "fiat": ..., "amount": "18.31"}


@pytest.mark.parametrize(
    "invoice",
    [COINS, {"currency_type": ...}, {"currency_type": "crypto"}, {"fiat": "USDT"}, {"fiat": "GBP"}, {"fiat": "rub"},
     {"fiat": ...}, {"amount": "1e2"}, {"amount": "100,00"}, {"amount": "+100"}, {"amount": "-1"}, {"amount": "-0"},
     {"amount": "0"}, {"amount": "NaN"}, {"amount": "0100"}, {"amount": "100.001"}, {"amount": "9" * 40}],
    ids=repr,
)  # fmt: skip
def test_a_proven_amount_that_is_none_of_ours_is_kept_and_asked_about(invoice: dict[str, Any]) -> None:
    """F34-F36: a webhook that is refused comes again for three days, and then none comes at all."""
    notice = verified(event(**invoice))
    assert (notice.invoice_id, notice.claims, notice.state) == (str(ID), "paid", None)
    with pytest.raises(Foreign):
        wire.read_state(Answer(200, told(invoice)), str(ID))


@pytest.mark.parametrize("payload", [..., None, "", "order-42", str(ORDER), REFERENCE.upper(), f"{REFERENCE}\n"])
def test_a_payload_that_is_no_reference_of_ours_names_no_order(payload: Any) -> None:
    state = verified(event(payload=payload)).state
    assert state is not None
    assert (state.order_id, state.money) == (None, Money(149_050, "RUB"))


@pytest.mark.parametrize(("text", "minor"), [("1490.5", 149_050), ("1490.50", 149_050), ("0.01", 1), ("5", 500)])
def test_the_amount_is_read_exactly(text: str, minor: int) -> None:
    state = verified(event(amount=text, fiat="USD")).state
    assert state is not None
    assert state.money == Money(minor, "USD")


# What Crypto Pay says of an invoice.


@pytest.mark.parametrize(
    ("status", "paid", "final"),
    [("active", False, False), ("paid", True, True), ("expired", False, True), ("PAID", False, False)],
)  # fmt: skip
def test_paid_and_final_are_what_the_status_says(status: str, paid: bool, final: bool) -> None:
    state = wire.read_state(Answer(200, told({"status": status})), str(ID))
    assert (state.paid, state.final, state.state) == (paid, final, status)
    assert (state.money, state.order_id) == (Money(149_050, "RUB"), ORDER)


UNREADABLE = {
    "no invoice": told(),
    "two invoices": told({}, {}),
    "another invoice": told({"invoice_id": ID + 1}),
    "ours and another": told({}, {"invoice_id": ID + 1}),
    "id as text": told({"invoice_id": str(ID)}),
    "no status": told({"status": ...}),
    "no amount": told({"amount": ...}),
    "amount as number": told({"amount": 1490.5}),
    "not ok": told({}).replace(b"true", b"false", 1),
    "ok as text": told({}).replace(b"true", b'"true"', 1),
    "no result": b'{"ok":true}',
    "result null": b'{"ok":true,"result":null}',
    "result a list": b'{"ok":true,"result":[]}',
    "HTML": b"<html>502</html>",
    "nothing": b"",
    "bad UTF-8": told({}).replace(b"RUB", b"RU\xff"),
    "cut": told({})[:-5],
}


@pytest.mark.parametrize("answer", UNREADABLE.values(), ids=UNREADABLE)
def test_an_answer_out_of_protocol_is_the_gateways_failure(answer: bytes) -> None:
    with pytest.raises(errors.ProviderDown) as caught:
        wire.read_state(Answer(200, answer), str(ID))
    assert len(str(caught.value)) < 300


# Requests.


async def test_an_invoice_is_asked_for_with_exactly_the_documented_fields() -> None:
    async with app(json.dumps({"ok": True, "result": PAID | {"status": "active"}}).encode()) as (adapter, asked):
        made = await adapter.create(ask(149_050))
    assert made == Invoice(str(ID), "https://t.me/CryptoBot/app?startapp=invoice-IVDoTcNBYEfk")
    ((called, headers, body),) = asked
    assert called == "POST /api/createInvoice?"
    assert (headers["crypto-pay-api-token"], headers["content-type"]) == (TOKEN, "application/json")
    assert json.loads(body) == {
        "currency_type": "fiat", "fiat": "RUB", "amount": "1490.50", "description": "Order 7", "payload": REFERENCE,
        "paid_btn_name": "callback", "paid_btn_url": "https://shop.example/?order=1", "expires_in": 901,
        "allow_comments": False,
    }  # fmt: skip


@pytest.mark.parametrize(("lifetime_s", "expires_in"), [(0, 1), (1, 1), (2_678_400, 2_678_400), (9_999_999, 2_678_400)])
def test_the_lifetime_is_within_what_is_taken(lifetime_s: int, expires_in: int) -> None:
    assert json.loads(wire.create_body(ask(100, lifetime_s=lifetime_s)))["expires_in"] == expires_in


def test_every_currency_of_ours_that_it_takes_is_offered() -> None:
    assert CryptoPay.traits.currencies == MINOR_DIGITS.keys()


@pytest.mark.parametrize(
    ("result", "url"),
    [({"mini_app_invoice_url": ...}, PAID["bot_invoice_url"]), ({"mini_app_invoice_url": ""}, PAID["bot_invoice_url"]),
     ({"mini_app_invoice_url": ..., "bot_invoice_url": ...}, None), ({"mini_app_invoice_url": "tg://x"}, None),
     ({"mini_app_invoice_url": "javascript:alert(1)"}, None), ({"mini_app_invoice_url": "https://x y"}, None),
     ({"invoice_id": 0}, None), ({"invoice_id": ...}, None), ({"invoice_id": "5"}, None)],
    ids=repr,
)  # fmt: skip
def test_an_invoice_without_a_usable_id_and_link_is_none(result: dict[str, Any], url: str | None) -> None:
    answer = Answer(200, json.dumps({"ok": True, "result": less(PAID | result)}).encode())
    if url is not None:
        assert wire.read_created(answer) == Invoice(str(ID), url)
        return
    with pytest.raises(errors.ProviderDown):
        wire.read_created(answer)


async def test_exactly_the_asked_invoice_is_read() -> None:
    async with app(told({}), told({"invoice_id": 1})) as (adapter, asked):
        assert await adapter.fetch(str(ID)) == STATE
        with pytest.raises(errors.ProviderDown, match="did not tell"):
            await adapter.fetch(str(ID))
        assert [called for called, *_ in asked] == [f"GET /api/getInvoices?invoice_ids={ID}"] * 2
        assert [headers["crypto-pay-api-token"] for _, headers, _ in asked] == [TOKEN] * 2


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [(500, told({}), "answered 500"), (302, told({}), "answered 302"), (400, told({}), "refused: 400"),
     (200, told({}).ljust(MAX_ANSWER_BYTES + 1), "more"), (423, b"<html>", "answered 423"),
     (401, b'{"ok":false,"error":{"code":401,"name":"UNAUTHORIZED"}}', "refused: 401 UNAUTHORIZED")],
)  # fmt: skip
async def test_only_a_small_2xx_answer_counts(status: int, answer: bytes, said: str) -> None:
    async with app(answer, status=status) as (adapter, _):
        with pytest.raises(errors.ProviderDown, match=said) as caught:
            await adapter.fetch(str(ID))
    assert TOKEN not in repr(caught.value)


async def test_a_gateway_that_is_not_there_is_down_and_none_refunds() -> None:
    async with httpx.AsyncClient(timeout=1) as http:
        adapter = CryptoPay(Config(token=TOKEN, url="http://127.0.0.1:9"), http)
        with pytest.raises(errors.ProviderDown, match="ConnectError"):
            await adapter.fetch(str(ID))
        with pytest.raises(RefundRefused):
            await adapter.refund(str(ID), Money(100, "RUB"), "key")


async def test_a_missing_token_keeps_it_out_and_an_impossible_one_stops_the_start() -> None:
    async with httpx.AsyncClient() as http:
        assert "cryptopay" not in registry.build(Settings(gateways={"cryptopay": {}}), http)  # F10
        assert "cryptopay" in registry.build(Settings(gateways={"cryptopay": {"token": TOKEN}}), http)
        with pytest.raises(BadSettings, match="TORG_CRYPTOPAY_TOKEN"):
            registry.build(Settings(gateways={"cryptopay": {"token": "a\r\nX: y"}}), http)
