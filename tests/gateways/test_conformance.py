"""What every gateway must do, over real HTTP against its simulator: the same tests for each that app/gateways has.

`F12` is number 12 of FAILURES §4. A new gateway is tested here once tests/gateways/drivers has its driver.
"""

import asyncio
import os
import pkgutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import msgspec
import pytest
import pytest_asyncio

from app import gateways
from app.base.money import Money
from app.errors import ProviderDown
from app.flows.poll import poll
from app.gateways import registry
from app.gateways.base import RefundRefused
from app.infra.embedded import Servers
from tests.flows.test_money import balance, lapse, someone
from tests.gateways import drivers
from tests.gateways.driver import Driver, Sent
from tests.web.test_hooks import later
from tests.web.test_shop import own_world
from tests.world import Buyer, World

NAMES = sorted(registry.known())
SIGNED = [name for name in NAMES if registry.known()[name].traits.signs_amount]
REFUNDING = [name for name in NAMES if registry.known()[name].traits.refunds]
PRICE = 10_000  # kopecks
in_module = pytest.mark.asyncio(loop_scope="module")
each = pytest.mark.parametrize("name", NAMES)


class Market:
    """A shop with every gateway there is, and the outside of each."""

    def __init__(self, world: World, outside: dict[str, Driver]) -> None:
        self.world, self.outside = world, outside

    async def placed(self, name: str, units: int = 1) -> tuple[Buyer, str, str, int]:
        """A pending order over 100.00 with its link: buyer, order, invoice, product."""
        product = await self.world.product(*(f"KEY-{uuid4()}" for _ in range(units)))
        buyer = await someone(self.world)
        answer = await buyer.order((product, 1), provider=name)
        assert answer.status_code == 201, answer.text
        order = str(answer.json()["order"]["id"])
        invoice = "SELECT invoice_id FROM payments WHERE order_id = $1 AND status = 'open'"
        return buyer, order, str(await self.world.scalar(invoice, UUID(order))), product

    async def post(self, name: str, sent: Sent, **more: str) -> httpx.Response:
        headers = [(k.encode(), v.encode()) for k, v in (sent[1] | more).items()]
        return await self.world.http.post(f"/api/webhook/payment/{name}", content=sent[0], headers=headers)

    async def rows(self) -> tuple[int, ...]:
        """What a refused callback must leave as it was."""
        tables = ("inbox", "outbox", "postings", "balances", "payments")
        return tuple([await self.world.scalar(f"SELECT count(*) FROM {table}") for table in tables])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def market(servers: Servers, template: str) -> AsyncIterator[Market]:
    async with AsyncExitStack() as stack:
        outside: dict[str, Driver] = {}
        for found in pkgutil.iter_modules(drivers.__path__):
            outside[found.name] = import_module(f"{drivers.__name__}.{found.name}").Driver()
        given = {name: await driver.settings(stack) for name, driver in outside.items()}
        world = await stack.enter_async_context(
            own_world(servers, template, "conformance", 6, gateways=given, trusted_proxies="127.0.0.1/32",
                      gateway_timeout_ms=2000, log_level="info")
        )  # fmt: skip
        for name, driver in outside.items():
            driver.listen(f"{world.http.base_url}/api/webhook/payment/{name}")
        yield Market(world, outside)


@each
def test_a_gateway_is_two_files_and_a_driver(name: str) -> None:
    kind = registry.known()[name]
    folder = Path(gateways.__path__[0]) / name
    assert {path.name for path in folder.glob("*.py")} == {"__init__.py", "gateway.py", "wire.py"}
    assert kind.name == name
    driver = import_module(f"{drivers.__name__}.{name}").Driver()
    assert driver.currency in kind.traits.currencies
    assert set(driver.config) == set(registry.required(kind))
    assert kind.traits.retries or kind.traits.polls_per_minute, "money whose only callback is lost would be lost"


@in_module
@each
async def test_without_its_secrets_a_gateway_is_not_here(market: Market, name: str) -> None:
    given = market.world.shop.deps.settings.gateways
    for field in market.outside[name].config:
        lacking = {**given, name: {**given[name], field: ""}}
        changed = registry.build(
            msgspec.structs.replace(market.world.shop.deps.settings, gateways=lacking), httpx.AsyncClient()
        )
        assert set(changed) == set(NAMES) - {name}


@in_module
@each
async def test_a_purchase_from_link_to_goods(market: Market, name: str) -> None:
    buyer, order, invoice, _ = await market.placed(name)
    link = (await buyer.get(f"/api/orders/{order}")).json()["payment"]
    assert (link["provider"], link["status"], link["amount_minor"]) == (name, "open", PRICE)
    assert link["url"].startswith("http")
    await market.outside[name].pay(invoice)
    status = await buyer.status(order)
    assert status == ("paid" if name in SIGNED else "pending")  # what is signed is settled within the request
    await market.world.drain()
    assert (await buyer.status(order), len(await buyer.goods(order)), await balance(buyer)) == ("delivered", 1, 0)
    kept = "SELECT count(*) FROM inbox WHERE order_id = $1 AND state = 'settled' AND length(body) > 10"
    assert await market.world.scalar(kept, UUID(order)) == 1


@in_module
@each
async def test_f19_f20_f22_repeats_have_one_effect(market: Market, name: str) -> None:
    buyer, order, invoice, _ = await market.placed(name)
    driver = market.outside[name]
    await driver.pay(invoice)
    sent = driver.genuine(invoice)
    answers = await asyncio.gather(*(market.post(name, sent) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    await market.world.drain()
    assert {(await market.post(name, sent)).status_code for _ in range(3)} == {200}
    await later(market.world)
    assert (await buyer.status(order), len(await buyer.goods(order)), await balance(buyer)) == ("delivered", 1, 0)
    sold = "SELECT count(*) FROM postings WHERE order_id = $1"
    assert await market.world.scalar(sold, UUID(order)) == 1


@in_module
@each
async def test_what_is_forged_is_refused_and_leaves_nothing(
    market: Market, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    buyer, order, invoice, _ = await market.placed(name)
    driver, before = market.outside[name], await market.rows()
    for case, (kind, body, headers) in driver.forged(invoice).items():
        answer = await market.post(name, (body, headers))
        assert answer.status_code == kind.status, f"{case}: {answer.status_code} {answer.text}"
        assert await market.rows() == before, case
        assert not any(secret in answer.text for secret in secrets(driver)), case
    assert await buyer.status(order) == "pending"
    said = "".join(capfd.readouterr())
    assert not any(secret in said for secret in secrets(driver))


def secrets(driver: Driver) -> list[str]:
    """What nobody may read; a shop's own number at the gateway is no secret."""
    return [value for field, value in driver.config.items() if field not in ("login", "shop_id", "merchant_id")]


@in_module
@each
async def test_f46_another_gateways_callback_is_refused(market: Market, name: str) -> None:
    for other in NAMES:
        if other != name:
            _, _, invoice, _ = await market.placed(other)
            before = await market.rows()
            answer = await market.post(name, market.outside[other].genuine(invoice))
            assert answer.status_code in (400, 401, 415), (other, answer.text)
            assert await market.rows() == before, other


@in_module
@each
async def test_f10_f48_f49_f50_f51_transport(market: Market, name: str) -> None:
    _, _, invoice, _ = await market.placed(name)
    sent, before = market.outside[name].genuine(invoice), await market.rows()
    path, media = f"/api/webhook/payment/{name}", market.world.shop.gateways[name].traits.media
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        assert (await market.world.http.request(method, path)).status_code == 405
    other = "application/json" if media != "application/json" else "application/x-www-form-urlencoded"
    for changed in (
        {"content-type": other},
        {"content-type": f"{media}; charset=utf-16"},
        {"content-encoding": "gzip"},
    ):
        assert (await market.post(name, sent, **changed)).status_code == 415, changed
    assert (await market.post(name, (b"x" * (1024 * 1024 + 1), sent[1]))).status_code == 413
    for body in (b"", b"{", b"\xff\xfe", os.urandom(20_000)):
        assert (await market.post(name, (body, sent[1]))).status_code in (400, 401), body[:10]
    assert await market.rows() == before


@in_module
@each
async def test_f14_f15_f16_where_a_callback_comes_from(market: Market, name: str) -> None:
    driver = market.outside[name]
    if not driver.stranger:
        return  # it proves itself by its signature
    _, _, invoice, _ = await market.placed(name)
    sent, before = driver.genuine(invoice, "other"), await market.rows()
    for hops in (
        driver.stranger,
        f"127.0.0.1, {driver.stranger}",
        f"::ffff:{driver.stranger}",
        f"{driver.stranger}:443",
    ):
        assert (await market.post(name, sent, **{"x-forwarded-for": hops})).status_code == 401, hops
    assert await market.rows() == before
    assert (await market.post(name, sent, **{"x-forwarded-for": "::ffff:127.0.0.1"})).status_code == 200


@in_module
@each
@pytest.mark.parametrize("changes", [{}, {"amount": "0.01"}, {"amount": "100000.00"}, {"currency": "USD"}], ids=repr)
async def test_f12_f13_a_callback_that_says_more_than_is_true_grants_nothing(
    market: Market, name: str, changes: dict[str, str]
) -> None:
    """Nobody has paid: a signature that does not prove the money is worth a question to the gateway and no more."""
    buyer, order, invoice, _ = await market.placed(name)
    answer = await market.post(name, market.outside[name].edited(invoice, **changes))
    assert answer.status_code in ((400, 401) if name in SIGNED else (200,)), answer.text
    await later(market.world)
    assert (await buyer.status(order), await balance(buyer)) == ("pending", 0)


@in_module
@each
async def test_f31_f32_too_little_and_too_much(market: Market, name: str) -> None:
    buyer, order, invoice, _ = await market.placed(name)
    await market.outside[name].pay(invoice, PRICE - 1)
    await later(market.world)
    assert (await buyer.status(order), await balance(buyer)) == ("pending", PRICE - 1)
    buyer, order, invoice, _ = await market.placed(name)
    await market.outside[name].pay(invoice, PRICE + 1)
    await later(market.world)
    assert (await buyer.status(order), await balance(buyer), len(await buyer.goods(order))) == ("delivered", 1, 1)


@in_module
@each
async def test_f30_a_late_payment_gets_goods_or_credit(market: Market, name: str) -> None:
    for gone in (False, True):
        buyer, order, invoice, product = await market.placed(name)
        await lapse(market.world, order)
        if gone:
            assert (await (await someone(market.world)).order((product, 1), provider=name)).status_code == 201
        await market.outside[name].pay(invoice)
        await later(market.world)
        end = (await buyer.status(order), len(await buyer.goods(order)), await balance(buyer))
        assert end == (("expired", 0, PRICE) if gone else ("delivered", 1, 0))


@in_module
@each
async def test_f25_cancelled_and_paid_in_any_order(market: Market, name: str) -> None:
    driver = market.outside[name]
    buyer, order, invoice, _ = await market.placed(name)
    await driver.cancel(invoice)
    await later(market.world)
    await market.world.pg.fetch("UPDATE payments SET poll_at = now() WHERE invoice_id = $1", (invoice,))
    await poll(market.world.shop)
    await later(market.world)
    assert await buyer.status(order) == "pending"
    again = await buyer.pay(order, provider=name)  # the gateway has closed the first: another is opened
    assert again.status_code == 200, again.text
    second = await market.world.scalar(
        "SELECT invoice_id FROM payments WHERE order_id = $1 AND status = 'open'", UUID(order)
    )
    assert second != invoice
    await driver.pay(second)
    await later(market.world)
    assert (await buyer.status(order), len(await buyer.goods(order)), await balance(buyer)) == ("delivered", 1, 0)


@in_module
@each
async def test_without_callbacks_the_poller_finds_the_payment(market: Market, name: str) -> None:
    driver = market.outside[name]
    buyer, order, invoice, _ = await market.placed(name)
    kept = dict(vars(driver.sim))  # type: ignore[attr-defined]
    driver.silence()
    try:
        await driver.pay(invoice)
    finally:
        vars(driver.sim).update({k: kept[k] for k in ("callbacks", "callback_url", "minute_ms") if k in kept})  # type: ignore[attr-defined]
    assert await buyer.status(order) == "pending"
    await market.world.pg.fetch("UPDATE payments SET poll_at = now() WHERE invoice_id = $1", (invoice,))
    assert await poll(market.world.shop) == 1
    await later(market.world)
    assert (await buyer.status(order), len(await buyer.goods(order))) == ("delivered", 1)


@in_module
@each
async def test_f63_a_gateway_that_is_away_loses_no_order(
    market: Market, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway: Any = market.world.app.state.shop.gateways[name].gateway  # the one inside its circuit
    product, buyer, key = await market.world.product(f"KEY-{uuid4()}"), await someone(market.world), str(uuid4())
    with monkeypatch.context() as patch:
        patch.setattr(gateway, "url", "http://127.0.0.1:9")
        refused = await buyer.order((product, 1), provider=name, key=key)
        assert (refused.status_code, refused.json()["type"]) == (503, "/problems/provider-down"), refused.text
        with pytest.raises(ProviderDown):
            await gateway.fetch("1")
    mended = await buyer.order((product, 1), provider=name, key=key)
    assert (mended.status_code, mended.json()["order"]["id"]) == (201, refused.json()["order_id"])
    assert mended.json()["payment"]["status"] == "open"


@in_module
@each
async def test_money_that_goes_back_is_taken_back(market: Market, name: str) -> None:
    driver, gateway = market.outside[name], market.world.shop.gateways[name]
    buyer, order, invoice, _ = await market.placed(name)
    await driver.pay(invoice)
    await later(market.world)
    if name not in REFUNDING:
        with pytest.raises(NotImplementedError):
            await driver.refund(invoice)
        with pytest.raises(RefundRefused):
            await gateway.refund(invoice, Money(PRICE, "RUB"), "key")
        return
    for amount, status in ((4000, "partially_refunded"), (None, "refunded")):
        await driver.refund(invoice, amount)
        await later(market.world)
        assert await buyer.status(order) == status
    assert await market.world.scalar("SELECT refunded_minor FROM orders WHERE id = $1", UUID(order)) == PRICE


@in_module
@pytest.mark.parametrize("name", REFUNDING)
async def test_a_refund_over_the_rail_reaches_the_gateway_once(market: Market, name: str) -> None:
    buyer, order, invoice, _ = await market.placed(name)
    await market.outside[name].pay(invoice)
    await later(market.world)
    gateway = market.world.shop.gateways[name]
    first = await gateway.refund(invoice, Money(3000, "RUB"), "refund-key-1")
    assert await gateway.refund(invoice, Money(3000, "RUB"), "refund-key-1") == first
    assert (await gateway.fetch(invoice)).refunded_minor == 3000
    with pytest.raises(RefundRefused):
        await gateway.refund(invoice, Money(PRICE, "RUB"), "refund-key-2")  # more than is left
    await later(market.world)
    assert await buyer.status(order) == "partially_refunded"
