"""CrystalPay's adapter; also the bad callbacks of FAILURES §4 (`F7`: number 7), which tests/web posts over HTTP."""

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
import pytest
from litestar import Litestar, Request, Response, post

from app import errors
from app.base.money import Money
from app.gateways.base import Ask, Callback, Claim, Foreign, Invoice, Notice
from app.gateways.crystalpay import wire
from app.gateways.crystalpay.gateway import Config, CrystalPay
from app.infra.http import MAX_ANSWER_BYTES
from app.sandbox.crystalpay_wire import sign
from app.sandbox.serve import running
from tests.world import SALT

MIB = 1024 * 1024
ID, OTHER_ID = "123456789_abcdefghij", "987654321_zyxwvutsrq"
RIGHT = sign(ID, SALT)
ORDER = UUID("0197f0aa-0000-7000-8000-000000000001")
REFERENCE = f"{ORDER}-3"

# Field by field the sample of docs.crystalpay.io "poluchenie-informacii-ob-invoise" (PROTOCOLS §1), with our `extra`.
SAMPLE: dict[str, Any] = {
    "error": False, "errors": [], "id": ID, "url": f"https://pay.crystalpay.io/?i={ID}", "state": "payed",
    "type": "purchase", "subtract_from": "amount", "method": "LZTMARKET", "required_method": None,
    "rub_amount": "8146", "currency": "USD", "amount": "100", "amount_currency": "USD", "initial_amount": "100",
    "remaining_amount": "0", "balance_amount": "97", "commission_amount": "3", "description": "Order 7",
    "redirect_url": None, "callback_url": None, "extra": REFERENCE, "created_at": "2026-01-01 12:00:00",
    "expired_at": "2026-01-01 12:15:00", "final_at": "2026-01-01 12:01:00",
}  # fmt: skip


def event(**fields: Any) -> bytes:
    """A callback with a right signature, but for `fields`; `...` leaves one out."""
    given = {"id": ID, "state": "payed", "amount": "100", "signature": RIGHT} | fields
    return json.dumps({name: value for name, value in given.items() if value is not ...}).encode()


def proven(invoice_id: str) -> bytes:
    """Whatever the id is, its signature is right."""
    return event(id=invoice_id, signature=sign(invoice_id, SALT))


def led(text: str) -> bytes:
    """A right callback with `text` before its first field."""
    return event().replace(b"{", b"{" + text.encode(), 1)


UNPROVEN = {
    "F1 none": event(signature=...),
    "F2 empty": event(signature=""),
    "F3 null": event(signature=None),
    "F3 number": event(signature=int(RIGHT, 16)),
    "F3 zero": event(signature=0),
    "F3 true": event(signature=True),
    "F3 array": event(signature=[RIGHT]),
    "F3 object": event(signature={"signature": RIGHT}),
    "F4 wrong": event(signature="0" * 40),
    "F4 last digit": event(signature=RIGHT[:-1] + ("0" if RIGHT[-1] != "0" else "1")),
    "F5 truncated": event(signature=RIGHT[:-1]),
    "F5 one digit": event(signature=RIGHT[:1]),
    "F5 trailing space": event(signature=RIGHT + " "),
    "F5 leading space": event(signature=" " + RIGHT),
    "F5 newline": event(signature=RIGHT + "\n"),
    "F5 upper case": event(signature=RIGHT.upper()),
    "F6 not ASCII": event(signature="é" * 40),
    "F6 wide digits": event(signature=RIGHT.translate({ord(c): ord(c) + 0xFEE0 for c in "0123456789"})),
    "F7 another invoice's": event(signature=sign(OTHER_ID, SALT)),
    "F8 another salt": event(signature=sign(ID, "another")),
    "F8 no salt": event(signature=sign(ID, "")),
    "F8 salt and id swapped": event(signature=hashlib.sha1(f"{SALT}:{ID}".encode()).hexdigest()),
    "F46 another gateway's body": b'{"type":"notification","event":"payment.succeeded","object":{"id":"22e12f66"}}',
}
MALFORMED = {
    "F51 no body": b"",
    "F51 one byte": b"{",
    "F51 a space": b" ",
    "F53 state twice": led('"state": "notpayed", '),
    "F53 signature twice": led('"signature": "", '),
    "F53 escaped twice": led('"st\\u0061te": "notpayed", '),
    "F53 twice inside": led('"extra": {"a": 1, "a": 2}, '),
    "F49 a form": f"id={ID}&state=payed&signature={RIGHT}".encode(),
    "F49 a tail": event() + b"x",
    "F49 two objects": event() * 2,
    "F49 BOM": b"\xef\xbb\xbf" + event(),
    "F49 utf-16": event().decode().encode("utf-16"),
    "F49 utf-16 without BOM": event().decode().encode("utf-16-le"),
    "F55 bad UTF-8": event().replace(b"100", b"\xff\xfe"),
    "F55 overlong UTF-8": event().replace(b"100", b"\xc0\xaf"),
    "F55 surrogate in UTF-8": event().replace(b"100", b"\xed\xa0\x80"),
    "F55 NUL": event().replace(b"100", b"\x00"),
    "F55 NUL escape": event(amount="1\0"),
    "F55 NUL escape in a key": event(**{"a\0": 1}),
    "F55 lone surrogate": event(amount="\ud800"),
    "F55 lone surrogate in the signature": event(signature=RIGHT + "\udfff"),
    "F35 NaN": led('"fee": NaN, '),
    "F35 Infinity": led('"fee": Infinity, '),
    "F35 -Infinity": led('"fee": -Infinity, '),
    "F35 10^5 digits": led(f'"fee": {"9" * 100_000}, '),
    "F54 deep arrays": led(f'"deep": {"[" * 100_000}{"]" * 100_000}, '),
    "F54 deep objects": led('"deep": ' + '{"a":' * 100_000 + "1" + "}" * 100_000 + ", "),
    "F54 deep and open": b"[" * 100_000,
    "F56 array": b"[" + event() + b"]",
    "F56 string": json.dumps(event().decode()).encode(),
    "F56 number": b"1",
    "F56 true": b"true",
    "F56 null": b"null",
    "id missing": event(id=...),
    "id null": event(id=None),
    "id number": event(id=123456789),
    "id array": event(id=[ID]),
    "id empty": proven(""),
    "F43 id with colon": proven(f"{ID}:payed"),
    "F44 id with SQL": proven("1'; DROP TABLE orders; --"),
    "F44 id with CRLF": proven(f"{ID}\r\nX: y"),
    "F44 id with a newline at its end": proven(f"{ID}\n"),
    "F44 id as a path": proven("../../etc/passwd"),
    "F44 id as a template": proven("{{7*7}}${7*7}"),
    "id not ASCII": proven("123456789_абвгд"),
    "id in wide digits": proven("".join(chr(ord(c) + 0xFEE0) for c in "123")),
    "F58 id of 101": proven("a" * 101),
    "F58 id of nearly 1 MiB": proven("a" * (MIB - 200)),
}
BAD = {name: (errors.BadSignature, body) for name, body in UNPROVEN.items()} | {
    name: (errors.Malformed, body) for name, body in MALFORMED.items()
}


@asynccontextmanager
async def desk(*answers: bytes, status: int = 200) -> AsyncIterator[tuple[CrystalPay, list[bytes]]]:
    """The adapter before a gateway that gives these answers, and what this gateway was sent."""
    given, asked = list(answers), []

    @post(["/v3/invoice/create/", "/v3/invoice/info/"])
    async def answer(request: Request[Any, Any, Any]) -> Response[bytes]:
        asked.append(await request.body())
        return Response(given.pop(0), status_code=status, media_type="application/json")

    async with running(Litestar([answer], openapi_config=None)) as url, httpx.AsyncClient(timeout=5) as http:
        yield CrystalPay(Config(login="desk", secret="secret-one", salt=SALT, url=url + "/"), http), asked


def gateway(salt: str = SALT) -> CrystalPay:
    config = Config(login="desk", secret="secret-one", salt=salt, url="https://api.invalid")
    return CrystalPay(config, httpx.AsyncClient(verify=False))


def called(body: bytes) -> Callback:
    return Callback(body, {}, "192.0.2.1")


def told(**changes: Any) -> bytes:
    """The sample's answer; `...` leaves a field out."""
    return json.dumps({name: value for name, value in (SAMPLE | changes).items() if value is not ...}).encode()


# Callbacks.


def test_the_signature_is_the_documented_one() -> None:
    assert gateway("testsalt").sign(ID) == "3bd330693b4b6bf16a84ac096605f75eab66b18f"  # PROTOCOLS §1, SELF


@pytest.mark.parametrize("name", BAD)
def test_a_bad_callback_is_not_verified(name: str) -> None:
    kind, body = BAD[name]
    with pytest.raises(kind):
        gateway().verify(called(body))


@pytest.mark.parametrize(
    ("state", "key", "claims"),
    [("payed", "payed", "paid"), ("notpayed", "notpayed", "other"), ("processing", "processing", "other"),
     ("wrongamount", "wrongamount", "other"), ("failed", "failed", "other"),
     ("PAYED", "other", "other"), ("x:y", "other", "other"), (None, "other", "other"), (["payed"], "other", "other")],
)  # fmt: skip
def test_a_right_callback_is_one_event_per_invoice_and_state(state: Any, key: str, claims: Claim) -> None:
    notice = gateway().verify(called(event(state=state)))
    assert notice == Notice(event_key=f"{ID}:{key}", invoice_id=ID, claims=claims)


# What the gateway says of an invoice.


def test_the_documented_sample_is_read() -> None:
    state = wire.read_state(told(), ID)
    assert (state.id, state.state, state.paid) == (ID, "payed", True)
    assert (state.money, state.order_id) == (Money(100_00, "USD"), ORDER)


@pytest.mark.parametrize(
    ("changes", "minor"),
    [
        ({}, 100_00),
        ({"amount": "100.50"}, 100_50),
        ({"amount": 100}, 100_00),
        ({"amount": 100.5}, 100_50),
        ({"remaining_amount": 0}, 100_00),
        ({"remaining_amount": "0.01"}, 99_99),  # F40: payed, and not all of it
        ({"remaining_amount": "100"}, 0),
        ({"remaining_amount": "1000"}, 0),
        # F39: neither roubles nor what is left after the fee is compared.
        ({"rub_amount": "1", "balance_amount": "1", "commission_amount": "99", "initial_amount": "1"}, 100_00),
        ({"state": "wrongamount", "remaining_amount": "40"}, 60_00),
        ({"state": "wrongamount", "remaining_amount": "0"}, 0),
        ({"state": "notpayed", "remaining_amount": "100"}, 100_00),
    ],
    ids=repr,
)
def test_what_was_paid_is_amount_less_what_remains(changes: dict[str, Any], minor: int) -> None:
    assert wire.read_state(told(**changes), ID).money == Money(minor, "USD")


@pytest.mark.parametrize("state", ["notpayed", "processing", "failed", "unavailable", "PAYED", "payed ", "paid", ""])
def test_any_other_state_is_not_paid(state: str) -> None:
    assert not wire.read_state(told(state=state), ID).paid


@pytest.mark.parametrize(
    "extra",
    [
        None,
        "",
        "7",
        "order",
        str(ORDER),
        REFERENCE.upper(),
        f"{{{ORDER}}}-1",
        f" {REFERENCE}",
        ORDER.hex,
        f"{ORDER}-",
        f"{ORDER}-x",
        f"{ORDER}:1",
        f"{REFERENCE}\n",
        f"{ORDER}--1",
        f"{ORDER}-{10**19}",
    ],
)
def test_an_extra_that_is_no_order_id_of_ours_names_no_order(extra: str | None) -> None:
    assert wire.read_state(told(extra=extra), ID).order_id is None


UNREADABLE = {
    "error": told(error=True, errors=["id: invoice not found"]),
    "error in words": b'{"error":true,"errors":["auth: wrong login or secret"]}',
    "another invoice": told(id=OTHER_ID),
    "no id": told(id=...),
    "id in other case": told(id=ID.upper()),
    "no error field": told(error=...),
    "error as text": told(error="false"),
    "no amount": told(amount=...),
    "amount null": told(amount=None),
    "amount negative": told(amount="-100"),
    "amount exponent": told(amount="1e2"),
    "amount grouped": told(amount="1,000.00"),
    "amount as array": told(amount=["100"]),
    "amount true": told(amount=True),
    "amount too fine": told(amount="100.001"),
    "amount not ASCII": told(amount="１００"),
    "amount of 10^5 digits": told(amount="9" * 100_000),
    "no remaining_amount": told(remaining_amount=...),
    "remaining_amount empty": told(remaining_amount=""),
    "no currency": told(currency=...),
    "HTML": b"<html>502</html>",
    "nothing": b"",
    "an array": b"[]",
    "bad UTF-8": told().replace(b"USD", b"US\xff"),
    "cut": told()[:-5],
}


@pytest.mark.parametrize("answer", UNREADABLE.values(), ids=UNREADABLE)
def test_an_answer_out_of_protocol_is_the_gateways_failure(answer: bytes) -> None:
    with pytest.raises(errors.ProviderDown) as caught:
        wire.read_state(answer, ID)
    assert len(str(caught.value)) < 300


def test_an_invoice_in_a_currency_that_we_do_not_have_is_nobodys() -> None:
    with pytest.raises(Foreign):
        wire.read_state(told(currency="USDT"), ID)


# Requests.


async def test_an_invoice_is_asked_for_with_exactly_the_documented_fields() -> None:
    url = "https://pay.crystalpay.io/?i=" + ID
    async with desk(json.dumps({"error": False, "errors": [], "id": ID, "url": url}).encode()) as (adapter, asked):
        made = await adapter.create(ask(149_050))
    assert made == Invoice(ID, url)
    body = json.loads(asked[0], parse_float=Decimal)
    assert body == {
        "auth_login": "desk", "auth_secret": "secret-one", "amount": Decimal("1490.5"), "type": "purchase",
        "lifetime": 15, "currency": "RUB", "description": "Order 7", "extra": REFERENCE,
        "redirect_url": "https://shop.example/?order=1", "callback_url": "https://shop.example/hook",
    }  # fmt: skip


@pytest.mark.parametrize(("minor", "number"), [(10_000, b"100"), (1, b"0.01"), (10**14 + 1, b"1000000000000.01")])
def test_the_amount_is_an_exact_json_number(minor: int, number: bytes) -> None:
    assert b'"amount":' + number + b"," in wire.create_body(ask(minor), "desk", "secret-one")


@pytest.mark.parametrize(
    "answer",
    [{"error": True, "errors": ["amount: too small"]}, {"error": False, "id": ID, "url": "javascript:alert(1)"},
     {"error": False, "id": ID}, {"error": False, "url": "https://x"}, {"error": False, "id": "a b", "url": "https://x"},
     {"id": ID, "url": "https://x"}],
    ids=repr,
)  # fmt: skip
def test_an_invoice_without_a_usable_id_and_link_is_none(answer: dict[str, Any]) -> None:
    with pytest.raises(errors.ProviderDown):
        wire.read_created(json.dumps(answer).encode())


async def test_only_the_asked_invoice_is_read() -> None:
    async with desk(told(), told(id=OTHER_ID)) as (adapter, asked):
        assert (await adapter.fetch(ID)).paid
        with pytest.raises(errors.ProviderDown):
            await adapter.fetch(ID)
    assert [json.loads(body) for body in asked] == [{"auth_login": "desk", "auth_secret": "secret-one", "id": ID}] * 2


@pytest.mark.parametrize(
    ("status", "answer"), [(500, told()), (302, told()), (200, told().ljust(MAX_ANSWER_BYTES + 1))]
)
async def test_only_a_small_2xx_answer_counts(status: int, answer: bytes) -> None:
    async with desk(answer, status=status) as (adapter, _):
        with pytest.raises(errors.ProviderDown) as caught:
            await adapter.fetch(ID)
    assert "secret-one" not in repr(caught.value)


async def test_a_gateway_that_is_not_there_is_down() -> None:
    async with httpx.AsyncClient(timeout=1) as http:
        adapter = CrystalPay(Config(login="desk", secret="secret-one", salt=SALT, url="http://127.0.0.1:9"), http)
        with pytest.raises(errors.ProviderDown, match="ConnectError"):
            await adapter.fetch(ID)


def ask(amount_minor: int) -> Ask:
    return Ask(
        order_id=ORDER,
        payment_id=3,
        number=7,
        money=Money(amount_minor, "RUB"),
        lifetime_s=901,
        return_url="https://shop.example/?order=1",
        callback_url="https://shop.example/hook",
    )
