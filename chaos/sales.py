"""Orders that wait to be paid, by the shop's own checkout, and the gateway's callbacks that pay them one by one.

One callback owes a settle job, which asks the gateway over HTTP; the delivery that it owes owes a message to the buyer,
notices to an admin and to the seller, three referrers' bonuses, a line of the leaderboard and two announcements.
"""

import asyncio
from collections.abc import Sequence
from uuid import UUID, uuid4

import msgspec

from app.domain import catalog, customers, stock, units
from app.domain.catalog import NewProduct
from app.errors import PostgresDown
from app.flows import checkout, settle, shelve
from app.gateways.base import Callback
from app.sandbox import crystalpay_wire as wire
from app.sandbox.crystalpay import CrystalPay
from app.shop import Shop

# The jobs of one order, by kind. `announce`: that it is paid, and that it is delivered.
JOBS = {"settle": 1, "deliver": 1, "tell": 1, "alert": 1, "supply": 1, "reward": 1, "rank": 1, "announce": 2}
LEVELS = 3  # of referrers above every buyer
ADMIN, SELLER, FIRST_BUYER = 1, 2, 100  # Telegram ids
BUYERS = 50
PRICE_MINOR, DISCOUNT_BP = 10_000, 1000
AT_ONCE = 8
REPEAT_S = 0.1  # until the gateway calls again
STAFF = units.Actor(None, {"by": "chaos"})


class Sale(msgspec.Struct, frozen=True):
    """An order with an invoice that nobody has paid yet."""

    order_id: UUID
    invoice_id: str


async def furnished(shop: Shop, count: int) -> int:
    """A seller with a person, an admin, buyers of whom each was brought by the one before, and keys to sell."""
    pg = shop.deps.pg
    seller_id = await catalog.add_seller(pg, "Seller")
    await entered(shop, ADMIN, None)
    person = await entered(shop, SELLER, None)
    await pg.fetch("UPDATE users SET role = 'seller', seller_id = $2 WHERE id = $1", (person, seller_id))
    new = NewProduct(seller_id=seller_id, title="Key", description="", category="Keys", kind="unit", currency="RUB",
                     list_price_minor=PRICE_MINOR, discount_bp=DISCOUNT_BP)  # fmt: skip
    product_id = await catalog.add_product(pg, new)
    for start in range(0, count, shelve.MAX_SECRETS):
        batch = [units.Unit(n, str(uuid4())) for n in range(start, min(count, start + shelve.MAX_SECRETS))]
        await shelve.shelve(shop, STAFF, product_id, batch, skip_duplicates=False)
    return product_id


async def entered(shop: Shop, telegram_id: int, referrer_id: int | None) -> int:
    customer = await customers.enter(
        shop.deps.pg, telegram_id=telegram_id, name="Ann", username=None, language="en", is_admin=telegram_id == ADMIN,
        referrer_id=referrer_id,
    )  # fmt: skip
    return customer.id


async def placed(shop: Shop, count: int) -> list[Sale]:
    """So many orders, each with an invoice at the gateway."""
    product_id = await furnished(shop, count)
    people: list[int] = []
    for number in range(LEVELS + BUYERS):
        people.append(await entered(shop, FIRST_BUYER + number, people[-1] if people else None))
    room = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> Sale:
        want = checkout.Want(
            user_id=people[LEVELS + number % BUYERS], cart=[stock.Units(product_id, 1)], provider="crystalpay",
            idempotency_key=str(uuid4()), request_hash=bytes(32),
        )  # fmt: skip
        async with room:
            order = (await checkout.place(shop, want)).order
        return Sale(order.id, str(order.payment_url).rpartition("i=")[2])

    sales = await asyncio.gather(*(one(number) for number in range(count)))
    # What the poller would find by itself is not to be found before its time.
    await shop.deps.pg.fetch("UPDATE payments SET poll_at = now() + interval '1 day'", ())
    return sales


async def paid_evenly(shop: Shop, crystalpay: CrystalPay, sales: Sequence[Sale], seconds: float) -> list[str]:
    """Each order is paid in its turn; returns what went wrong in ways that nobody expects."""
    loop = asyncio.get_running_loop()
    started_s, defects = loop.time(), list[str]()
    async with asyncio.TaskGroup() as callbacks:
        for number, sale in enumerate(sales):
            await asyncio.sleep(max(0.0, started_s + seconds * number / len(sales) - loop.time()))
            callbacks.create_task(pay(shop, crystalpay, sale, defects))
    return defects


async def pay(shop: Shop, crystalpay: CrystalPay, sale: Sale, defects: list[str]) -> None:
    """The callback is taken, however often the gateway must repeat it because its answer was no 200."""
    # Without its address the gateway calls nobody: we do.
    await crystalpay.pay(sale.invoice_id, wire.Payment(edit={"callback_url": None}))
    body = wire.callback_body(crystalpay.invoice(sale.invoice_id), wire.Callbacks(), crystalpay.salt)
    callback = Callback(msgspec.json.encode(body), {"content-type": "application/json"}, "127.0.0.1")
    while True:
        try:
            owed = await settle.accept(shop, shop.gateways["crystalpay"], callback, {}, in_flight=1)
            break
        except PostgresDown:  # 503
            pass
        except Exception as error:  # 500, and ours to mend
            defects.append(f"a callback was refused: {error!r}")
        await asyncio.sleep(REPEAT_S)
    if owed is not None:
        await settle.ring(shop, owed)
