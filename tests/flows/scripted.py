"""A gateway that says what a test wrote down, and orders by the thousand for it to be paid through."""

from typing import Any, ClassVar
from uuid import UUID, uuid4

import msgspec

from app.base.ids import new_id
from app.base.money import Money
from app.domain import inbox
from app.errors import ProviderDown
from app.gateways.base import Ask, Callback, Invoice, InvoiceState, Notice, Refunded, Traits
from tests.world import World

PRICE = 10_000  # kopecks of each order's one unit


class Scripted:
    """`states` is all that it knows: by invoice, as of now."""

    name: ClassVar[str] = "scripted"
    settings: ClassVar[type[msgspec.Struct]] = msgspec.Struct
    traits: ClassVar[Traits] = Traits(
        signs_amount=False, retries=False, refunds=True, polls_per_minute=1_000_000, currencies=frozenset({"RUB"})
    )

    def __init__(self, config: Any = None, http: Any = None) -> None:
        self.states: dict[str, InvoiceState] = {}

    def say(self, invoice: str, word: str, *, came: int = 0, back: int = 0, order_id: UUID | None = None) -> None:
        """From now on the invoice is in this state: `came` in all, of which `back` went back."""
        money = Money(came or PRICE, "RUB")
        self.states[invoice] = InvoiceState(
            id=invoice, state=word, paid=came > 0, final=word in ("paid", "cancelled"), money=money,
            refunded_minor=back, order_id=order_id,
        )  # fmt: skip

    async def create(self, ask: Ask) -> Invoice:
        return Invoice(str(uuid4()), "http://pay.invalid")

    def verify(self, callback: Callback) -> Notice:
        raise NotImplementedError

    async def fetch(self, invoice_id: str) -> InvoiceState:
        if invoice_id not in self.states:
            raise ProviderDown("nothing is written about it")
        return self.states[invoice_id]

    async def refund(self, invoice_id: str, money: Money, key: str) -> Refunded:
        return Refunded(key)


class Sold(msgspec.Struct, frozen=True):
    """A pending order with a linked invoice of the scripted gateway."""

    order_id: UUID
    user_id: int
    invoice: str


BUYERS = "INSERT INTO users (telegram_id, name) SELECT $2::bigint + n, 'Ann' FROM generate_series(1, $1) n RETURNING id"
UNITS = """
INSERT INTO stock_items (id, product_id, state, sealed, fingerprint)
SELECT u.id, $2, 'held', 'sealed', u.id::text::bytea FROM unnest($1::uuid[]) AS u (id) RETURNING 1"""
ORDERS = """
WITH given AS (SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS g (id, unit, user_id)),
made AS (
    INSERT INTO orders (id, user_id, seller_id, currency, total_minor, idempotency_key, request_hash, expires_at)
    SELECT g.id, g.user_id, $4, 'RUB', $6, g.id::text, sha256('x'), now() + interval '15 minutes' FROM given g
    RETURNING id),
lines AS (
    INSERT INTO order_items (order_id, position, product_id, title, kind, stock_item_id, list_price_minor, price_minor)
    SELECT g.id, 1, $5, 'Key', 'unit', g.unit, $6, $6 FROM made JOIN given g USING (id))
INSERT INTO payments (order_id, provider, status, invoice_id, amount_minor, currency, poll_at)
SELECT m.id, 'scripted', 'open', 'inv-' || m.id, $6, 'RUB', now() FROM made m RETURNING 1"""


async def sell(world: World, count: int, *, buyers: int = 1) -> tuple[Scripted, int, list[Sold]]:
    """So many pending orders of one product, each with its own unit held, and the gateway that they wait for."""
    gateway = Scripted()
    world.shop.gateways[gateway.name] = gateway
    product = await world.product()
    users = [row["id"] for row in await world.pg.fetch(BUYERS, (buyers, uuid4().int >> 80))]
    ids, units = [new_id() for _ in range(count)], [new_id() for _ in range(count)]
    owners = [users[n % buyers] for n in range(count)]
    await world.pg.fetch(UNITS, (units, product))
    await world.pg.fetch(ORDERS, (ids, units, owners, world.seller_id, product, PRICE))
    sold = [Sold(order_id, user_id, f"inv-{order_id}") for order_id, user_id in zip(ids, owners, strict=True)]
    return gateway, product, sold


async def hear(world: World, sold: Sold, word: str, claims: str) -> int:
    """An event about the order's invoice is in the inbox; returns its job, which a repeat makes due again."""
    event = inbox.Event(provider="scripted", key=f"{sold.invoice}:{word}", invoice_id=sold.invoice, claims=claims)
    await inbox.store(world.pg, event, word.encode(), {})
    found = "SELECT b.id FROM outbox b JOIN inbox i ON b.key = i.id::text AND b.kind = 'settle' WHERE i.event_key = $1"
    return int(await world.scalar(found, event.key))
