"""YooKassa's adapter against the bad notifications of FAILURES §4 (`F14`: number 14) and states out of protocol."""

import json
from typing import Any
from uuid import UUID

import httpx
import pytest

from app import errors
from app.base.address import Proxies
from app.base.money import Money
from app.gateways import registry
from app.gateways.base import Callback, Claim, Foreign, Notice
from app.gateways.yookassa import wire
from app.gateways.yookassa.gateway import NETWORKS, Config, YooKassa
from app.infra.http import Answer
from app.settings import BadSettings, Settings

MIB = 1024 * 1024
ID, OTHER_ID = "22e12f66-000f-5000-8000-18db351245c7", "22e12f67-000f-5000-8000-18db351245c8"
REFUND_ID = "22e12f66-0015-5000-8000-18db351245c9"
ORDER = UUID("0197f0aa-0000-7000-8000-000000000001")
REFERENCE = f"{ORDER}-3"
KEY = "test_secret-one"
THEIRS = "185.71.76.1"

# Field by field the payment of yookassa.ru/developers/api#payment_object, with our `metadata`.
SAMPLE: dict[str, Any] = {
    "id": ID, "status": "succeeded", "paid": True, "amount": {"value": "100.00", "currency": "RUB"},
    "income_amount": {"value": "96.50", "currency": "RUB"}, "created_at": "2026-01-01T12:00:00.000Z",
    "captured_at": "2026-01-01T12:01:00.000Z", "description": "Order 7", "metadata": {"reference": REFERENCE},
    "payment_method": {"type": "bank_card", "id": ID, "saved": False, "status": "inactive"},
    "recipient": {"account_id": "100500", "gateway_id": "100700"}, "refundable": True, "test": False,
    "refunded_amount": {"value": "0.00", "currency": "RUB"},
}  # fmt: skip
REFUND = {
    "id": REFUND_ID, "payment_id": ID, "status": "succeeded", "created_at": "2026-01-01T13:00:00.000Z",
    "amount": {"value": "40.00", "currency": "RUB"},
}  # fmt: skip


def rub(value: Any, currency: str = "RUB") -> dict[str, Any]:
    return {"value": value, "currency": currency}


def without_dots(given: dict[str, Any]) -> dict[str, Any]:
    """`...` leaves a field out."""
    return {name: value for name, value in given.items() if value is not ...}


def event(word: Any = "payment.succeeded", about: Any = None, **fields: Any) -> bytes:
    """A notification; `fields` change it, `about` is its object."""
    given = {"type": "notification", "event": word, "object": SAMPLE if about is None else about}
    return json.dumps(without_dots(given | fields)).encode()


def led(text: str) -> bytes:
    """A right notification with `text` before its first field."""
    return event().replace(b"{", b"{" + text.encode(), 1)


def named(payment_id: Any) -> bytes:
    return event(about=without_dots(SAMPLE | {"id": payment_id}))


MALFORMED = {
    "F46 another gateway's body": b'{"id":"123456789_abcdefghij","state":"payed","signature":"x"}',
    "F51 no body": b"",
    "F51 one byte": b"{",
    "F53 event twice": led('"event": "payment.canceled", '),
    "F53 escaped twice": led('"ev\\u0065nt": "payment.canceled", '),
    "F53 id twice": event().replace(b'{"id":', b'{"id": "' + OTHER_ID.encode() + b'", "id":'),
    "F49 a form": f"type=notification&event=payment.succeeded&object[id]={ID}".encode(),
    "F49 a tail": event() + b"x",
    "F49 BOM": b"\xef\xbb\xbf" + event(),
    "F49 utf-16": event().decode().encode("utf-16"),
    "F55 bad UTF-8": event().replace(b"Order", b"\xff\xfe"),
    "F55 NUL": event().replace(b"Order", b"\x00"),
    "F55 NUL escape": led('"a": "1\\u0000", '),
    "F55 lone surrogate": led('"a": "\\ud800", '),
    "F35 NaN": led('"a": NaN, '),
    "F35 Infinity": led('"a": -Infinity, '),
    "F35 10^5 digits": led(f'"a": {"9" * 100_000}, '),
    "F54 deep arrays": led(f'"a": {"[" * 100_000}{"]" * 100_000}, '),
    "F54 deep and open": b'{"a":' * 100_000,
    "F56 array": b"[" + event() + b"]",
    "F56 string": json.dumps(event().decode()).encode(),
    "F56 number": b"1",
    "F56 true": b"true",
    "F56 null": b"null",
    "no type": event(type=...),
    "another type": event(type="payment"),
    "type not text": event(type=["notification"]),
    "no event": event(...),
    "event null": event(None),
    "event of another kind": event({"payment.succeeded": 1}),
    "event without a dot": event("payment"),
    "event in upper case": event("PAYMENT.SUCCEEDED"),
    "F44 event with a newline": event("payment.succeeded\n"),
    "F44 event with SQL": event("payment.x'; DROP TABLE orders; --"),
    "F58 event of nearly 1 MiB": event("payment." + "a" * (MIB - 2000)),
    "no object": event(object=...),
    "object null": event(object=None),
    "object a list": event(about=[SAMPLE]),
    "object a text": event(about=ID),
    "no id": named(...),
    "id null": named(None),
    "id number": named(22),
    "id a list": named([ID]),
    "id empty": named(""),
    "id cut": named(ID[:-1]),
    "id too long": named(ID + "0"),
    "id in upper case": named(ID.upper()),
    "id not ASCII": named(ID[:-1] + "\u0661"),
    "F43 id with a colon": named(ID[:-1] + ":"),
    "F44 id as a path": named("../" * 12),
    "F44 id with a newline": named(ID[:-1] + "\n"),
    "F58 id of nearly 1 MiB": named("a" * (MIB - 2000)),
    "a refund without its payment": event("refund.succeeded", REFUND | {"payment_id": None}),
    "a refund whose payment is no id": event("refund.succeeded", REFUND | {"payment_id": "7"}),
    "a refund without its id": event("refund.succeeded", REFUND | {"id": ""}),
    "a payout": event("payout.succeeded", {"id": "po-2222222222222222222222222222222222", "status": "succeeded"}),
    "a deal": event("deal.closed", {"id": "dl-22222222-0000-5000-8000-222222222", "status": "closed"}),
    "a stored card": event("payment_method.active", {"id": OTHER_ID, "status": "active"}),
}


def gateway(**fields: str) -> YooKassa:
    config = Config(shop_id="100500", secret_key=KEY, url="https://api.invalid", **fields)  # type: ignore[arg-type]
    return YooKassa(config, httpx.AsyncClient(verify=False))


def told(**changes: Any) -> Answer:
    """The sample's answer."""
    return Answer(200, json.dumps(without_dots(SAMPLE | changes)).encode())


# Notifications.


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_notification_is_not_taken(name: str) -> None:
    with pytest.raises(errors.Malformed) as caught:
        gateway().verify(Callback(MALFORMED[name], {}, THEIRS))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("word", "about", "invoice_id", "claims"),
    [
        ("payment.succeeded", SAMPLE, ID, "paid"),
        ("payment.waiting_for_capture", SAMPLE, ID, "other"),
        ("payment.canceled", SAMPLE, ID, "other"),
        ("payment.invented", SAMPLE, ID, "other"),
        ("refund.succeeded", REFUND, ID, "refunded"),
        ("refund.invented", REFUND, ID, "other"),
        ("dispute.opened", REFUND, ID, "other"),
    ],
)
def test_a_notification_is_one_event_of_one_payment(word: str, about: Any, invoice_id: str, claims: Claim) -> None:
    notice = gateway().verify(Callback(event(word, about), {}, THEIRS))
    assert notice == Notice(event_key=f"{about['id']}:{word}", invoice_id=invoice_id, claims=claims, state=None)


def test_what_a_notification_says_is_no_state() -> None:
    """F12, F13: only the answer to our own question counts."""
    assert gateway().verify(Callback(event(about=SAMPLE | {"amount": rub("1e9")}), {}, THEIRS)).state is None


NEAR = [
    "185.71.75.255", "185.71.76.32", "185.71.77.32", "77.75.152.255", "77.75.153.128", "77.75.154.127",
    "77.75.155.0", "77.75.156.10", "77.75.156.12", "77.75.156.34", "77.75.156.36", "2a02:517f:ffff:ffff::/64",
    "2a02:5181::/64", "::/64", "127.0.0.1", "10.0.0.1", "192.0.2.1", "0.0.0.0", "255.255.255.255",
]  # fmt: skip
WITHIN = [
    "185.71.76.0", "185.71.76.31", "185.71.77.0", "185.71.77.31", "77.75.153.0", "77.75.153.127", "77.75.154.128",
    "77.75.154.255", "77.75.156.11", "77.75.156.35", "2a02:5180::/64", "2a02:5180:ffff:ffff::/64",
]  # fmt: skip
STRANGE = ["unknown", "", " ", "185.71.76.1 ", "185.71.76.1:443", "185.71.76", "185.71.76.0/26", "185.71.76.1/27",
           "0.0.0.0/0", "::/0", "2a02:5180::/31", "185.71.76.1, 192.0.2.1", "１８５.71.76.1", "localhost"]  # fmt: skip


@pytest.mark.parametrize("address", WITHIN)
def test_yookassas_own_addresses_are_believed(address: str) -> None:
    assert gateway().verify(Callback(event(), {}, address)).invoice_id == ID


@pytest.mark.parametrize("address", NEAR + STRANGE)
def test_f14_any_other_address_is_refused_whatever_it_says(address: str) -> None:
    headers = {"x-forwarded-for": THEIRS, "x-real-ip": THEIRS, "forwarded": f"for={THEIRS}"}
    for body in (event(), b"", b"{"):
        with pytest.raises(errors.BadSignature):
            gateway().verify(Callback(body, headers, address))


@pytest.mark.parametrize(
    ("peer", "forwarded", "believed"),
    [
        (THEIRS, [], True),
        (f"::ffff:{THEIRS}", [], True),  # F16
        ("2a02:5180:0:1509::7", [], True),
        ("::ffff:192.0.2.1", [], False),
        ("192.0.2.1", [THEIRS], False),  # F15: nobody vouches for that header
        ("10.0.0.9", [THEIRS], True),
        ("10.0.0.9", [f"{THEIRS}, 192.0.2.1"], False),
        ("10.0.0.9", [f"192.0.2.1, {THEIRS}:51234 "], True),
        ("10.0.0.9", [THEIRS, "192.0.2.1"], False),
        ("10.0.0.9", [f"::ffff:{THEIRS}"], True),
        ("10.0.0.9", [], False),
        (None, [], False),
    ],
)
def test_f15_f16_the_address_is_the_one_that_trusted_proxies_saw(
    peer: str | None, forwarded: list[str], believed: bool
) -> None:
    callback = Callback(event(), {}, Proxies("10.0.0.0/8").client(peer, forwarded))
    if believed:
        assert gateway().verify(callback).invoice_id == ID
        return
    with pytest.raises(errors.BadSignature):
        gateway().verify(callback)


def test_an_operator_may_name_other_networks() -> None:
    strange = gateway(networks="127.0.0.1/32, fd00::/8")
    assert strange.verify(Callback(event(), {}, "127.0.0.1")).invoice_id == ID
    assert strange.verify(Callback(event(), {}, "fd00:0:0:1::/64")).invoice_id == ID
    with pytest.raises(errors.BadSignature):
        strange.verify(Callback(event(), {}, THEIRS))


@pytest.mark.parametrize("networks", ["185.71.76.1/27", "185.71.76.0/33", "all", "::1/128", NETWORKS + ", x"])
def test_networks_that_are_none_stop_the_start(networks: str) -> None:
    given = {"yookassa": {"shop_id": "100500", "secret_key": KEY, "networks": networks}}
    with pytest.raises(BadSettings, match=r"YOOKASSA.*networks"):
        registry.build(Settings(gateways=given), httpx.AsyncClient(verify=False))


@pytest.mark.parametrize("missing", ["shop_id", "secret_key"])
def test_f10_without_its_secrets_it_is_off(missing: str) -> None:
    given = {"shop_id": "100500", "secret_key": KEY}
    http = httpx.AsyncClient(verify=False)
    assert "yookassa" in registry.build(Settings(gateways={"yookassa": given}), http)
    del given[missing]
    assert "yookassa" not in registry.build(Settings(gateways={"yookassa": given}), http)


# What the gateway says of a payment.


def test_the_documented_sample_is_read() -> None:
    state = wire.read_state(told(), ID, takes_test=False)
    assert (state.id, state.state, state.paid, state.final) == (ID, "succeeded", True, True)
    assert (state.money, state.refunded_minor, state.order_id) == (Money(100_00, "RUB"), 0, ORDER)


@pytest.mark.parametrize(
    ("status", "paid", "final"),
    [("pending", False, False), ("waiting_for_capture", False, False), ("succeeded", True, True),
     ("canceled", False, True)],
)  # fmt: skip
def test_only_captured_money_is_paid(status: str, paid: bool, final: bool) -> None:
    """`paid` of a payment that waits for capture is true too, and is not what we read."""
    state = wire.read_state(told(status=status, paid=True), ID, takes_test=False)
    assert (state.state, state.paid, state.final) == (status, paid, final)


@pytest.mark.parametrize(
    ("value", "minor"), [("100.00", 100_00), ("99.99", 99_99), ("0.10", 10), ("0.00", 0), ("100", 100_00)]
)
def test_f31_f37_the_amount_is_exact_and_before_fees(value: str, minor: int) -> None:
    state = wire.read_state(
        told(amount=rub(value), income_amount=rub("1.00"), refunded_amount=...), ID, takes_test=False
    )
    assert state.money == Money(minor, "RUB")


def test_f33_another_currency_is_another_money() -> None:
    state = wire.read_state(told(amount=rub("100.00", "KZT"), refunded_amount=...), ID, takes_test=False)
    assert state.money == Money(100_00, "KZT")


@pytest.mark.parametrize(("value", "minor"), [("40.00", 40_00), ("100.00", 100_00)])
def test_money_that_went_back_is_told_and_the_payment_stays_paid(value: str, minor: int) -> None:
    state = wire.read_state(told(refunded_amount=rub(value)), ID, takes_test=False)
    assert (state.paid, state.money.amount_minor, state.refunded_minor) == (True, 100_00, minor)


def test_f38_a_test_payment_is_money_only_where_it_is_wanted() -> None:
    toy = told(test=True, refunded_amount=rub("40.00"))
    live = wire.read_state(toy, ID, takes_test=False)
    assert (live.state, live.paid, live.final, live.refunded_minor) == ("test", False, True, 0)
    trial = wire.read_state(toy, ID, takes_test=True)
    assert (trial.state, trial.paid, trial.refunded_minor) == ("succeeded", True, 40_00)
    assert wire.read_state(told(), ID, takes_test=True).paid


@pytest.mark.parametrize(
    "metadata",
    [None, ..., {}, {"reference": None}, {"reference": ""}, {"order": REFERENCE}, {"reference": REFERENCE.upper()},
     {"reference": f"{REFERENCE}\n"}, {"reference": str(ORDER)}, {"reference": f"{ORDER}-{10**19}"}],
    ids=repr,
)  # fmt: skip
def test_f45_metadata_that_is_no_reference_of_ours_names_no_order(metadata: Any) -> None:
    assert wire.read_state(told(metadata=metadata), ID, takes_test=False).order_id is None


UNREADABLE = {
    "F63 another payment": told(id=OTHER_ID),
    "F63 HTML": Answer(200, b"<html>502</html>"),
    "no id": told(id=...),
    "id in other case": told(id=ID.upper()),
    "no status": told(status=...),
    "a new status": told(status="reversed"),
    "status in other case": told(status="Succeeded"),
    "no amount": told(amount=...),
    "amount null": told(amount=None),
    "amount bare": told(amount="100.00"),
    "F34 amount number": told(amount=rub(100)),
    "F34 amount exponent": told(amount=rub("1e2")),
    "F34 amount comma": told(amount=rub("100,00")),
    "F34 amount plus": told(amount=rub("+100.00")),
    "F34 amount zero before": told(amount=rub("0100.00")),
    "F34 amount too fine": told(amount=rub("100.001")),
    "F35 amount negative": told(amount=rub("-100.00")),
    "F35 amount NaN": told(amount=rub("NaN")),
    "F35 amount of 10^5 digits": told(amount=rub("9" * 100_000)),
    "amount not ASCII": told(amount=rub("１００.00")),
    "no currency": told(amount={"value": "100.00"}),
    "refunded in another currency": told(refunded_amount=rub("1.00", "USD")),
    "refunded more than paid": told(refunded_amount=rub("100.01")),
    "refunded no amount": told(refunded_amount=rub("")),
    "test missing": told(test=...),
    "test as text": told(test="false"),
    "metadata a list": told(metadata=[REFERENCE]),
    "nothing": Answer(200, b""),
    "an array": Answer(200, b"[]"),
    "bad UTF-8": Answer(200, told().body.replace(b"RUB", b"RU\xff")),
    "cut": Answer(200, told().body[:-5]),
    "not yet": Answer(202, told().body),
    "an error with status 200": Answer(200, b'{"type":"error","code":"not_found"}'),
}


def test_a_payment_in_a_currency_that_we_do_not_have_is_nobodys() -> None:
    with pytest.raises(Foreign):
        wire.read_state(told(amount=rub("100.00", "XXX")), ID, takes_test=True)


@pytest.mark.parametrize("answer", UNREADABLE.values(), ids=UNREADABLE)
def test_an_answer_out_of_protocol_is_the_gateways_failure(answer: Answer) -> None:
    with pytest.raises(errors.ProviderDown) as caught:
        wire.read_state(answer, ID, takes_test=True)
    assert len(str(caught.value)) < 100
