"""YooKassa's adapter on the wire: exactly what it asks for, and what each answer, good or bad, becomes."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from litestar import Litestar, Request, Response, get, post, route

from app import errors
from app.base.money import Money
from app.gateways.base import Ask, Foreign, Invoice, Refunded, RefundRefused
from app.gateways.yookassa import wire
from app.gateways.yookassa.gateway import Config, YooKassa
from app.infra.http import MAX_ANSWER_BYTES
from app.sandbox.serve import running
from app.sandbox.yookassa import ApiFault
from app.sandbox.yookassa import YooKassa as Simulator
from tests.gateways.test_yookassa import ID, KEY, ORDER, OTHER_ID, REFERENCE, REFUND, REFUND_ID, SAMPLE, rub

BASIC = base64.b64encode(f"100500:{KEY}".encode()).decode()
URL = f"https://yoomoney.ru/checkout/payments/v2/contract?orderId={ID}"
PENDING = SAMPLE | {
    "status": "pending", "paid": False, "confirmation": {"type": "redirect", "confirmation_url": URL},
}  # fmt: skip
FORTY = Money(40_00, "RUB")
REFUND_KEY = f"{ORDER}-r1"


@asynccontextmanager
async def shop(
    answer: Any, status: int = 200, *, test: bool = False, refunds: tuple[Any, ...] = ()
) -> AsyncIterator[tuple[YooKassa, list[Any]]]:
    """The adapter before a gateway that answers so and has these refunds, and the requests that this gateway saw."""
    asked: list[Any] = []
    raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    @get("/v3/refunds")
    async def known(request: Request[Any, Any, Any]) -> dict[str, Any]:
        asked.append((request.method, request.url.path, dict(request.headers), str(request.url.query).encode()))
        return {"type": "list", "items": list(refunds)} | ({"next_cursor": "1"} if len(refunds) > 1 else {})

    @route(["/v3/payments", "/v3/payments/{id:str}"], http_method=["GET", "POST"])
    async def tell(request: Request[Any, Any, Any]) -> Response[bytes]:
        asked.append((request.method, request.url.path, dict(request.headers), await request.body()))
        return Response(raw, status_code=status, media_type="application/json")

    back = post("/v3/refunds")(tell.fn)
    async with running(Litestar([tell, known, back], openapi_config=None)) as url, httpx.AsyncClient(timeout=5) as http:
        yield YooKassa(Config(shop_id="100500", secret_key=KEY, url=url + "/", test=test), http), asked


def ask(amount_minor: int = 149_050) -> Ask:
    return Ask(
        order_id=ORDER, payment_id=3, number=7, money=Money(amount_minor, "RUB"), lifetime_s=900,
        return_url="https://shop.example/?order=1", callback_url="https://shop.example/hook",
    )  # fmt: skip


def refused(code: str, parameter: str | None = None) -> dict[str, Any]:
    """An error object, whose description quotes what must not be told on."""
    return {"type": "error", "id": OTHER_ID, "code": code, "description": f"no {KEY}", "parameter": parameter}


def hidden(error: BaseException) -> bool:
    """Neither the key nor the header made of it is in the error or in what caused it."""
    told = repr(error) + repr(error.__cause__) + repr(error.__context__)
    return KEY not in told and BASIC not in told and len(str(error)) < 100


async def test_a_payment_is_asked_for_with_exactly_the_documented_fields() -> None:
    async with shop(PENDING) as (adapter, asked):
        assert await adapter.create(ask()) == Invoice(ID, URL)
    ((method, path, headers, body),) = asked
    assert (method, path) == ("POST", "/v3/payments")
    assert headers["authorization"] == f"Basic {BASIC}"
    assert headers["idempotence-key"] == REFERENCE
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == {
        "amount": {"value": "1490.50", "currency": "RUB"}, "capture": True, "description": "Order 7",
        "confirmation": {"type": "redirect", "return_url": "https://shop.example/?order=1"},
        "metadata": {"reference": REFERENCE},
    }  # fmt: skip


def test_the_same_ask_is_the_same_bytes() -> None:
    """YooKassa refuses a key that comes again with other data."""
    assert wire.create_body(ask()) == wire.create_body(ask())
    assert wire.create_body(ask()) != wire.create_body(ask(1))


@pytest.mark.parametrize(("minor", "text"), [(1, "0.01"), (10_000, "100.00"), (10**14 + 1, "1000000000000.01")])
def test_the_amount_always_has_its_fraction(minor: int, text: str) -> None:
    assert json.loads(wire.create_body(ask(minor)))["amount"] == {"value": text, "currency": "RUB"}


@pytest.mark.parametrize(
    "answer",
    [
        PENDING | {"confirmation": None},
        PENDING | {"confirmation": {"type": "embedded", "confirmation_token": "ct-1"}},
        PENDING | {"confirmation": {"type": "redirect", "confirmation_url": "javascript:alert(1)"}},
        PENDING | {"id": "7"},
        {**SAMPLE, "status": "canceled"},
        {"id": ID},
        b"<html></html>",
        b"",
    ],
    ids=lambda answer: repr(answer)[-40:],
)
async def test_a_payment_without_a_usable_id_and_link_is_none(answer: Any) -> None:
    async with shop(answer) as (adapter, _):
        with pytest.raises(errors.ProviderDown):
            await adapter.create(ask())


REFUSALS = [
    (400, refused("invalid_request", "Idempotence-Key"), "400 invalid_request"),
    (401, refused("invalid_credentials"), "401 invalid_credentials"),
    (403, refused("forbidden"), "403 forbidden"),
    (429, refused("too_many_requests"), "429"),
    (404, b"<html>nothing here</html>", "404"),
    (400, refused(f"no {KEY}"), "400"),
    (500, refused("internal_server_error"), "500"),
    (502, b"<html>bad gateway</html>", "502"),
    (202, {"type": "processing", "retry_after": 1800}, "202"),
    (302, b"", "302"),
    (204, b"", "204"),
]


@pytest.mark.parametrize(("status", "answer", "said"), REFUSALS)
async def test_any_other_status_is_the_gateways_failure_and_tells_the_code_alone(
    status: int, answer: Any, said: str
) -> None:
    async with shop(answer, status) as (adapter, _):
        for call in (adapter.create(ask()), adapter.fetch(ID)):
            with pytest.raises(errors.ProviderDown) as caught:
                await call
            assert str(caught.value) == f"YooKassa answered {said}"
            assert hidden(caught.value)


async def test_a_payment_is_asked_about_by_its_id() -> None:
    async with shop(SAMPLE) as (adapter, asked):
        assert (await adapter.fetch(ID)).paid
        with pytest.raises(errors.ProviderDown, match="another payment"):
            await adapter.fetch(OTHER_ID)
    assert [(method, path, body) for method, path, _, body in asked] == [
        ("GET", f"/v3/payments/{ID}", b""), ("GET", f"/v3/payments/{OTHER_ID}", b""),
    ]  # fmt: skip
    assert asked[0][2]["authorization"] == f"Basic {BASIC}"
    assert "idempotence-key" not in asked[0][2]


@pytest.mark.parametrize("payment_id", ["", "7", "../refunds", f"{ID}?x=1", f"{ID}/cancel", ID.upper(), ID[:-1] + "\n"])
async def test_f44_a_text_that_is_no_id_is_not_asked_about(payment_id: str) -> None:
    async with shop(SAMPLE) as (adapter, asked):
        with pytest.raises(errors.ProviderDown):
            await adapter.fetch(payment_id)
        with pytest.raises(errors.ProviderDown):
            await adapter.refund(payment_id, FORTY, REFUND_KEY)
    assert asked == []


async def test_f38_the_setting_says_whether_test_payments_count() -> None:
    for test in (False, True):
        async with shop(SAMPLE | {"test": True}, test=test) as (adapter, _):
            assert (await adapter.fetch(ID)).paid is test


async def test_f63_an_endless_answer_is_the_gateways_failure() -> None:
    async with shop(json.dumps(SAMPLE).encode().ljust(MAX_ANSWER_BYTES + 1)) as (adapter, _):
        with pytest.raises(errors.ProviderDown):
            await adapter.fetch(ID)


async def test_a_gateway_that_is_not_there_is_down() -> None:
    async with httpx.AsyncClient(timeout=1) as http:
        adapter = YooKassa(Config(shop_id="100500", secret_key=KEY, url="http://127.0.0.1:9"), http)
        for call in (adapter.fetch(ID), adapter.create(ask()), adapter.refund(ID, FORTY, REFUND_KEY)):
            with pytest.raises(errors.ProviderDown, match="ConnectError") as caught:
                await call
            assert hidden(caught.value)


# Refunds.


async def test_a_refund_under_way_is_asked_about_until_it_is_made() -> None:
    async with shop(REFUND | {"status": "pending"}) as (adapter, _):
        with pytest.raises(errors.ProviderDown, match="not made the refund yet"):
            await adapter.refund(ID, FORTY, REFUND_KEY)


async def test_a_payment_of_somebody_elses_shop_is_nobodys() -> None:
    async with shop(refused("not_found"), status=404) as (adapter, _):
        with pytest.raises(Foreign):
            await adapter.fetch(ID)


async def test_a_refund_is_asked_for_once_per_key() -> None:
    async with shop(REFUND | {"status": "succeeded"}) as (adapter, asked):
        assert await adapter.refund(ID, FORTY, REFUND_KEY) == Refunded(REFUND_ID)
    (look, (method, path, headers, body)) = asked
    assert (look[0], look[1], look[3]) == ("GET", "/v3/refunds", f"payment_id={ID}&limit=100".encode())
    assert (method, path) == ("POST", "/v3/refunds")
    assert (headers["authorization"], headers["idempotence-key"]) == (f"Basic {BASIC}", REFUND_KEY)
    amount = {"value": "40.00", "currency": "RUB"}
    assert json.loads(body) == {"payment_id": ID, "amount": amount, "metadata": {"key": REFUND_KEY}}


async def test_a_key_that_yookassa_forgot_makes_no_second_refund() -> None:
    known = REFUND | {"metadata": {"key": REFUND_KEY}}
    async with shop(REFUND | {"id": OTHER_ID}, refunds=(known,)) as (adapter, asked):
        assert await adapter.refund(ID, FORTY, REFUND_KEY) == Refunded(REFUND_ID)
        assert [method for method, *_ in asked] == ["GET"]
        assert await adapter.refund(ID, FORTY, f"{ORDER}-r2") == Refunded(OTHER_ID)
        with pytest.raises(errors.ProviderDown, match="another refund"):
            await adapter.refund(ID, Money(39_99, "RUB"), REFUND_KEY)
    async with shop(REFUND, refunds=(known | {"status": "canceled"},)) as (adapter, _):
        with pytest.raises(RefundRefused):
            await adapter.refund(ID, FORTY, REFUND_KEY)


async def test_against_the_simulator_a_day_old_key_makes_no_second_refund() -> None:
    now = datetime(2026, 1, 10, 11, 8, 11, tzinfo=UTC)
    sim = Simulator("100500", KEY, now=lambda: now)
    async with running(sim.app()) as url, httpx.AsyncClient(timeout=5) as http:
        adapter = YooKassa(Config(shop_id="100500", secret_key=KEY, url=url), http)
        made = await adapter.create(ask(100_00))
        await sim.pay(made.id)
        sim.faults.append(ApiFault(on="refund", status=500, after=True))  # made, and its answer is lost
        with pytest.raises(errors.ProviderDown):
            await adapter.refund(made.id, FORTY, REFUND_KEY)
        now += timedelta(hours=25)
        first = await adapter.refund(made.id, FORTY, REFUND_KEY)
        assert list(sim.book.refunds) == [first.id]
        assert (await adapter.fetch(made.id)).refunded_minor == 40_00


async def test_among_more_refunds_than_we_see_nothing_is_made() -> None:
    async with shop(REFUND, refunds=(REFUND, REFUND | {"metadata": None})) as (adapter, asked):
        with pytest.raises(errors.ProviderDown, match="more refunds"):
            await adapter.refund(ID, FORTY, REFUND_KEY)
    assert [method for method, *_ in asked] == ["GET"]


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        (200, REFUND | {"status": "canceled", "cancellation_details": {"party": "x", "reason": "insufficient_funds"}},
         "canceled the refund: insufficient_funds"),
        (200, REFUND | {"status": "canceled", "cancellation_details": {"reason": KEY + "!"}}, "no reason given"),
        (200, REFUND | {"status": "canceled"}, "no reason given"),
        (400, refused("invalid_request", "amount"), "refused the refund: invalid_request"),
        (404, refused("not_found"), "refused the refund: not_found"),
        (405, refused("invalid_request"), "refused the refund: invalid_request"),
    ],
)  # fmt: skip
async def test_a_refund_that_yookassa_will_never_make_is_refused(status: int, answer: Any, said: str) -> None:
    async with shop(answer, status) as (adapter, _):
        with pytest.raises(RefundRefused, match=said) as caught:
            await adapter.refund(ID, FORTY, REFUND_KEY)
        assert hidden(caught.value)


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        *[(status, answer) for status, answer, _ in REFUSALS if status in (401, 403, 429, 500, 502, 202, 302, 204)],
        (404, b"<html>nothing here</html>"),
        (400, refused("invalid_request", "Idempotence-Key")),  # says nothing of the refund that has this key
        (400, b"<html>a proxy in between</html>"),
        (400, {"code": "invalid_request"}),
        (400, {"type": "notification", "code": "invalid_request"}),
        (200, REFUND | {"status": "done"}),
        (200, REFUND | {"payment_id": OTHER_ID}),
        (200, REFUND | {"amount": rub("39.99")}),
        (200, REFUND | {"amount": rub("40.00", "USD")}),
        (200, REFUND | {"amount": rub("4e1")}),
        (200, REFUND | {"id": ""}),
        (200, refused("not_found")),
        (200, b""),
    ],
)  # fmt: skip
async def test_any_other_answer_leaves_the_refund_open(status: int, answer: Any) -> None:
    async with shop(answer, status) as (adapter, _):
        with pytest.raises(errors.ProviderDown) as caught:
            await adapter.refund(ID, FORTY, REFUND_KEY)
        assert hidden(caught.value)
