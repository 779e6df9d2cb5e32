"""Offers and their pay buttons: an offer becomes one order, however often and however its button is pressed."""

import msgspec
from aiogram import F, Router
from aiogram.types import CallbackQuery

from app.base import clock, prose
from app.base.money import Money
from app.bot.visit import Reply, Visit, label
from app.channels.line import Offer
from app.channels.telegram.line import PAY, pay_buttons
from app.domain import ledger, orders
from app.domain.orders import Order
from app.errors import (
    BadOffer,
    Busy,
    Conflict,
    InProgress,
    NotEnough,
    NotFound,
    OfferStale,
    OutOfStock,
    Problem,
    ProviderDown,
    TooManyPending,
)
from app.flows import checkout, pay
from app.flows import offer as offers
from app.infra.messenger import Button
from app.infra.secrets import Offered

BY = "p"  # and which way, before the token: p0:… is the first gateway, pb:… the balance
OWN = "b"  # the balance
SPELT = {"aaio": "AAIO", "cryptopay": "Crypto Pay", "crystalpay": "CrystalPay", "yookassa": "YooKassa"}


class Way(msgspec.Struct, frozen=True):
    """One way to pay."""

    code: str
    provider: str
    label: str


def router() -> Router:
    made = Router(name="buying")
    made.callback_query.register(press_pay, F.data.startswith(PAY))
    made.callback_query.register(press_way, F.data.regexp(rf"^{BY}([0-9]{{1,2}}|{OWN}):"))
    return made


async def show(visit: Visit, token: str) -> Reply:
    """What a shared link offers, as it is for this user at this moment."""
    offered = _read(visit, token)
    if offered is None:
        return visit.say("link_bad")
    return await _fresh(visit, "", offered.product_id, offered.quantity)


async def press_pay(query: CallbackQuery, visit: Visit) -> Reply:
    """The order with its link where there is one way to pay, else the ways."""
    token = (query.data or "").removeprefix(PAY)
    offered = _read(visit, token)
    if offered is None or offered.user_id != visit.opened.user_id:
        return visit.say("offer_unknown")
    order = await checkout.bought(visit.shop, offered.user_id, token)
    if order and order.status != "pending":
        return _placed(visit, order)
    ways = await _ways(visit, offered)
    if not ways:
        return visit.say("no_payment")
    if len(ways) == 1 or offered.expires_s <= clock.unix_s():
        return await _order(visit, token, offered, ways[0].provider)
    price = Money(offered.price_minor, offered.currency)
    return visit.say(
        "choose_payment", price=price, buttons=[[Button(way.label, data=f"{BY}{way.code}:{token}")] for way in ways]
    )


async def press_way(query: CallbackQuery, visit: Visit) -> Reply:
    code, _, token = (query.data or "").removeprefix(BY).partition(":")
    offered = _read(visit, token)
    if offered is None or offered.user_id != visit.opened.user_id:
        return visit.say("offer_unknown")
    names = sorted(visit.shop.gateways)
    if code != OWN and int(code) >= len(names):
        return visit.say("pressed_old")
    provider = ledger.BALANCE if code == OWN else names[int(code)]
    return await _order(visit, token, offered, provider, chosen=True)


async def _ways(visit: Visit, offered: Offered) -> list[Way]:
    """How this can be paid: by gateways that take its currency, and by a balance that suffices."""
    gateways = [
        Way(str(place), name, label(SPELT.get(name, name.capitalize())))
        for place, name in enumerate(sorted(visit.shop.gateways))
        if offered.currency in visit.shop.gateways[name].traits.currencies
    ]
    own = await ledger.balances(visit.shop.deps.pg, visit.opened.user_id)
    enough = [
        Way(OWN, ledger.BALANCE, label(visit.words("by_balance", amount=Money(one.balance_minor, one.currency))))
        for one in own
        if one.currency == offered.currency and one.balance_minor >= offered.price_minor
    ]
    return gateways + enough


async def _order(visit: Visit, token: str, offered: Offered, provider: str, *, chosen: bool = False) -> Reply:
    """The offer's one order, to be paid by this provider; if it is `chosen`, whatever the order was to be paid by."""
    shop, user_id = visit.shop, visit.opened.user_id
    try:
        placed = await checkout.accept_offer(shop, user_id, token, provider)
        order = placed.order
        if chosen and order.status == "pending" and order.payment_provider != provider:
            order = await pay.pay(shop, order.id, user_id, provider) or order
    except (BadOffer, NotFound, Conflict, Busy, ProviderDown) as problem:
        return await _refused(visit, offered, problem)
    return _placed(visit, order)


def _placed(visit: Visit, order: Order) -> Reply:
    if order.paid_at is not None or order.payment_status == "paid":
        return visit.say("order_paid", number=order.number)
    if order.status != "pending" or not order.payment_url:
        return visit.say("order_over", number=order.number)
    amount = Money(order.payment_minor or order.total_minor, order.currency)
    lines = ", ".join(f"{line.quantity} × {prose.one_line(line.title, 100)}" for line in orders.lines(order.lines))
    link = Button(label(visit.words("pay_now", amount=amount)), url=order.payment_url)
    return visit.say(
        "order", number=order.number, lines=lines, amount=amount, until=f"{order.expires_at:%H:%M}", buttons=[[link]]
    )


async def _refused(visit: Visit, offered: Offered, problem: Problem) -> Reply:
    """Why there is no order, and what there is instead."""
    match problem:
        case BadOffer() if problem.facts.get("reason") == "expired":
            return await _fresh(visit, "offer_expired", offered.product_id, offered.quantity)
        case OfferStale():
            return await _fresh(visit, "offer_stale", offered.product_id, offered.quantity)
        case OutOfStock() | NotFound():
            return await _fresh(visit, "", offered.product_id, offered.quantity)
        case TooManyPending():
            return visit.say("too_many", limit=problem.facts["limit"])
        case NotEnough():
            has = Money(int(str(problem.facts["balance_minor"])), offered.currency)
            return visit.say("not_enough", balance=has, price=Money(offered.price_minor, offered.currency))
        case BadOffer():
            return visit.say("offer_unknown")
        case InProgress() | Busy():
            return visit.say("busy")
        case ProviderDown():
            return visit.say("provider_down")
    return visit.say("no_payment")


async def _fresh(visit: Visit, why: str, product_id: int, quantity: int) -> Reply:
    """A new offer for the same, or for as many as there are."""
    found = await offers.offer(visit.shop, visit.opened.user_id, product_id, quantity)
    if not isinstance(found, Offer) and found and found.units:
        why = "fewer"
        found = await offers.offer(visit.shop, visit.opened.user_id, product_id, min(found.units, quantity))
    if not isinstance(found, Offer):
        return visit.say("gone")
    told = visit.words(
        "offer",
        title=prose.one_line(found.title, 120),
        quantity=found.quantity,
        price=Money(found.price_minor, found.currency),
    )
    head = f"{visit.words(why)}\n" if why else ""
    return Reply(head + told, pay_buttons(visit.language, [found]))


def _read(visit: Visit, token: str) -> Offered | None:
    signs = visit.shop.deps.offers
    return signs.read(token) if signs else None
