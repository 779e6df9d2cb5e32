"""The YooKassa simulator speaks the documented protocol, and misbehaves exactly as ordered."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest

from app.sandbox.party import Entry
from app.sandbox.serve import make, running
from app.sandbox.yookassa import YooKassa
from app.sandbox.yookassa_wire import Buying, Callbacks, Refused, new_id
from tests.sandbox.test_crystalpay import Shop

AUTH = httpx.BasicAuth("100500", "test_secret")
ORDER: dict[str, Any] = {
    "amount": {"value": "100.00", "currency": "RUB"}, "capture": True, "description": "Order 7",
    "confirmation": {"type": "redirect", "return_url": "https://shop.example/?order=7"},
    "metadata": {"reference": "order-7"},
}  # fmt: skip
# The fields that the OpenAPI specification requires of each.
PAYMENT = {"id", "status", "amount", "created_at", "paid", "test", "refundable", "recipient"}
REFUND = {"id", "payment_id", "status", "created_at", "amount"}


class World(msgspec.Struct):
    """A running gateway, a running shop, and the shop's client of the gateway."""

    gateway: YooKassa
    shop: Shop
    http: httpx.AsyncClient

    async def post(self, path: str, body: Any, key: str | None = None) -> httpx.Response:
        return await self.http.post(path, json=body, headers={"Idempotence-Key": key or new_id("4000")})

    async def create(self, **fields: Any) -> str:
        answer = await self.post("/v3/payments", ORDER | fields)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    async def info(self, payment_id: str) -> dict[str, Any]:
        told: dict[str, Any] = (await self.http.get(f"/v3/payments/{payment_id}")).json()
        return told

    async def give_back(self, payment_id: str, value: str, key: str | None = None) -> httpx.Response:
        body = {"payment_id": payment_id, "amount": {"value": value, "currency": "RUB"}}
        return await self.post("/v3/refunds", body, key)

    def heard(self) -> list[tuple[str, str]]:
        return [(got["event"], got["object"]["status"]) for got in self.shop.got]


@asynccontextmanager
async def started(shop: Shop | None = None, **options: Any) -> AsyncIterator[World]:
    gateway = YooKassa("100500", "test_secret", **({"minute_ms": 1.0} | options))
    shop = shop or Shop()
    async with (
        running(shop.app()) as shop_url,
        running(gateway.app()) as url,
        httpx.AsyncClient(base_url=url, auth=AUTH, trust_env=False) as http,
    ):
        gateway.callback_url = f"{shop_url}/hook"
        yield World(gateway, shop, http)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with started() as it:
        yield it


def refusal(answer: httpx.Response) -> tuple[int, str, str | None]:
    told = answer.json()
    assert told["type"] == "error"
    assert set(told) <= {"type", "id", "code", "description", "parameter"}
    return answer.status_code, told["code"], told.get("parameter")


def test_it_is_made_from_its_secrets() -> None:
    assert isinstance(make("yookassa", shop_id="1", secret_key="k"), YooKassa)
    with pytest.raises(ValueError, match="empty"):
        make("yookassa", shop_id="1", secret_key="")


# Payments.


async def test_a_new_payment_is_answered_in_the_documented_shape(world: World) -> None:
    answer = await world.post("/v3/payments", ORDER)
    told = answer.json()
    assert answer.status_code == 200
    assert set(told) == PAYMENT | {"confirmation", "description", "metadata"}
    assert re.fullmatch(r"[0-9a-f]{8}-000f-5000-[89ab][0-9a-f]{3}-[0-9a-f]{12}", told["id"])
    assert (told["status"], told["paid"], told["test"], told["refundable"]) == ("pending", False, False, False)
    assert told["amount"] == ORDER["amount"]
    assert told["metadata"] == {"reference": "order-7"}
    assert told["recipient"] == {"account_id": "100500", "gateway_id": "1"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told["created_at"])
    assert told["confirmation"]["type"] == "redirect"
    assert told["confirmation"]["confirmation_url"].endswith(f"?orderId={told['id']}")
    assert await world.info(told["id"]) == told


@pytest.mark.parametrize(
    ("change", "parameter"),
    [
        ({"amount": {"value": "0.00", "currency": "RUB"}}, "amount.value"),
        ({"amount": {"value": "-1.00", "currency": "RUB"}}, "amount.value"),
        ({"amount": {"value": "1e2", "currency": "RUB"}}, "amount.value"),
        ({"amount": {"value": "100,00", "currency": "RUB"}}, "amount.value"),
        ({"amount": {"value": "0.001", "currency": "RUB"}}, "amount.value"),
        ({"amount": {"value": 100, "currency": "RUB"}}, "amount.value"),
        ({"amount": {"value": "100.00", "currency": "USD"}}, "amount.currency"),
        ({"amount": None}, "amount"),
        ({"description": "x" * 129}, "description"),
        ({"confirmation": {"type": "redirect"}}, "confirmation"),
        ({"confirmation": {"type": "redirect", "return_url": "javascript:alert(1)"}}, "confirmation.return_url"),
        ({"confirmation": {"type": "post", "return_url": "https://x"}}, "confirmation.type"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"metadata": {"a": "x" * 513}}, "metadata[...]"),
        ({"capture": "yes"}, "capture"),
    ],
)
async def test_a_bad_payment_is_refused_by_its_field(world: World, change: dict[str, Any], parameter: str) -> None:
    assert refusal(await world.post("/v3/payments", ORDER | change)) == (400, "invalid_request", parameter)
    assert not world.gateway.book.payments


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"<html>"])
async def test_a_body_that_is_no_object_is_refused(world: World, body: bytes) -> None:
    for path in ("/v3/payments", "/v3/refunds"):
        answer = await world.http.post(path, content=body, headers={"Idempotence-Key": "a"})
        assert refusal(answer)[:2] == (400, "invalid_request")


@pytest.mark.parametrize("auth", [None, ("100500", "no"), ("1", "test_secret"), ("100500", ""), ("é", "é")])
async def test_only_the_shops_owner_is_answered(world: World, auth: Any) -> None:
    payment_id = await world.create()
    async with httpx.AsyncClient(base_url=world.http.base_url, auth=auth, trust_env=False) as stranger:
        for answer in (
            await stranger.post("/v3/payments", json=ORDER, headers={"Idempotence-Key": "a"}),
            await stranger.get(f"/v3/payments/{payment_id}"),
            await stranger.post("/v3/refunds", json={}, headers={"Idempotence-Key": "a"}),
        ):
            assert refusal(answer) == (401, "invalid_credentials", "Authorization")
    assert len(world.gateway.book.payments) == 1


async def test_unknown_ids_are_not_found(world: World) -> None:
    assert refusal(await world.http.get(f"/v3/payments/{new_id('000f')}")) == (404, "not_found", "payment_id")
    assert refusal(await world.http.get(f"/v3/refunds/{new_id('0015')}")) == (404, "not_found", "refund_id")
    with pytest.raises(Refused):
        world.gateway.pay("7")


# Keys.


async def test_a_key_with_the_same_data_is_the_same_payment_for_a_day() -> None:
    now = datetime(2026, 1, 10, 11, 8, 11, tzinfo=UTC)
    async with started(now=lambda: now) as world:
        first = (await world.post("/v3/payments", ORDER, "key-1")).json()
        now += timedelta(hours=23, minutes=59)
        assert (await world.post("/v3/payments", ORDER, "key-1")).json() == first
        assert (await world.post("/v3/payments", ORDER, "key-2")).json()["id"] != first["id"]
        now += timedelta(minutes=1)
        assert (await world.post("/v3/payments", ORDER, "key-1")).json()["id"] != first["id"]


async def test_a_key_with_other_data_is_refused(world: World) -> None:
    await world.post("/v3/payments", ORDER, "key-1")
    for answer in (
        await world.post("/v3/payments", ORDER | {"description": "Order 8"}, "key-1"),
        await world.give_back(new_id("000f"), "1.00", "key-1"),
    ):
        assert refusal(answer) == (400, "invalid_request", "Idempotence-Key")
    assert len(world.gateway.book.payments) == 1


@pytest.mark.parametrize("key", ["", "k" * 65, "a b", "a;b"])
async def test_a_key_that_is_missing_or_not_valid_is_refused(world: World, key: str) -> None:
    headers = {"Idempotence-Key": key} if key else {}
    answer = await world.http.post("/v3/payments", json=ORDER, headers=headers)
    assert refusal(answer) == (400, "invalid_request", "Idempotence-Key")


async def test_a_refused_request_does_not_use_its_key_up(world: World) -> None:
    assert (await world.post("/v3/payments", ORDER | {"amount": None}, "key-1")).status_code == 400
    assert (await world.post("/v3/payments", ORDER, "key-1")).status_code == 200


# What becomes of a payment.


async def test_a_payment_is_told_by_info_and_by_one_notification(world: World) -> None:
    payment_id = await world.create()
    sent = await world.gateway.pay(payment_id)
    told = await world.info(payment_id)
    assert (told["status"], told["paid"], told["refundable"]) == ("succeeded", True, True)
    assert told["income_amount"] == {"value": "96.50", "currency": "RUB"}
    assert told["payment_method"]["type"] == "bank_card"
    assert "confirmation" not in told
    assert "refunded_amount" not in told
    assert [entry.status for entry in sent] == [200]
    assert world.shop.got == [{"type": "notification", "event": "payment.succeeded", "object": told}]


async def test_without_capture_the_money_is_only_held(world: World) -> None:
    payment_id = await world.create(capture=False)
    await world.gateway.pay(payment_id)
    told = await world.info(payment_id)
    assert (told["status"], told["paid"], told["refundable"]) == ("waiting_for_capture", True, False)
    assert "expires_at" in told
    assert world.heard() == [("payment.waiting_for_capture", "waiting_for_capture")]


async def test_a_canceled_payment_says_why(world: World) -> None:
    payment_id = await world.create()
    await world.gateway.cancel(payment_id)
    told = await world.info(payment_id)
    assert (told["status"], told["paid"]) == ("canceled", False)
    assert told["cancellation_details"] == {"party": "payment_network", "reason": "general_decline"}
    assert world.heard() == [("payment.canceled", "canceled")]


async def test_a_payment_that_nobody_paid_is_canceled_after_an_hour() -> None:
    now = datetime(2026, 1, 10, 11, 8, 11, tzinfo=UTC)
    async with started(now=lambda: now) as world:
        payment_id = await world.create()
        now += timedelta(minutes=59, seconds=59)
        assert (await world.info(payment_id))["status"] == "pending"
        now += timedelta(seconds=1)
        told = await world.info(payment_id)
        assert (told["status"], told["cancellation_details"]["reason"]) == ("canceled", "expired_on_confirmation")


async def test_the_money_may_differ_from_what_was_asked(world: World) -> None:
    payment_id = await world.create()
    await world.gateway.pay(payment_id, Buying(edit={"amount": {"value": "99.99", "currency": "KZT"}}))
    assert (await world.info(payment_id))["amount"] == {"value": "99.99", "currency": "KZT"}
    with pytest.raises(Refused):
        world.gateway.pay(payment_id, Buying(edit={"colour": "red"}))


async def test_a_test_shops_payments_say_so() -> None:
    async with started(test=True) as world:
        payment_id = await world.create()
        await world.gateway.pay(payment_id)
        assert (await world.info(payment_id))["test"] is True


# Refunds.


async def test_refunds_add_up_and_end_at_what_was_paid(world: World) -> None:
    payment_id = await world.create()
    await world.gateway.pay(payment_id)
    answer = await world.give_back(payment_id, "40.00")
    told = answer.json()
    assert (answer.status_code, set(told), told["status"]) == (200, REFUND, "succeeded")
    assert (await world.http.get(f"/v3/refunds/{told['id']}")).json() == told
    assert refusal(await world.give_back(payment_id, "60.01")) == (400, "invalid_request", "amount")
    assert (await world.give_back(payment_id, "60.00")).status_code == 200
    paid = await world.info(payment_id)
    assert (paid["status"], paid["refunded_amount"]["value"], paid["refundable"]) == ("succeeded", "100.00", False)
    await world.gateway.idle()
    assert [got["event"] for got in world.shop.got] == ["payment.succeeded"] + ["refund.succeeded"] * 2
    assert world.shop.got[1]["object"] == told


async def test_a_repeated_refund_is_one_refund(world: World) -> None:
    payment_id = await world.create()
    await world.gateway.pay(payment_id)
    first, second = [(await world.give_back(payment_id, "40.00", "key-r")).json() for _ in range(2)]
    assert first == second
    assert (await world.info(payment_id))["refunded_amount"]["value"] == "40.00"


async def test_only_paid_money_of_the_same_currency_goes_back(world: World) -> None:
    payment_id = await world.create()
    assert refusal(await world.give_back(payment_id, "1.00")) == (400, "invalid_request", "payment_id")
    assert refusal(await world.give_back(new_id("000f"), "1.00")) == (400, "invalid_request", "payment_id")
    await world.gateway.pay(payment_id)
    assert refusal(await world.give_back(payment_id, "0.00")) == (400, "invalid_request", "amount.value")
    body = {"payment_id": payment_id, "amount": {"value": "1.00", "currency": "USD"}}
    assert refusal(await world.post("/v3/refunds", body)) == (400, "invalid_request", "amount.currency")


async def test_a_refund_may_be_pending_and_end_either_way(world: World) -> None:
    payment_id = await world.create()
    await world.gateway.pay(payment_id)
    world.gateway.refunds_are = "pending"
    one, two = [(await world.give_back(payment_id, "50.00")).json() for _ in range(2)]
    assert (one["status"], two["status"]) == ("pending", "pending")
    assert "refunded_amount" not in await world.info(payment_id)
    assert refusal(await world.give_back(payment_id, "1.00"))[2] == "amount"
    assert len(await world.gateway.finish_refund(one["id"], "succeeded")) == 1
    assert await world.gateway.finish_refund(two["id"], "canceled") == []
    assert (await world.info(payment_id))["refunded_amount"]["value"] == "50.00"
    assert (await world.http.get(f"/v3/refunds/{two['id']}")).json()["cancellation_details"]["reason"]


async def test_the_cabinet_refunds_all_that_is_left(world: World) -> None:
    payment_id = await world.create()
    await world.gateway.pay(payment_id)
    await world.gateway.refund(payment_id, "30.00")
    await world.gateway.refund(payment_id)
    assert [got["object"]["amount"]["value"] for got in world.shop.got[1:]] == ["30.00", "70.00"]
    assert (await world.info(payment_id))["refunded_amount"]["value"] == "100.00"


# Notifications.


async def test_only_200_ends_the_notifications_and_each_wait_is_twice_the_last() -> None:
    shop = Shop(503, 202, 204, 429)
    async with started(shop, minute_ms=10.0) as world:
        sent = await world.gateway.pay(await world.create())
    assert [entry.status for entry in sent] == [503, 202, 204, 429, 200]
    assert all(got == shop.got[0] for got in shop.got)
    gaps = [after - before for before, after in zip(shop.at, shop.at[1:], strict=False)]
    assert all(gap >= 0.010 * 2**n for n, gap in enumerate(gaps))


async def test_they_end_after_a_day(world: World) -> None:
    world.gateway.callback_url, world.gateway.minute_ms = "http://127.0.0.1:1/hook", 0.01
    sent = await world.gateway.pay(await world.create())
    assert len(sent) == 11
    assert all(entry.status is None and "ConnectError" in entry.error for entry in sent)
    assert sum(2**n for n in range(len(sent) - 1)) < 24 * 60


async def test_nobody_is_notified_before_the_cabinet_names_somebody(world: World) -> None:
    url, world.gateway.callback_url = world.gateway.callback_url, ""
    payment_id = await world.create()
    assert await world.gateway.pay(payment_id) == []
    assert (await world.http.put("/sandbox/cabinet", json={"callback_url": url})).status_code == 200
    assert len(await world.gateway.send_callback(payment_id)) == 1


async def test_they_can_be_repeated_dropped_and_told_late(world: World) -> None:
    payment_id = await world.create()
    assert await world.gateway.send_callback(payment_id) == []  # there is no event of a pending payment
    late = world.gateway.pay(payment_id, Buying(callbacks=Callbacks(delay_ms=80, copies=5)))
    assert (await world.info(payment_id))["status"] == "succeeded"
    await world.gateway.refund(payment_id)
    await late
    assert [got["event"] for got in world.shop.got] == ["refund.succeeded"] + ["payment.succeeded"] * 5
    sent: list[Entry] = await world.gateway.send_callback(payment_id, Callbacks(drop=2))
    assert [(entry.status, entry.error) for entry in sent] == [(None, "dropped"), (None, "dropped"), (200, "")]


async def test_they_can_say_what_is_not_true(world: World) -> None:
    payment_id = await world.create()
    lie = Callbacks(event="payment.succeeded", object={"status": "succeeded"}, omit=["metadata"], edit={"extra": 1})
    await world.gateway.send_callback(payment_id, lie)
    (got,) = world.shop.got
    assert (got["event"], got["object"]["status"], got["extra"]) == ("payment.succeeded", "succeeded", 1)
    assert "metadata" not in got["object"]
    assert (await world.info(payment_id))["status"] == "pending"
    with pytest.raises(Refused):
        world.gateway.send_callback(payment_id, Callbacks(event="refund.succeeded"))
