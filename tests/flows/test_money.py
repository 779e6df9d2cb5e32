"""What becomes of money: every outcome of a payment ends in exactly one place, and the ledger says so.

Each world checks its whole ledger when it closes (tests/world.py).
"""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from app.base.money import Money
from app.domain import payments
from app.flows.expire import expire
from app.gateways.base import Ask
from app.infra.embedded import Servers
from app.sandbox.crystalpay_wire import Payment
from tests.web.test_hooks import events, later
from tests.web.test_shop import in_module, own_world
from tests.world import Buyer, World, invoice_of

ADMIN = 777


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_world(servers: Servers, template: str) -> AsyncIterator[World]:
    async with own_world(servers, template, "money", 4, gateway_timeout_ms=2000, admins=str(ADMIN)) as opened:
        yield opened


async def someone(world: World, **user: Any) -> Buyer:
    return await world.buyer(uuid4().int >> 80, **user)


async def ordered(world: World, units: int = 1, **user: Any) -> tuple[Buyer, str, str, int]:
    """A pending order over 100.00 RUB of a product with so many units: buyer, order, invoice, product."""
    product = await world.product(*(f"KEY-{uuid4()}" for _ in range(units)))
    buyer = await someone(world, **user)
    order = (await buyer.order((product, 1))).json()
    return buyer, order["order"]["id"], invoice_of(order), product


async def balance(buyer: Buyer) -> int:
    funds = (await buyer.get("/api/balance")).json()
    return sum(b["balance_minor"] for b in funds["balances"])


async def lapse(world: World, order: str) -> None:
    await world.pg.fetch("UPDATE orders SET expires_at = now() - interval '1 hour' WHERE id = $1", (UUID(order),))
    await expire(world.shop)
    assert await world.scalar("SELECT status FROM orders WHERE id = $1", UUID(order)) == "expired"


def told(world: World, buyer: Buyer) -> list[str]:
    return [str(message["text"]) for message in world.telegram.sent_to(buyer.telegram_id)]


async def entries(buyer: Buyer) -> list[tuple[str, int]]:
    found = (await buyer.get("/api/balance")).json()["entries"]
    return [(entry["reason"], entry["amount_minor"]) for entry in reversed(found)]


@in_module
async def test_f31_too_little_is_credited_and_the_rest_asked_for(shared: World) -> None:
    buyer, order, invoice, _ = await ordered(shared)
    await shared.crystalpay.pay(invoice, Payment(amount="60"))
    await shared.drain()
    assert (await buyer.status(order), await balance(buyer)) == ("pending", 6000)
    assert "40.00 RUB" in told(shared, buyer)[-1]

    rest = await buyer.pay(order)
    assert rest.status_code == 200, rest.text
    assert rest.json()["payment"]["amount_minor"] == 4000
    second = invoice_of(rest.json())
    assert second != invoice
    await shared.crystalpay.pay(second)
    await shared.drain()
    assert (await buyer.status(order), await balance(buyer), len(await buyer.goods(order))) == ("delivered", 0, 1)
    assert await entries(buyer) == [("underpaid", 6000), ("underpaid", 4000), ("from_balance", -10_000)]


@in_module
async def test_the_rest_may_come_on_the_same_invoice(shared: World) -> None:
    buyer, order, invoice, _ = await ordered(shared)
    await shared.crystalpay.pay(invoice, Payment(amount="60"))
    await shared.drain()
    await shared.crystalpay.pay(invoice)
    await later(shared)
    assert (await buyer.status(order), await balance(buyer), len(await buyer.goods(order))) == ("delivered", 0, 1)


@in_module
async def test_a_part_payment_that_was_spent_elsewhere_does_not_pay_twice(shared: World) -> None:
    buyer, order, invoice, _ = await ordered(shared)
    await shared.crystalpay.pay(invoice, Payment(amount="60"))
    await shared.drain()
    cheap = await shared.product("CHEAP", price_minor=6000)
    bought = await buyer.order((cheap, 1), provider="balance")
    assert bought.json()["order"]["status"] == "paid"
    await shared.crystalpay.pay(invoice)  # the remaining 40
    await later(shared)
    assert (await buyer.status(order), await balance(buyer)) == ("pending", 4000)
    assert await buyer.goods(bought.json()["order"]["id"]) == ["CHEAP"]


@in_module
async def test_f32_too_much_is_delivered_and_the_rest_credited(shared: World) -> None:
    buyer, order, invoice, _ = await ordered(shared)
    await shared.crystalpay.pay(invoice, Payment(edit={"amount": "100.01"}))
    await shared.drain()
    assert (await buyer.status(order), await balance(buyer), len(await buyer.goods(order))) == ("delivered", 1, 1)
    assert any("0.01 RUB" in text for text in told(shared, buyer))
    assert await entries(buyer) == [("overpaid", 1)]


@in_module
async def test_f33_another_currency_waits_for_a_human(shared: World) -> None:
    buyer, order, invoice, _ = await ordered(shared)
    await shared.crystalpay.pay(invoice, Payment(edit={"currency": "USD"}))
    await shared.drain()
    assert await events(shared, invoice) == [("review", "wrong_currency")]
    assert (await buyer.status(order), await balance(buyer)) == ("pending", 0)
    assert "another currency: 100.00 USD" in str(shared.telegram.sent_to(ADMIN)[-1]["text"])


@in_module
async def test_f36_a_payment_of_nothing_is_no_payment(shared: World) -> None:
    buyer, order, invoice, _ = await ordered(shared)
    await shared.crystalpay.pay(invoice, Payment(edit={"amount": "0", "remaining_amount": "0"}))
    for _ in range(9):
        await later(shared)
    assert await events(shared, invoice) == [("ignored", "payed")]
    assert await buyer.status(order) == "pending"


@in_module
async def test_f29_a_second_payment_is_credited(shared: World) -> None:
    buyer, order, invoice, _ = await ordered(shared)
    again = invoice_of((await buyer.pay(order)).json())
    assert again == invoice  # one link per gateway
    callback = f"{shared.http.base_url}/api/webhook/crystalpay"
    ask = Ask(order_id=UUID(order), payment_id=7, number=1, money=Money(10_000, "RUB"), lifetime_s=900,
              return_url="http://x", callback_url=callback)  # fmt: skip
    other = await shared.shop.gateways["crystalpay"].create(ask)
    await shared.crystalpay.pay(invoice)
    await shared.drain()
    await shared.crystalpay.pay(other.id)
    await shared.drain()
    assert (await buyer.status(order), await balance(buyer), len(await buyer.goods(order))) == ("delivered", 10_000, 1)
    assert await events(shared, other.id) == [("settled", "second")]


@in_module
@pytest.mark.parametrize("stock", ["there", "gone", "off the shelf"])
async def test_f30_a_late_payment_gets_goods_or_credit_never_both(shared: World, stock: str) -> None:
    buyer, order, invoice, product = await ordered(shared)
    await lapse(shared, order)
    if stock == "gone":
        assert (await (await someone(shared)).order((product, 1))).status_code == 201
    if stock == "off the shelf":
        await shared.pg.fetch("UPDATE products SET active = false WHERE id = $1", (product,))
    await shared.crystalpay.pay(invoice)
    await shared.drain()
    goods, left = await buyer.goods(order), await balance(buyer)
    if stock == "there":
        assert (await buyer.status(order), len(goods), left) == ("delivered", 1, 0)
    else:
        assert (await buyer.status(order), goods, left) == ("expired", [], 10_000)
    assert await events(shared, invoice) == [("settled", "paid" if goods else "late")]


@in_module
async def test_a_late_order_keeps_its_price_and_takes_all_its_lines_or_none(shared: World) -> None:
    one, two = await shared.product("A-1", "A-2"), await shared.product("B-1")
    buyer = await someone(shared)
    placed = (await buyer.order((one, 2), (two, 1))).json()
    order, invoice = placed["order"]["id"], invoice_of(placed)
    await lapse(shared, order)
    taken = (await (await someone(shared)).order((two, 1))).json()["order"]["id"]
    await shared.crystalpay.pay(invoice)
    await shared.drain()
    assert (await buyer.status(order), await balance(buyer)) == ("expired", 30_000)
    held = "SELECT count(*) FROM stock_items WHERE state = 'held' AND product_id = any($1)"
    assert await shared.scalar(held, [one, two]) == 1  # the other buyer's
    assert taken


@in_module
async def test_money_for_a_cancelled_order_is_credited(shared: World) -> None:
    buyer, order, invoice, product = await ordered(shared)
    gone = await buyer.cancel(order)
    assert (gone.status_code, gone.json()["order"]["status"]) == (200, "cancelled")
    again = await buyer.cancel(order)
    assert (again.status_code, again.json()["order_status"]) == (409, "cancelled")
    assert await shared.scalar("SELECT state FROM stock_items WHERE product_id = $1", product) == "available"
    await shared.crystalpay.pay(invoice)
    await shared.drain()
    assert (await buyer.status(order), await balance(buyer)) == ("cancelled", 10_000)
    assert "cancelled" in told(shared, buyer)[-1]


@in_module
async def test_only_an_unpaid_order_of_ones_own_can_be_cancelled_or_paid(shared: World) -> None:
    buyer, order, invoice, _ = await ordered(shared)
    stranger = await someone(shared)
    assert (await stranger.cancel(order)).status_code == 404
    assert (await stranger.pay(order)).status_code == 404
    await shared.crystalpay.pay(invoice)
    await shared.drain()
    refused = await buyer.cancel(order)
    assert (refused.status_code, refused.json()["order_status"]) == (409, "delivered")
    assert (await buyer.pay(order)).status_code == 409
    assert (await buyer.pay(order, provider="balance")).status_code == 409


@in_module
async def test_a_balance_pays_whole_or_not_at_all(shared: World) -> None:
    buyer, order, invoice, product = await ordered(shared, units=2)
    await lapse(shared, order)
    assert (await (await someone(shared)).order((product, 2))).status_code == 201
    await shared.crystalpay.pay(invoice)
    await shared.drain()
    assert await balance(buyer) == 10_000
    dear, fitting = await shared.product("DEAR", price_minor=10_001), await shared.product("FITTING")
    key = str(uuid4())
    refused = await buyer.order((dear, 1), provider="balance", key=key)
    assert refused.status_code == 409, refused.text
    assert (refused.json()["type"], refused.json()["balance_minor"]) == ("/problems/not-enough", 10_000)
    assert await buyer.status(refused.json()["order_id"]) == "pending"
    paid = await buyer.order((fitting, 1), provider="balance")
    assert (paid.status_code, paid.json()["order"]["status"], paid.json()["payment"]["provider"]) == (
        201,
        "paid",
        "balance",
    )
    await shared.drain()
    assert await buyer.goods(paid.json()["order"]["id"]) == ["FITTING"]
    assert await balance(buyer) == 0


@in_module
async def test_what_goes_back_at_the_gateway_comes_off_the_order_then_off_the_balance(shared: World) -> None:
    buyer, order, invoice, _ = await ordered(shared)
    await shared.crystalpay.pay(invoice, Payment(edit={"amount": "150"}))
    await shared.drain()
    assert await balance(buyer) == 5000

    def proof(refunded_minor: int) -> payments.Proof:
        money = Money(15_000, "RUB")
        return payments.Proof(inbox_id=0, provider="crystalpay", invoice_id=invoice, order_id=None, money=money,
                              refunded_minor=refunded_minor)  # fmt: skip

    part = await payments.reverse(shared.pg, proof(4000))
    assert (part.sold_minor, part.taken_minor) == (4000, 0) if part else pytest.fail("nothing booked")
    assert await payments.reverse(shared.pg, proof(4000)) is None
    assert await buyer.status(order) == "partially_refunded"
    cheap = await shared.product("CHEAP", price_minor=3000)
    assert (await buyer.order((cheap, 1), provider="balance")).status_code == 201
    whole = await payments.reverse(shared.pg, proof(15_000))
    assert whole is not None
    assert (whole.sold_minor, whole.taken_minor, whole.lent_minor) == (6000, 2000, 3000)
    await shared.drain()
    funds = (await buyer.get("/api/balance")).json()["balances"]
    assert funds == [{"currency": "RUB", "balance_minor": 0, "debt_minor": 3000}]
    assert await buyer.status(order) == "refunded"
    assert any(
        "charged back" in str(m["text"]) and "reach: 1" in str(m["text"]) for m in shared.telegram.sent_to(ADMIN)
    )
