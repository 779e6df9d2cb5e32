"""The AAIO simulator speaks the documented protocol, and misbehaves exactly as ordered."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

import httpx
import msgspec
import pytest
from litestar import Litestar, Request, Response, post

from app.sandbox.aaio import Aaio, ApiFault
from app.sandbox.aaio_wire import Callbacks, Refused, sign
from app.sandbox.serve import make, running

MERCHANT, KEY, ONE, TWO = "11111111-2222-3333-4444-555555555555", "k3y", "secret_one", "secret_two"
FORM = "application/x-www-form-urlencoded"
HEADERS = {"accept": "application/json", "content-type": FORM}
ORDER = {"merchant_id": MERCHANT, "amount": "150.00", "currency": "RUB", "order_id": "order-42", "desc": "Order 7"}
# Field by field as wiki.aaio.so "informaciya-o-zakaze" shows them.
DOCUMENTED = """
    type id order_id desc merchant_id merchant_domain method amount currency profit commission commission_client
    commission_type email status date expired_date complete_date us_vars
"""
# PROTOCOLS §2, "Notification".
NOTIFIED = """
    status merchant_id invoice_id order_id amount currency profit commission commission_client commission_type method
    desc email sign
"""


class Shop:
    """The product's side: takes notifications, answers with the next status, and remembers them."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.got: list[dict[str, str]] = []

    async def hook(self, request: Request[Any, Any, Any]) -> Response[bytes]:
        assert request.headers["content-type"] == FORM
        self.got.append(dict(parse_qsl((await request.body()).decode(), keep_blank_values=True, strict_parsing=True)))
        return Response(b"", status_code=self.statuses.pop(0) if self.statuses else 200)

    def app(self) -> Litestar:
        return Litestar([post("/hook")(self.hook)], openapi_config=None, logging_config=None)


class World(msgspec.Struct):
    """A running gateway, a running shop, and a client of the gateway."""

    gateway: Aaio
    shop: Shop
    http: httpx.AsyncClient

    async def ask(self, path: str, given: dict[str, str], **headers: str) -> httpx.Response:
        return await self.http.post(path, data=given, headers=HEADERS | headers)

    async def create(self, **fields: str) -> str:
        given = ORDER | fields
        answer = (await self.ask("/merchant/get_pay_url", signed(given))).json()
        assert answer["type"] == "success", answer
        return given["order_id"]

    async def info(self, order_id: str, **fields: str) -> dict[str, Any]:
        given = {"merchant_id": MERCHANT, "order_id": order_id} | fields
        told: dict[str, Any] = (await self.ask("/api/info-pay", given, **{"x-api-key": KEY})).json()
        return told


def signed(given: dict[str, str], secret: str = ONE) -> dict[str, str]:
    """The signature as it is documented, not as the simulator makes it."""
    parts = [given["merchant_id"], given["amount"], given["currency"], secret, given["order_id"]]
    return given | {"sign": hashlib.sha256(":".join(parts).encode()).hexdigest()}


@asynccontextmanager
async def started(shop: Shop | None = None, **options: Any) -> AsyncIterator[World]:
    gateway = Aaio(MERCHANT, KEY, ONE, TWO, **options)
    shop = shop or Shop()
    async with (
        running(shop.app()) as shop_url,
        running(gateway.app()) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as http,
    ):
        gateway.callback_url = f"{shop_url}/hook"
        yield World(gateway, shop, http)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with started() as it:
        yield it


def test_signatures_match_the_known_vectors() -> None:
    vectors = {
        ONE: "5436d92fad5b5f8c7c524d16116f41b86ca55397e490fa75b613ffab39049a72",
        TWO: "4d7a0b9f9c3d5ce1aaa8458eec00126f11fb1c0ee11a37f2b19dd6b752177c58",
    }
    for secret, signature in vectors.items():
        assert sign(MERCHANT, "150.00", "RUB", secret, "order-42") == signature


async def test_create_answers_with_the_address_to_pay_at(world: World) -> None:
    raw = await world.ask("/merchant/get_pay_url", signed(ORDER))
    assert raw.status_code == 200
    assert raw.json() == {"type": "success", "url": f"{str(world.http.base_url).rstrip('/')}/pay/order-42"}


async def test_info_has_every_documented_field_and_no_other(world: World) -> None:
    told = await world.info(await world.create(currency="USD", us_ref="x", email="a@b.example"))
    assert set(told) == set(DOCUMENTED.split())
    assert (told["status"], told["amount"], told["currency"]) == ("in_process", 150, "USD")
    assert (told["profit"], told["commission"]) == (11852.43, 366.57)
    assert (told["desc"], told["us_vars"], told["email"]) == ("Order 7", ["x"], "a@b.example")
    assert told["complete_date"] is None
    assert re.fullmatch("[0-9a-f-]{36}", told["id"])


@pytest.mark.parametrize(
    ("given", "told"), [("1490.50", "1490.5"), ("100", "100"), ("0.1", "0.1"), ("1000000.00", "1000000")]
)
async def test_info_tells_the_amount_as_an_exact_number(world: World, given: str, told: str) -> None:
    await world.create(amount=given)
    raw = await world.ask("/api/info-pay", {"merchant_id": MERCHANT, "order_id": "order-42"}, **{"x-api-key": KEY})
    assert f'"amount":{told},' in raw.text


@pytest.mark.parametrize(
    "bad",
    [
        {"merchant_id": "another"},
        {"amount": "0"},
        {"amount": "-1"},
        {"amount": "1e2"},
        {"amount": "100,00"},
        {"amount": "100.001"},
        {"currency": "KZT"},
        {"currency": ""},
        {"order_id": ""},
        {"order_id": "a" * 65},
        {"order_id": "a b"},
        {"desc": "x" * 513},
        {"lang": "uk"},
    ],
)
async def test_bad_create_is_an_error(world: World, bad: dict[str, str]) -> None:
    answer = await world.ask("/merchant/get_pay_url", signed(ORDER | bad))
    assert answer.status_code == 400
    assert answer.json()["type"] == "error"
    assert answer.json()["message"]
    assert not world.gateway.orders


async def test_wrong_signatures_keys_and_headers_are_refused(world: World) -> None:
    wrong = [signed(ORDER, TWO), ORDER, ORDER | {"sign": ""}, signed(ORDER) | {"amount": "149.00"}]
    for given in wrong:
        assert "sign" in (await world.ask("/merchant/get_pay_url", given)).json()["message"]
    for headers in ({"accept": "*/*"}, {"content-type": "application/json"}):
        assert (await world.ask("/merchant/get_pay_url", signed(ORDER), **headers)).status_code == 400
    assert not world.gateway.orders
    order_id = await world.create()
    for key in ("", "wrong", TWO):
        given = {"merchant_id": MERCHANT, "order_id": order_id}
        answer = await world.ask("/api/info-pay", given, **{"x-api-key": key})
        assert (answer.status_code, answer.json()["type"]) == (401, "error")
    assert (await world.info(order_id, merchant_id="another"))["type"] == "error"
    assert (await world.info("nobody"))["type"] == "error"


async def test_an_order_id_leads_to_one_page_and_is_not_used_twice(world: World) -> None:
    first = await world.ask("/merchant/get_pay_url", signed(ORDER))
    assert (await world.ask("/merchant/get_pay_url", signed(ORDER))).json() == first.json()
    assert (await world.ask("/merchant/get_pay_url", signed(ORDER | {"amount": "1"}))).json()["type"] == "error"
    await world.gateway.pay("order-42")
    assert (await world.ask("/merchant/get_pay_url", signed(ORDER))).json()["type"] == "error"


@pytest.mark.parametrize("status", ["success", "hold"])
async def test_payment_is_told_by_info_and_by_one_signed_form(world: World, status: Any) -> None:
    order_id = await world.create(amount="149.90")
    sent = await world.gateway.pay(order_id, status=status)
    told = await world.info(order_id)
    assert (told["status"], told["amount"], told["method"]) == (status, 149.9, "sandbox")
    assert told["complete_date"] is not None
    assert [entry.status for entry in sent] == [200]
    (got,) = world.shop.got
    assert set(got) == set(NOTIFIED.split())
    assert (got["status"], got["amount"], got["order_id"], got["invoice_id"]) == (
        status,
        "149.90",
        order_id,
        told["id"],
    )
    assert got["sign"] == signed(got, TWO)["sign"]


@pytest.mark.parametrize("refusing", [500, 404, 429])
async def test_a_notification_that_is_not_accepted_does_not_come_again(refusing: int) -> None:
    async with started(Shop(refusing)) as world:
        sent = await world.gateway.pay(await world.create())
        assert [entry.status for entry in sent] == [refusing]
        assert (await world.info("order-42"))["status"] == "success"
        again = await world.gateway.send_callback("order-42")  # by hand, in the cabinet
        assert [entry.status for entry in again] == [200]
    assert world.shop.got[0] == world.shop.got[1]


async def test_nobody_is_called_without_an_address_or_before_a_payment(world: World) -> None:
    order_id = await world.create()
    world.gateway.cancel(order_id)
    assert (await world.info(order_id))["status"] == "expired"
    await world.gateway.idle()
    world.gateway.callback_url = ""
    assert await world.gateway.pay(order_id) == []
    assert world.shop.got == []


async def test_notifications_are_repeated_delayed_and_lost_as_planned(world: World) -> None:
    await world.create()
    await world.gateway.pay("order-42", callbacks=Callbacks(copies=50))
    assert len(world.shop.got) == 50
    assert all(got == world.shop.got[0] for got in world.shop.got)
    late = world.gateway.send_callback("order-42", Callbacks(delay_ms=80, edit={"status": "hold"}))
    await world.gateway.send_callback("order-42")
    await late
    assert [got["status"] for got in world.shop.got[50:]] == ["success", "hold"]
    world.gateway.callbacks = Callbacks(drop=1)
    (lost,) = await world.gateway.send_callback("order-42")
    assert (lost.status, lost.error) == (None, "dropped")
    assert len(world.shop.got) == 52


async def test_signature_can_be_wrong_absent_or_of_the_first_secret(world: World) -> None:
    order_id = await world.create()
    for signature in ("wrong", "absent", "first secret"):
        await world.gateway.send_callback(order_id, msgspec.convert({"signature": signature}, Callbacks))
    wrong, absent, first = world.shop.got
    right = signed(wrong, TWO)["sign"]
    assert re.fullmatch("[0-9a-f]{64}", wrong["sign"])
    assert wrong["sign"] != right
    assert "sign" not in absent
    assert first["sign"] == signed(first, ONE)["sign"] != right


async def test_edited_notification_keeps_its_valid_signature(world: World) -> None:
    await world.create()
    await world.gateway.send_callback("order-42", Callbacks(edit={"amount": "1", "status": "success"}, omit=["desc"]))
    (got,) = world.shop.got
    assert (got["amount"], got["status"]) == ("1", "success")
    assert "desc" not in got
    assert got["sign"] == signed(ORDER, TWO)["sign"]
    assert (await world.info("order-42"))["status"] == "in_process"


async def test_a_gateway_that_errs_says_another_amount_came(world: World) -> None:
    await world.create()
    await world.gateway.pay("order-42", amount="149.99")
    (got,) = world.shop.got
    assert (got["amount"], got["sign"]) == ("149.99", signed(got, TWO)["sign"])
    assert (await world.info("order-42"))["amount"] == 149.99


async def test_unpaid_order_expires_when_its_time_is_over() -> None:
    now = datetime(2026, 1, 10, 11, 8, 11, tzinfo=UTC)
    async with started(now=lambda: now, lifetime_s=900) as world:
        order_id = await world.create()
        now += timedelta(seconds=899)
        assert (await world.info(order_id))["status"] == "in_process"
        now += timedelta(seconds=1)
        told = await world.info(order_id)
        assert (told["status"], told["expired_date"]) == ("expired", "2026-01-10 11:23:11")
        await world.gateway.pay(order_id)
        assert (await world.info(order_id))["status"] == "success"


async def test_faults_replace_hold_edit_and_swap_answers(world: World) -> None:
    await world.create()
    await world.create(order_id="other", amount="2")
    world.gateway.faults.append(ApiFault(on="create", status=502, after=True))
    assert (await world.ask("/merchant/get_pay_url", signed(ORDER | {"order_id": "third"}))).status_code == 502
    assert "third" in world.gateway.orders
    world.gateway.faults.append(ApiFault(on="info", id="order-42", instead="other"))
    assert (await world.info("other"))["order_id"] == "other"
    assert (await world.info("order-42"))["order_id"] == "other"
    world.gateway.faults.append(ApiFault(on="info", edit={"currency": "USD", "amount": "1e3"}))
    told = await world.info("order-42")
    assert (told["currency"], told["amount"]) == ("USD", "1e3")
    world.gateway.faults.append(ApiFault(on="info", hold_ms=30_000))
    with pytest.raises(httpx.ReadTimeout):
        await world.http.post("/api/info-pay", data={"order_id": "other"}, headers=HEADERS, timeout=0.1)
    world.gateway.faults.append(ApiFault(on="info", body="<html>", content_type="text/html"))
    raw = await world.ask("/api/info-pay", {"order_id": "order-42"})
    assert (raw.status_code, raw.text) == (200, "<html>")
    assert world.gateway.faults == []


async def test_control_surface_over_http(world: World) -> None:
    await world.create()
    cabinet = {"callback_url": world.gateway.callback_url, "return_url": "https://shop.example/paid"}
    assert (await world.http.put("/sandbox/cabinet", json=cabinet)).status_code == 200
    assert world.gateway.return_url == "https://shop.example/paid"
    await world.http.put("/sandbox/callbacks", json={"copies": 3})
    paid = (await world.http.post("/sandbox/pay", json={"id": "order-42", "status": "hold", "wait": True})).json()
    assert paid["invoice"]["status"] == "hold"
    assert [entry["status"] for entry in paid["callbacks"]] == [200] * 3
    await world.http.delete("/sandbox/callbacks")
    again = (await world.http.post("/sandbox/callbacks/order-42", json={"edit": {"amount": "1"}})).json()
    assert [entry["given"]["amount"] for entry in again] == ["1"]
    assert [order["order_id"] for order in (await world.http.get("/sandbox/invoices")).json()] == ["order-42"]
    for path, body in [("pay", {"id": "nobody"}), ("pay", {}), ("faults", {"colour": 1}), ("callbacks/nobody", {})]:
        assert (await world.http.post(f"/sandbox/{path}", json=body)).status_code == 400


async def test_log_tells_requests_and_callbacks_without_the_secrets(world: World) -> None:
    order_id = await world.create()
    await world.info(order_id)
    await world.gateway.pay(order_id)
    raw = (await world.http.get("/sandbox/log")).text
    assert not any(secret in raw for secret in (KEY, ONE, TWO))
    entries = [(entry["kind"], entry["name"], entry["status"]) for entry in msgspec.json.decode(raw)]
    hook = world.gateway.callback_url
    assert entries == [("request", "create", 200), ("request", "info", 200), ("callback", hook, 200)]


async def test_pay_page_pays_and_leads_back_to_the_shop() -> None:
    async with started(public_url="https://pay.example/", return_url="https://shop.example/paid") as world:
        answer = (await world.ask("/merchant/get_pay_url", signed(ORDER | {"amount": "1490.50"}))).json()
        assert answer["url"] == "https://pay.example/pay/order-42"
        page = await world.http.get("/pay/order-42")
        assert "1\u00a0490.50\u00a0₽" in page.text
        assert "<b>AAIO</b>" in page.text
        assert re.findall(r'name="how" value="(\w+)"', page.text) == ["pay", "cancel"]  # the whole or nothing
        pressed = await world.http.post("/pay/order-42", data={"how": "less"})
        assert (pressed.status_code, world.gateway.invoice("order-42").status) == (303, "in_process")
        pressed = await world.http.post("/pay/order-42", data={"how": "pay"})
        assert (pressed.status_code, pressed.headers["location"]) == (303, "https://shop.example/paid")
        await world.gateway.idle()
        assert [got["status"] for got in world.shop.got] == ["success"]
        page = await world.http.get("/pay/order-42")
        assert "✓ Paid" in page.text
        assert "https://shop.example/paid" in page.text
        await world.http.post("/pay/order-42", data={"how": "cancel"})
        assert (await world.info("order-42"))["status"] == "success"
        await world.create(order_id="other")
        await world.http.post("/pay/other", data={"how": "cancel"})
        assert (await world.info("other"))["status"] == "expired"
        assert (await world.http.get("/pay/nobody")).status_code == 404
        assert (await world.http.post("/pay/nobody", data={"how": "pay"})).status_code == 404


async def test_shutdown_ends_deliveries_under_way() -> None:
    async with started() as world:
        delivery = world.gateway.pay(await world.create(), callbacks=Callbacks(delay_ms=60_000))
        await asyncio.sleep(0)
    assert delivery.cancelled()


def test_make_knows_its_secrets() -> None:
    assert isinstance(make("aaio", merchant_id="a", api_key="b", secret_1="c", secret_2="d"), Aaio)
    with pytest.raises(ValueError, match="empty"):
        make("aaio", merchant_id="a", api_key="b", secret_1="c", secret_2="")
    with pytest.raises(Refused):
        Aaio("a", "b", "c", "d").invoice("nobody")
