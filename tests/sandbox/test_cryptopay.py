"""The Crypto Pay simulator speaks the documented protocol, as a public client finds, and misbehaves as ordered."""

import asyncio
import hashlib
import hmac
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiosend
import httpx
import msgspec
import pytest
from aiosend.client import Network
from aiosend.exceptions import APIError
from litestar import Litestar, Request, Response, post

from app.sandbox.cryptopay import ApiFault, CryptoPay
from app.sandbox.cryptopay_wire import Callbacks, Refused, sign
from app.sandbox.serve import make, running

TOKEN = "12345:AAtesttoken"
HEADERS = {"Crypto-Pay-API-Token": TOKEN}
ORDER = {"currency_type": "fiat", "fiat": "RUB", "amount": "150.00", "payload": "order-7", "expires_in": 900}
# The class Invoice of API 1.5: what one in money has before and after it is paid.
OPEN = """
    invoice_id hash currency_type fiat amount accepted_assets bot_invoice_url mini_app_invoice_url web_app_invoice_url
    status created_at allow_comments allow_anonymous expiration_date payload
"""
PAID = "paid_asset paid_amount paid_fiat_rate fee_asset fee_amount paid_usd_rate paid_at paid_anonymously"


class Shop:
    """The product's side: takes webhooks, answers with the next status, and remembers bodies and headers."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.raw: list[tuple[bytes, dict[str, str]]] = []

    @property
    def got(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body, _ in self.raw]

    async def hook(self, request: Request[Any, Any, Any]) -> Response[bytes]:
        self.raw.append((await request.body(), dict(request.headers)))
        return Response(b"", status_code=self.statuses.pop(0) if self.statuses else 200)

    def app(self) -> Litestar:
        return Litestar([post("/hook")(self.hook)], openapi_config=None, logging_config=None)


class World(msgspec.Struct):
    """A running gateway, a running shop, and a client of the gateway."""

    gateway: CryptoPay
    shop: Shop
    http: httpx.AsyncClient

    async def create(self, **fields: Any) -> str:
        answer = (await self.http.post("/api/createInvoice", json=ORDER | fields)).json()
        assert answer["ok"] is True, answer
        return str(answer["result"]["invoice_id"])

    async def info(self, invoice_id: str) -> dict[str, Any]:
        answer = (await self.http.get("/api/getInvoices", params={"invoice_ids": invoice_id})).json()
        (told,) = answer["result"]["items"]
        return dict(told)


@asynccontextmanager
async def started(shop: Shop | None = None, **options: Any) -> AsyncIterator[World]:
    gateway = CryptoPay(TOKEN, **({"minute_ms": 0.01} | options))
    shop = shop or Shop()
    async with (
        running(shop.app()) as shop_url,
        running(gateway.app()) as url,
        httpx.AsyncClient(base_url=url, headers=HEADERS, trust_env=False) as http,
    ):
        gateway.callback_url = f"{shop_url}/hook"
        yield World(gateway, shop, http)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with started() as it:
        yield it


def hashed(body: bytes, token: str = TOKEN) -> str:
    """The signature as it is documented, not as the simulator makes it."""
    return hmac.digest(hashlib.sha256(token.encode()).digest(), body, "sha256").hex()


# aiosend knows Crypto Pay from its documentation, and nothing of us. Its type stubs do not say what its methods take.
OLD_SSL = pytest.mark.filterwarnings("ignore:ssl_context is deprecated:DeprecationWarning")


@pytest.fixture
async def client(world: World, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("http_proxy", "HTTP_PROXY"):  # no business between two loopback addresses
        monkeypatch.delenv(name, raising=False)
    network = Network("sandbox", f"{str(world.http.base_url).rstrip('/')}/api/{{method}}")
    return await asyncio.to_thread(aiosend.CryptoPay, TOKEN, network)  # it asks who it is, and waits


@OLD_SSL
async def test_a_public_client_makes_finds_and_is_told_of_an_invoice(world: World, client: Any) -> None:
    url = "https://shop.example/paid"
    made = await client.create_invoice(
        149.9, currency_type="fiat", fiat="RUB", payload="order-7", expires_in=900, accepted_assets=["USDT", "TON"],
        paid_btn_name="callback", paid_btn_url=url, allow_comments=False, description="Two keys",
    )  # fmt: skip
    assert (made.amount, made.fiat, made.asset, made.status, made.payload) == (149.9, "RUB", None, "active", "order-7")
    assert (made.accepted_assets, made.paid_btn_url, made.allow_comments) == (["USDT", "TON"], url, False)
    seen: list[aiosend.types.Invoice] = []

    @client.invoice_paid()
    async def paid(invoice: aiosend.types.Invoice) -> None:
        seen.append(invoice)

    invoice_id = str(made.invoice_id)
    await world.gateway.pay(invoice_id)
    ((body, headers),) = world.shop.raw
    assert await client.feed_update(body, headers)
    (invoice,) = seen
    assert (invoice.invoice_id, invoice.status, invoice.paid_asset) == (made.invoice_id, "paid", "USDT")
    (found,) = await client.get_invoices(invoice_ids=[made.invoice_id])
    assert (found.status, found.paid_amount, found.paid_at) == ("paid", invoice.paid_amount, invoice.paid_at)
    assert await client.get_invoices(invoice_ids=[1]) == []


async def test_a_public_client_refuses_what_is_signed_wrongly(world: World, client: Any) -> None:
    invoice_id = await world.create()
    for plan in (Callbacks(signature="wrong"), Callbacks(signature="absent"), Callbacks(edit={"amount": "1"})):
        await world.gateway.send_callback(invoice_id, plan)
        assert not await client.feed_update(*world.shop.raw[-1])
    await world.gateway.send_callback(invoice_id)
    assert client._check_signature(*world.shop.raw[-1])  # what feed_update asks, before it looks for a handler


@OLD_SSL
async def test_a_public_client_understands_a_refusal(client: Any) -> None:
    with pytest.raises(APIError, match=r"400.*AMOUNT_INVALID"):
        await client.create_invoice(-1, currency_type="fiat", fiat="RUB")


# The wire.


def test_signature_matches_the_known_vector() -> None:
    body = (
        b'{"update_id":1,"update_type":"invoice_paid","request_date":"2026-01-01T00:00:00.000Z",'
        b'"payload":{"invoice_id":528890,"status":"paid","amount":"10.5"}}'
    )
    vector = "9eb82e1f8d4b3782a9bde9b4b79bfedce2058c1ddbdb64785ec453c1c9f52ca0"  # PROTOCOLS §4, SELF
    assert sign(body, TOKEN) == hashed(body) == vector


async def test_an_invoice_in_money_has_the_documented_fields_and_no_other(world: World) -> None:
    invoice_id = await world.create()
    told = await world.info(invoice_id)
    assert set(told) == set(OPEN.split())
    assert (told["amount"], told["fiat"], told["status"]) == ("150", "RUB", "active")
    base, spelt = str(world.http.base_url).rstrip("/"), told["hash"]
    assert told["bot_invoice_url"] == f"{base}/?start={spelt}"
    assert told["mini_app_invoice_url"] == f"{base}/app?startapp=invoice-{spelt}"
    created, expires = (datetime.fromisoformat(told[name]) for name in ("created_at", "expiration_date"))
    assert expires - created == timedelta(minutes=15)
    await world.gateway.pay(invoice_id)
    told = await world.info(invoice_id)
    assert set(told) == set((OPEN + PAID).split())
    assert (told["status"], told["paid_asset"], told["paid_amount"]) == ("paid", "USDT", "1.84275184")


async def test_an_invoice_in_coins_has_an_asset_and_no_fiat(world: World) -> None:
    told = await world.info(await world.create(currency_type="crypto", asset="TON", amount=1.5))
    assert (told["asset"], told["amount"], "fiat" in told, "accepted_assets" in told) == ("TON", "1.5", False, False)


@pytest.mark.parametrize("send", ["query", "form", "json", "get"])
async def test_parameters_come_in_every_documented_way(world: World, send: str) -> None:
    given = {name: str(value) for name, value in ORDER.items()}
    ways: dict[str, dict[str, Any]] = {
        "query": {"params": given}, "form": {"data": given}, "json": {"json": ORDER}, "get": {"params": given},
    }  # fmt: skip
    method = "GET" if send == "get" else "POST"
    answer = (await world.http.request(method, "/api/createInvoice", **ways[send])).json()
    assert (answer["ok"], answer["result"]["payload"]) == (True, "order-7")


@pytest.mark.parametrize(
    "bad",
    [{"amount": "0"}, {"amount": -1}, {"amount": "NaN"}, {"amount": "100,00"}, {"amount": None}, {"amount": True},
     {"currency_type": "shells"}, {"fiat": "XXX"}, {"fiat": None}, {"currency_type": "crypto"}, {"expires_in": 0},
     {"expires_in": 2_678_401}, {"description": "x" * 1025}, {"payload": "x" * 4097}, {"paid_btn_name": "callback"},
     {"paid_btn_name": "x", "paid_btn_url": "https://x"}, {"paid_btn_name": "callback", "paid_btn_url": "tg://x"}],
    ids=lambda bad: repr(bad)[:40],
)  # fmt: skip
async def test_bad_create_is_refused(world: World, bad: dict[str, Any]) -> None:
    answer = await world.http.post("/api/createInvoice", json=ORDER | bad)
    assert answer.status_code == 400
    assert answer.json()["ok"] is False
    assert answer.json()["error"]["name"]
    assert not world.gateway.invoices


async def test_without_the_token_nothing_is_told_or_done(world: World) -> None:
    invoice_id = await world.create()
    for token in ("", "12345:AAother", f"{TOKEN} x"):
        headers = {"Crypto-Pay-API-Token": token}
        for path in ("createInvoice", "getInvoices", "getMe"):
            answer = await world.http.post(f"/api/{path}", json=ORDER, headers=headers)
            assert answer.status_code == 401
            assert answer.json() == {"ok": False, "error": {"code": 401, "name": "UNAUTHORIZED"}}
    assert list(world.gateway.invoices) == [invoice_id]


async def test_invoices_are_found_by_id_status_and_page(world: World) -> None:
    first, second, third = [await world.create() for _ in range(3)]
    await world.gateway.pay(second)

    async def found(**params: Any) -> list[str]:
        items = (await world.http.get("/api/getInvoices", params=params)).json()["result"]["items"]
        return [str(item["invoice_id"]) for item in items]

    assert await found() == [first, second, third]
    assert await found(invoice_ids=f"{third},{first},7") == [third, first]
    assert await found(invoice_ids="nobody") == []
    assert await found(status="paid") == [second]
    assert await found(offset=1, count=1) == [second]
    assert (await world.http.get("/api/getInvoices", params={"count": 1001})).status_code == 400


# Webhooks.


async def test_payment_is_told_by_one_signed_webhook(world: World) -> None:
    invoice_id = await world.create()
    sent = await world.gateway.pay(invoice_id)
    assert [entry.status for entry in sent] == [200]
    ((body, headers),) = world.shop.raw
    assert headers["crypto-pay-api-signature"] == hashed(body)
    assert headers["content-type"] == "application/json"
    (update,) = world.shop.got
    assert set(update) == {"update_id", "update_type", "request_date", "payload"}
    assert (update["update_type"], update["payload"]) == ("invoice_paid", await world.info(invoice_id))
    assert "asset" not in update["payload"]


async def test_webhooks_come_seventeen_times_and_each_is_signed_anew() -> None:
    async with started(Shop(*[503] * 17)) as world:
        sent = await world.gateway.pay(await world.create())
    assert [entry.status for entry in sent] == [503] * 17
    assert all(headers["crypto-pay-api-signature"] == hashed(body) for body, headers in world.shop.raw)
    assert len({update["update_id"] for update in world.shop.got}) == 1  # not unique


async def test_200_ends_the_ladder_and_no_other_status_does() -> None:
    async with started(Shop(500, 429, 404, 302, 200)) as world:
        sent = await world.gateway.pay(await world.create())
    assert [entry.status for entry in sent] == [500, 429, 404, 302, 200]


async def test_webhooks_are_repeated_delayed_lost_and_spoilt_as_planned(world: World) -> None:
    invoice_id = await world.create()
    await world.gateway.pay(invoice_id, callbacks=Callbacks(copies=20))
    assert len(world.shop.raw) == 20
    late = world.gateway.send_callback(invoice_id, Callbacks(delay_ms=80))
    sent = await world.gateway.send_callback(invoice_id, Callbacks(drop=2, update_type="invoice_new"))
    assert [(entry.status, entry.error) for entry in sent] == [(None, "dropped"), (None, "dropped"), (200, "")]
    await late
    assert [update["update_type"] for update in world.shop.got[20:]] == ["invoice_new", "invoice_paid"]
    true = await world.info(invoice_id)
    plan = Callbacks(edit={"amount": "1", "asset": "TON"}, omit=["payload"], respell=True)
    await world.gateway.send_callback(invoice_id, plan)
    body, headers = world.shop.raw[-1]
    payload = world.shop.got[-1]["payload"]
    assert (payload["amount"], payload["asset"], "payload" in payload) == ("1", "TON", False)
    assert headers["crypto-pay-api-signature"] != hashed(body)
    assert await world.info(invoice_id) == true


async def test_a_proxy_that_spells_json_anew_breaks_the_signature_and_nothing_else(world: World) -> None:
    invoice_id = await world.create()
    for respell in (False, True):
        await world.gateway.send_callback(invoice_id, Callbacks(respell=respell))
    (body, _), (spelt, headers) = world.shop.raw
    true, again = world.shop.got
    assert body != spelt
    assert true | {"request_date": ""} == again | {"request_date": ""}
    assert headers["crypto-pay-api-signature"] != hashed(spelt)


async def test_a_gateway_that_errs_says_another_amount_came(world: World) -> None:
    invoice_id = await world.create()
    await world.gateway.pay(invoice_id, amount="149.99")
    ((body, headers),) = world.shop.raw
    assert headers["crypto-pay-api-signature"] == hashed(body)
    assert world.shop.got[0]["payload"]["amount"] == (await world.info(invoice_id))["amount"] == "149.99"


async def test_nobody_is_called_without_an_address_or_before_a_payment(world: World) -> None:
    invoice_id = await world.create()
    world.gateway.cancel(invoice_id)
    assert (await world.info(invoice_id))["status"] == "expired"
    await world.gateway.idle()
    world.gateway.callback_url = ""
    assert await world.gateway.pay(invoice_id) == []
    assert world.shop.raw == []


async def test_unpaid_invoice_expires_when_its_time_is_over() -> None:
    now = datetime(2026, 1, 10, 11, 8, 11, tzinfo=UTC)
    async with started(now=lambda: now) as world:
        invoice_id, timeless = await world.create(expires_in=60), await world.create(expires_in=None)
        now += timedelta(seconds=59)
        assert (await world.info(invoice_id))["status"] == "active"
        now += timedelta(seconds=1)
        told = await world.info(invoice_id)
        assert (told["status"], told["expiration_date"]) == ("expired", "2026-01-10T11:09:11.000Z")
        assert (await world.info(timeless))["status"] == "active"


async def test_faults_replace_hold_edit_and_swap_answers(world: World) -> None:
    invoice_id, other = await world.create(), await world.create(amount=2)
    world.gateway.faults.append(ApiFault(on="create", status=502, after=True))
    assert (await world.http.post("/api/createInvoice", json=ORDER)).status_code == 502
    assert len(world.gateway.invoices) == 3
    world.gateway.faults.append(ApiFault(on="info", instead=other))
    assert (await world.info(invoice_id))["invoice_id"] == int(other)
    world.gateway.faults.append(ApiFault(on="info", edit={"fiat": "USD"}))
    assert (await world.info(invoice_id))["fiat"] == "USD"
    world.gateway.faults.append(ApiFault(on="create", hold_ms=30_000))
    with pytest.raises(httpx.ReadTimeout):
        await world.http.post("/api/createInvoice", json=ORDER, timeout=0.1)
    assert len(world.gateway.invoices) == 4
    assert world.gateway.faults == []


async def test_control_surface_over_http_tells_no_token(world: World) -> None:
    invoice_id, hook = await world.create(), world.gateway.callback_url
    assert (await world.http.put("/sandbox/cabinet", json={"callback_url": hook})).json() == {"callback_url": hook}
    await world.http.put("/sandbox/callbacks", json={"copies": 3})
    paid = (await world.http.post("/sandbox/pay", json={"id": invoice_id, "wait": True})).json()
    assert paid["invoice"]["status"] == "paid"
    assert [entry["status"] for entry in paid["callbacks"]] == [200] * 3
    await world.http.delete("/sandbox/callbacks")
    again = (await world.http.post(f"/sandbox/callbacks/{invoice_id}", json={"edit": {"amount": "1"}})).json()
    assert [entry["given"]["payload"]["amount"] for entry in again] == ["1"]
    assert [one["invoice_id"] for one in (await world.http.get("/sandbox/invoices")).json()] == [int(invoice_id)]
    for path, body in [("pay", {"id": "nobody"}), ("pay", {}), ("faults", {"colour": 1}), ("callbacks/nobody", {})]:
        assert (await world.http.post(f"/sandbox/{path}", json=body)).status_code == 400
    raw = (await world.http.get("/sandbox/log")).text
    assert TOKEN not in raw
    assert [entry["name"] for entry in json.loads(raw)] == ["create", hook, hook, hook, hook]


async def test_pay_page_pays_and_leads_back_to_the_shop(world: World) -> None:
    back = {"paid_btn_name": "callback", "paid_btn_url": "https://shop.example/paid"}
    invoice_id, other = await world.create(amount="1490.50", **back), await world.create()
    told = await world.info(invoice_id)
    for name in ("bot_invoice_url", "mini_app_invoice_url", "web_app_invoice_url"):
        page = await world.http.get(told[name])
        assert "1\u00a0490.50\u00a0₽" in page.text
        assert re.findall(r'name="how" value="(\w+)"', page.text) == ["pay", "cancel"]  # the whole or nothing
    pressed = await world.http.post(f"/pay/{invoice_id}", data={"how": "pay"})
    assert (pressed.status_code, pressed.headers["location"]) == (303, "https://shop.example/paid")
    await world.gateway.idle()
    assert [update["payload"]["status"] for update in world.shop.got] == ["paid"]
    page = await world.http.get(told["mini_app_invoice_url"])
    assert "✓ Paid" in page.text
    assert "https://shop.example/paid" in page.text
    await world.http.post(f"/pay/{invoice_id}", data={"how": "cancel"})
    assert (await world.info(invoice_id))["status"] == "paid"
    await world.http.post(f"/pay/{other}", data={"how": "less"})
    assert (await world.info(other))["status"] == "active"
    await world.http.post(f"/pay/{other}", data={"how": "cancel"})
    assert (await world.info(other))["status"] == "expired"
    assert (await world.http.get("/invoices/nobody")).status_code == 404
    assert (await world.http.get("/app")).status_code == 404
    assert (await world.http.post("/pay/nobody", data={"how": "pay"})).status_code == 404


def test_make_knows_its_secrets() -> None:
    assert isinstance(make("cryptopay", token="a"), CryptoPay)
    with pytest.raises(ValueError, match="empty"):
        make("cryptopay", token="")
    with pytest.raises(Refused):
        CryptoPay("a").invoice("1")
