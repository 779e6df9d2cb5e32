"""Pay: an order gets a payment, by a link at a gateway or at once from the buyer's balance.

Postgres says whose turn it is to open the link (one per order and gateway), the gateway is asked outside any
transaction, Postgres keeps the link. Dies in between: the turn ends, and the next request asks for the same invoice
again. The balance pays in one statement.
"""

from uuid import UUID

import msgspec
import structlog

from app.base import clock
from app.base.money import Money
from app.domain import ledger, orders, payments
from app.errors import Conflict, InProgress, NotEnough, NotFound, ProviderDown
from app.flows import settle
from app.gateways.base import Ask, Gateway
from app.shop import Shop

log = structlog.get_logger(__name__)

OPENING_MARGIN_S = 5  # beyond the gateway's timeout, a request that opens a payment is dead


def gateway(shop: Shop, provider: str) -> Gateway | None:
    """The gateway of this name; None for the buyer's own balance. Raises: NotFound."""
    if provider == ledger.BALANCE:
        return None
    found = shop.gateways.get(provider)
    if found is None:
        raise NotFound(f"this shop has no gateway {provider[:32]!r}")
    return found


async def pay(shop: Shop, order_id: UUID, user_id: int, provider: str) -> orders.Order | None:
    """This buyer's order with its payment: a link to pay what it lacks, or paid. None: it cannot be paid (any more).

    Raises: NotFound, NotEnough, Conflict, InProgress; ProviderDown when the gateway gave no link.
    """
    by = gateway(shop, provider)
    if by is None:
        return await from_balance(shop, order_id, user_id)
    lease_s = shop.deps.settings.gateway_timeout_ms // 1000 + OPENING_MARGIN_S
    opening = await payments.open_(shop.deps.pg, order_id, user_id, provider, lease_s)
    if opening is None:  # it cannot be paid, or another request was opening the same payment at this very moment
        opening = await payments.open_(shop.deps.pg, order_id, user_id, provider, lease_s)
    if opening is None:
        order = await orders.get(shop.deps.pg, order_id, user_id)
        lacks_nothing = order and order.paid_at is None and order.credited_minor >= order.total_minor
        return await from_balance(shop, order_id, user_id) if lacks_nothing else None
    if opening.turn == "busy":
        raise InProgress("an earlier request is still opening this payment", retry_after_s=2)
    linked = await link(shop, by, order_id, opening) if opening.turn == "ours" else None
    order = linked or await orders.get(shop.deps.pg, order_id, user_id)
    if order is None or opening.turn == "ours":
        return order
    return msgspec.structs.replace(
        order, payment_provider=provider, payment_status="open", payment_url=opening.url,
        payment_minor=opening.total_minor,
    )  # fmt: skip


async def link(shop: Shop, by: Gateway, order_id: UUID, owed: orders.Created | payments.Opening) -> orders.Order | None:
    """The order with its link; None when it was not ours to link any more. Raises: ProviderDown, the order stands."""
    settings, money = shop.deps.settings, Money(owed.total_minor, owed.currency)
    ask = Ask(
        order_id=order_id,
        payment_id=owed.payment_id,
        number=owed.number,
        money=money,
        lifetime_s=int((owed.expires_at - clock.now()).total_seconds()),
        return_url=f"{settings.public_url}/?order={order_id}",
        callback_url=f"{settings.public_url}/api/webhook/payment/{by.name}",
    )
    try:
        if money.currency not in by.traits.currencies:
            raise Conflict(f"{by.name} takes no {money.currency}", order_id=str(order_id))
        invoice = await by.create(ask)
    except (ProviderDown, Conflict) as error:
        await payments.fail(shop.deps.pg, order_id, by.name, owed.opened_at)
        log.warning("no invoice, the order stands", order_id=str(order_id), error=error.detail)
        if isinstance(error, Conflict):
            raise
        raise ProviderDown(
            "the order stands, the gateway gave no link: repeat with the same Idempotency-Key",
            retry_after_s=error.retry_after_s or 2,
            order_id=str(order_id),
        ) from error
    return await orders.link(shop.deps.pg, order_id, by.name, invoice.id, invoice.url, owed.opened_at)


async def from_balance(shop: Shop, order_id: UUID, user_id: int) -> orders.Order | None:
    """The order, paid from the buyer's balance, now or before; None when it is not to be paid.

    Raises: NotEnough, the order stands.
    """
    paid = await ledger.pay(shop.deps.pg, order_id, user_id)
    if paid is not None and paid.outbox_id is not None:
        await settle.ring(shop, paid.outbox_id)
    order = await orders.get(shop.deps.pg, order_id, user_id)
    if order is None or (order.payment_provider == ledger.BALANCE and order.payment_status == "paid"):
        return order
    if order.paid_at is not None or order.status in ("expired", "cancelled"):
        return None
    own = await ledger.balances(shop.deps.pg, user_id)
    has_minor = next((b.balance_minor for b in own if b.currency == order.currency), 0)
    raise NotEnough(
        f"{Money(order.total_minor, order.currency)} to pay, {Money(has_minor, order.currency)} on the balance",
        order_id=str(order_id), balance_minor=has_minor, total_minor=order.total_minor,
    )  # fmt: skip
