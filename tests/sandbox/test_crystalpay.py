"""The CrystalPay simulator speaks the documented protocol, and misbehaves exactly as ordered."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest
from litestar import Litestar, Request, Response, post

from app.sandbox.crystalpay import ApiFault, CrystalPay
from app.sandbox.crystalpay_wire import Callbacks, Payment, Refused, sign
from app.sandbox.serve import make, running

SALT = "testsalt"
AUTH = {"auth_login": "shop", "auth_secret": "s3cret"}
ORDER = {**AUTH, "amount": 100, "type": "purchase", "lifetime": 15}
# Field by field as docs.crystalpay.io "poluchenie-informacii-ob-invoise" shows them.
DOCUMENTED = """
    error errors id url state type subtract_from method required_method rub_amount currency amount amount_currency
    initial_amount remaining_amount balance_amount commission_amount description redirect_url callback_url extra
    created_at expired_at final_at
"""


class Shop:
    """The product's side: takes callbacks, answers with the next status, and remembers them with their times."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.got: list[dict[str, Any]] = []
        self.at: list[float] = []
        self.called = asyncio.Event()

    async def hook(self, request: Request[Any, Any, Any]) -> Response[bytes]:
        self.got.append(msgspec.json.decode(await request.body()))
        self.at.append(time.monotonic())
        self.called.set()
        return Response(b"", status_code=self.statuses.pop(0) if self.statuses else 200)

    def app(self) -> Litestar:
        return Litestar([post("/hook")(self.hook)], openapi_config=None, logging_config=None)


class World(msgspec.Struct):
    """A running gateway, a running shop, and a client of the gateway."""

    gateway: CrystalPay
    shop: Shop
    http: httpx.AsyncClient
    hook: str

    async def create(self, **fields: Any) -> str:
        given = ORDER | {"callback_url": self.hook} | fields
        answer = (await self.http.post("/v3/invoice/create/", json=given)).json()
        assert answer["error"] is False, answer
        return str(answer["id"])

    async def info(self, invoice_id: str) -> dict[str, Any]:
        told: dict[str, Any] = (await self.http.post("/v3/invoice/info/", json=AUTH | {"id": invoice_id})).json()
        return told


@asynccontextmanager
async def started(shop: Shop | None = None, **options: Any) -> AsyncIterator[World]:
    gateway = CrystalPay("shop", "s3cret", SALT, **({"minute_ms": 1.0} | options))
    shop = shop or Shop()
    async with (
        running(shop.app()) as shop_url,
        running(gateway.app()) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as http,
    ):
        yield World(gateway, shop, http, f"{shop_url}/hook")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with started() as it:
        yield it


def test_signature_matches_the_known_vector() -> None:
    assert sign("123456789_abcdefghij", "testsalt") == "3bd330693b4b6bf16a84ac096605f75eab66b18f"


async def test_create_answers_in_the_documented_shape(world: World) -> None:
    raw = await world.http.post("/v3/invoice/create/", json=ORDER)
    answer = raw.json()
    assert raw.status_code == 200
    assert answer["error"] is False
    assert answer["errors"] == []
    assert re.fullmatch(r"\d{9}_[A-Za-z]{10}", answer["id"])
    assert answer["url"] == f"{world.http.base_url}/?i={answer['id']}".replace("//?", "/?")
    assert answer["type"] == "purchase"
    assert answer["rub_amount"] == "100"


async def test_info_has_every_documented_field_and_no_other(world: World) -> None:
    told = await world.info(await world.create(currency="USD", type="topup", extra="order-7", description="Two keys"))
    assert list(told) == DOCUMENTED.split()
    assert told["rub_amount"] == "8146"
    assert (told["currency"], told["amount_currency"]) == ("USD", "USD")
    assert {told[name] for name in ("amount", "initial_amount", "remaining_amount", "balance_amount")} == {"100"}
    assert (told["state"], told["method"], told["final_at"]) == ("notpayed", None, None)
    assert (told["extra"], told["description"]) == ("order-7", "Two keys")
    created, expired = (
        datetime.strptime(told[name] + "Z", "%Y-%m-%d %H:%M:%S%z") for name in ("created_at", "expired_at")
    )
    assert expired - created == timedelta(minutes=15)


@pytest.mark.parametrize(
    ("given", "told"),
    [(1490.5, "1490.5"), ("1490.50", "1490.5"), (100, "100"), ("100.00", "100"), (0.1, "0.1"), (1000000, "1000000")],
)
async def test_amount_comes_back_exact(world: World, given: float | str, told: str) -> None:
    assert (await world.info(await world.create(amount=given)))["amount"] == told


@pytest.mark.parametrize(
    "bad",
    [
        {"auth_secret": "wrong"},
        {"auth_login": "wrong"},
        {"auth_secret": None},
        {"auth_login": "é"},
        {"amount": 0},
        {"amount": -1},
        {"amount": "NaN"},
        {"amount": "Infinity"},
        {"amount": "100,00"},
        {"amount": True},
        {"amount": None},
        {"type": "gift"},
        {"lifetime": 0},
        {"lifetime": "soon"},
        {"currency": "XXX"},
        {"description": "x" * 65},
        {"redirect_url": "javascript:alert(1)"},
        {"callback_url": "/hook"},
    ],
)
async def test_bad_create_is_http_200_with_errors(world: World, bad: dict[str, Any]) -> None:
    answer = await world.http.post("/v3/invoice/create/", json=ORDER | bad)
    assert answer.status_code == 200
    assert answer.json()["error"] is True
    assert answer.json()["errors"]
    assert not world.gateway.invoices


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"<html>"])
async def test_body_that_is_no_object_is_refused(world: World, body: bytes) -> None:
    for path in ("/v3/invoice/create/", "/v3/invoice/info/"):
        answer = await world.http.post(path, content=body)
        assert answer.status_code == 200
        assert answer.json()["error"] is True


async def test_unknown_invoice_and_wrong_auth_are_refused_by_info(world: World) -> None:
    assert (await world.info("123456789_abcdefghij"))["error"] is True
    invoice_id = await world.create()
    answer = await world.http.post("/v3/invoice/info/", json=AUTH | {"auth_secret": "no", "id": invoice_id})
    assert answer.json()["error"] is True


async def test_get_is_not_allowed(world: World) -> None:
    assert (await world.http.get("/v3/invoice/create/")).status_code == 405


async def test_payment_is_told_by_info_and_by_one_signed_callback(world: World) -> None:
    invoice_id = await world.create(amount="149.90", extra="order-7")
    sent = await world.gateway.pay(invoice_id)
    told = await world.info(invoice_id)
    assert (told["state"], told["remaining_amount"], told["method"]) == ("payed", "0", "TEST")
    assert told["balance_amount"] == "149.9"
    assert told["final_at"] is not None
    assert [entry.status for entry in sent] == [200]
    (got,) = world.shop.got
    assert got.pop("signature") == sign(invoice_id, SALT)
    assert got == {name: value for name, value in told.items() if name not in ("error", "errors")}


async def test_invoice_without_callback_url_calls_nobody(world: World) -> None:
    assert await world.gateway.pay(await world.create(callback_url=None)) == []


async def test_ladder_waits_n_minutes_after_n_attempts_and_ends_at_ten() -> None:
    shop = Shop(*[503] * 10)
    async with started(shop, minute_ms=10.0) as world:
        sent = await world.gateway.pay(await world.create())
    assert [entry.status for entry in sent] == [503] * 10
    gaps = [after - before for before, after in zip(shop.at, shop.at[1:], strict=False)]
    for attempts, gap in enumerate(gaps, start=1):
        assert gap >= attempts * 0.010
    assert sum(gaps[-3:]) > sum(gaps[:3])


@pytest.mark.parametrize("accepting", [200, 429])
async def test_200_and_429_end_the_ladder(accepting: int) -> None:
    shop = Shop(500, 404, 202, accepting)
    async with started(shop) as world:
        sent = await world.gateway.pay(await world.create())
    assert [entry.status for entry in sent] == [500, 404, 202, accepting]


async def test_unreachable_shop_is_retried_and_told(world: World) -> None:
    sent = await world.gateway.pay(await world.create(callback_url="http://127.0.0.1:1/hook"))
    assert len(sent) == 10
    assert all(entry.status is None and "ConnectError" in entry.error for entry in sent)


async def test_copies_go_out_at_once_and_all_alike(world: World) -> None:
    await world.gateway.pay(await world.create(), Payment(callbacks=Callbacks(copies=50)))
    assert len(world.shop.got) == 50
    assert all(got == world.shop.got[0] for got in world.shop.got)


async def test_dropped_attempts_never_arrive_and_the_ladder_goes_on(world: World) -> None:
    world.gateway.callbacks = Callbacks(drop=2)
    sent = await world.gateway.pay(await world.create())
    assert [(entry.status, entry.error) for entry in sent] == [(None, "dropped"), (None, "dropped"), (200, "")]
    world.gateway.callbacks = Callbacks(drop=10)
    assert len(await world.gateway.pay(await world.create())) == 10
    assert len(world.shop.got) == 1


async def test_delayed_callback_comes_later_and_info_knows_before(world: World) -> None:
    invoice_id = await world.create()
    delivery = world.gateway.pay(invoice_id, Payment(callbacks=Callbacks(delay_ms=80)))
    assert (await world.info(invoice_id))["state"] == "payed"
    assert world.shop.got == []
    await delivery
    assert len(world.shop.got) == 1


async def test_signature_can_be_wrong_or_absent(world: World) -> None:
    invoice_id = await world.create()
    await world.gateway.send_callback(invoice_id, Callbacks(signature="wrong"))
    await world.gateway.send_callback(invoice_id, Callbacks(signature="absent"))
    await world.gateway.send_callback(invoice_id, Callbacks(edit={"signature": None}))
    wrong, absent, null = world.shop.got
    assert re.fullmatch("[0-9a-f]{40}", wrong["signature"])
    assert wrong["signature"] != sign(invoice_id, SALT)
    assert "signature" not in absent
    assert null["signature"] is None


async def test_edited_callback_keeps_its_valid_signature(world: World) -> None:
    invoice_id = await world.create()
    forged = Callbacks(edit={"state": "payed", "amount": "1", "currency": "USD"}, omit=["extra"])
    await world.gateway.send_callback(invoice_id, forged)
    (got,) = world.shop.got
    assert (got["state"], got["amount"], got["currency"]) == ("payed", "1", "USD")
    assert "extra" not in got
    assert got["signature"] == sign(invoice_id, SALT)
    assert (await world.info(invoice_id))["state"] == "notpayed"


async def test_underpayment_is_wrongamount_until_the_rest_comes(world: World) -> None:
    invoice_id = await world.create(amount=100)
    await world.gateway.pay(invoice_id, Payment(amount="99.99"))
    told = await world.info(invoice_id)
    assert (told["state"], told["remaining_amount"], told["balance_amount"]) == ("wrongamount", "0.01", "99.99")
    assert told["final_at"] is None
    await world.gateway.pay(invoice_id)
    told = await world.info(invoice_id)
    assert (told["state"], told["remaining_amount"], told["balance_amount"]) == ("payed", "0", "100")


async def test_payed_with_something_remaining(world: World) -> None:
    invoice_id = await world.create(amount=100)
    await world.gateway.pay(invoice_id, Payment(amount="60", state="payed"))
    told = await world.info(invoice_id)
    assert (told["state"], told["remaining_amount"]) == ("payed", "40")


@pytest.mark.parametrize(("state", "remaining", "final"), [("processing", "0", False), ("failed", "100", True)])
async def test_gateway_may_say_any_state(world: World, state: Any, remaining: str, final: bool) -> None:
    invoice_id = await world.create(amount=100)
    await world.gateway.pay(invoice_id, Payment(state=state))
    told = await world.info(invoice_id)
    assert (told["state"], told["remaining_amount"], told["final_at"] is not None) == (state, remaining, final)
    await world.gateway.pay(invoice_id)
    told = await world.info(invoice_id)
    assert (told["state"], told["remaining_amount"], told["balance_amount"]) == ("payed", "0", "100")


async def test_amount_and_currency_of_the_invoice_can_change_with_payment(world: World) -> None:
    invoice_id = await world.create(amount=100)
    await world.gateway.pay(invoice_id, Payment(edit={"amount": "99.99", "currency": "KZT"}))
    told = await world.info(invoice_id)
    assert (told["state"], told["amount"], told["currency"]) == ("payed", "99.99", "KZT")
    with pytest.raises(Refused):
        world.gateway.pay(invoice_id, Payment(edit={"colour": "red"}))


async def test_unpaid_invoice_fails_when_its_time_is_over() -> None:
    now = datetime(2026, 1, 10, 11, 8, 11, tzinfo=UTC)
    async with started(now=lambda: now) as world:
        invoice_id, part = await world.create(lifetime=15), await world.create(lifetime=15)
        await world.gateway.pay(part, Payment(amount="1"))
        now += timedelta(minutes=14, seconds=59)
        assert (await world.info(invoice_id))["state"] == "notpayed"
        now += timedelta(seconds=1)
        told = await world.info(invoice_id)
        assert (told["state"], told["final_at"]) == ("failed", "2026-01-10 11:23:11")
        assert (await world.info(part))["state"] == "wrongamount"
        await world.gateway.pay(invoice_id)
        assert (await world.info(invoice_id))["state"] == "payed"


async def test_cancel_fails_the_invoice_and_says_so(world: World) -> None:
    await world.gateway.cancel(await world.create())
    assert [got["state"] for got in world.shop.got] == ["failed"]


async def test_ordered_500_hits_so_many_calls_and_does_no_work(world: World) -> None:
    world.gateway.faults.append(ApiFault(on="create", status=500, times=2))
    for _ in range(2):
        assert (await world.http.post("/v3/invoice/create/", json=ORDER)).status_code == 500
    assert not world.gateway.invoices
    await world.create()
    assert world.gateway.faults == []


async def test_create_may_succeed_and_say_it_failed(world: World) -> None:
    world.gateway.faults.append(ApiFault(on="create", status=502, after=True))
    assert (await world.http.post("/v3/invoice/create/", json=ORDER)).status_code == 502
    assert len(world.gateway.invoices) == 1


async def test_html_instead_of_json(world: World) -> None:
    invoice_id = await world.create()
    world.gateway.faults.append(ApiFault(on="info", body="<html>Attention Required!</html>", content_type="text/html"))
    answer = await world.http.post("/v3/invoice/info/", json=AUTH | {"id": invoice_id})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.text.startswith("<html>")


async def test_hanging_caller_gives_up_and_the_invoice_is_there(world: World) -> None:
    world.gateway.faults.append(ApiFault(on="create", hold_ms=30_000))
    with pytest.raises(httpx.ReadTimeout):
        await world.http.post("/v3/invoice/create/", json=ORDER, timeout=0.1)
    assert len(world.gateway.invoices) == 1


async def test_slow_answer_is_slow_and_right(world: World) -> None:
    invoice_id = await world.create()
    world.gateway.faults.append(ApiFault(on="info", wait_ms=50))
    before = time.monotonic()
    assert (await world.info(invoice_id))["id"] == invoice_id
    assert time.monotonic() - before >= 0.05


async def test_info_tells_about_another_invoice(world: World) -> None:
    asked, other = await world.create(amount=1), await world.create(amount=2)
    world.gateway.faults.append(ApiFault(on="info", id=asked, instead=other))
    assert (await world.info(other))["id"] == other
    told = await world.info(asked)
    assert (told["id"], told["amount"]) == (other, "2")
    assert (await world.info(asked))["id"] == asked


async def test_answers_can_be_edited(world: World) -> None:
    world.gateway.faults.append(ApiFault(on="create", edit={"id": "1_other"}))
    assert await world.create() == "1_other"
    invoice_id = await world.create()
    world.gateway.faults.append(ApiFault(on="info", times=None, edit={"currency": "USD", "remaining_amount": "5"}))
    for _ in range(3):
        told = await world.info(invoice_id)
        assert (told["currency"], told["remaining_amount"]) == ("USD", "5")


async def test_control_surface_over_http(world: World) -> None:
    invoice_id = await world.create()
    assert (await world.http.post("/sandbox/faults", json={"on": "info", "status": 500})).status_code == 200
    answer = await world.http.post("/v3/invoice/info/", json=AUTH | {"id": invoice_id})
    assert answer.status_code == 500
    await world.http.post("/sandbox/faults", json={"on": "info", "status": 500})
    assert (await world.http.delete("/sandbox/faults")).status_code == 204
    await world.http.put("/sandbox/callbacks", json={"copies": 3})
    paid = (await world.http.post("/sandbox/pay", json={"id": invoice_id, "amount": "40", "wait": True})).json()
    assert paid["invoice"]["state"] == "wrongamount"
    assert [entry["status"] for entry in paid["callbacks"]] == [200] * 3
    await world.http.delete("/sandbox/callbacks")
    again = (await world.http.post(f"/sandbox/callbacks/{invoice_id}", json={"edit": {"state": "payed"}})).json()
    assert [entry["given"]["state"] for entry in again] == ["payed"]
    assert [invoice["id"] for invoice in (await world.http.get("/sandbox/invoices")).json()] == [invoice_id]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("pay", {"id": "nobody"}),
        ("pay", {}),
        ("faults", {"on": "info", "colour": 1}),
        ("pay", {"id": "x", "state": "?"}),
    ],
)
async def test_wrong_order_on_the_control_surface_is_400(world: World, path: str, body: dict[str, Any]) -> None:
    assert (await world.http.post(f"/sandbox/{path}", json=body)).status_code == 400


async def test_log_tells_requests_and_callbacks_without_the_secret(world: World) -> None:
    invoice_id = await world.create()
    await world.info(invoice_id)
    await world.gateway.pay(invoice_id)
    raw = (await world.http.get("/sandbox/log")).text
    assert "s3cret" not in raw
    entries = msgspec.json.decode(raw)
    assert [(e["kind"], e["name"], e["status"]) for e in entries] == [
        ("request", "create", 200),
        ("request", "info", 200),
        ("callback", world.hook, 200),
    ]
    only = (await world.http.get("/sandbox/log", params={"kind": "callback"})).json()
    assert [e["given"]["id"] for e in only] == [invoice_id]
    await world.http.delete("/sandbox/log")
    assert not world.gateway.log


async def test_log_is_bounded() -> None:
    async with started(keep=5) as world:
        for _ in range(8):
            await world.create()
        assert len(world.gateway.log) == 5


async def test_pay_page_shows_what_is_owed(world: World) -> None:
    invoice_id = await world.create(amount="1490.5", description='<b>"Key" & more</b>')
    page = await world.http.get(f"/?i={invoice_id}")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "1\u00a0490.50\u00a0₽" in page.text
    assert "&lt;b&gt;&quot;Key&quot; &amp; more&lt;/b&gt;" in page.text
    assert "14:5" in page.text or "15:00" in page.text
    assert re.findall(r'name="how" value="(\w+)"', page.text) == ["pay", "less", "cancel"]


async def test_pay_button_pays_and_leads_back_to_the_shop(world: World) -> None:
    invoice_id = await world.create(redirect_url="https://shop.example/paid?order=7")
    pressed = await world.http.post(f"/pay/{invoice_id}", data={"how": "pay"})
    assert (pressed.status_code, pressed.headers["location"]) == (303, "https://shop.example/paid?order=7")
    await world.gateway.idle()
    assert [got["state"] for got in world.shop.got] == ["payed"]
    page = (await world.http.get(f"/?i={invoice_id}")).text
    assert "✓ Paid" in page
    assert "https://shop.example/paid?order=7" in page
    await world.http.post(f"/pay/{invoice_id}", data={"how": "cancel"})
    assert (await world.info(invoice_id))["state"] == "payed"


async def test_pay_less_and_cancel_buttons_stay_on_the_page(world: World) -> None:
    invoice_id = await world.create(amount=100, redirect_url="https://shop.example/")
    pressed = await world.http.post(f"/pay/{invoice_id}", data={"how": "less"})
    assert (pressed.status_code, pressed.headers["location"]) == (303, f"/?i={invoice_id}")
    assert "Paid in part: 50\u00a0₽ still to pay" in (await world.http.get(f"/?i={invoice_id}")).text
    await world.http.post(f"/pay/{invoice_id}", data={"how": "cancel"})
    assert (await world.info(invoice_id))["state"] == "failed"
    assert "closed" in (await world.http.get(f"/?i={invoice_id}")).text


async def test_unknown_invoice_has_no_page(world: World) -> None:
    assert (await world.http.get("/?i=nobody")).status_code == 404
    assert (await world.http.get("/")).status_code == 404
    assert (await world.http.post("/pay/nobody", data={"how": "pay"})).status_code == 404


async def test_public_url_leads_buyers_to_the_page() -> None:
    async with started(public_url="https://pay.example/") as world:
        answer = (await world.http.post("/v3/invoice/create/", json=ORDER)).json()
        assert answer["url"] == f"https://pay.example/?i={answer['id']}"


async def test_shutdown_ends_deliveries_under_way() -> None:
    async with started(Shop(*[503] * 10), minute_ms=60_000) as world:
        delivery = world.gateway.pay(await world.create())
        await asyncio.wait_for(world.shop.called.wait(), 5)
    assert delivery.cancelled()


async def test_app_that_fails_to_start_is_an_error() -> None:
    async def broken(app: Litestar) -> None:
        raise ValueError("no")

    with pytest.raises(RuntimeError):
        async with running(Litestar([], on_startup=[broken], openapi_config=None, logging_config=None)):
            pass


def test_make_knows_its_names_and_secrets() -> None:
    assert isinstance(make("crystalpay", login="a", secret="b", salt="c"), CrystalPay)
    with pytest.raises(ValueError, match="unknown simulator 'paypal'"):
        make("paypal")
    with pytest.raises(TypeError):
        make("crystalpay", token="1:a")
    with pytest.raises(ValueError, match="empty"):
        make("crystalpay", login="a", secret="b", salt="")
