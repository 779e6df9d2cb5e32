"""Reward: a sale's bonuses go to those who brought its buyer, a refund's come back; a first review has its cash-back.

Each is one job with one statement, fenced by its lease, whose rows and postings can be there once. Dies anywhere: the
job runs again and finds what is done. Whatever order sale, refund and their jobs run in, the same is left in the end.
"""

from uuid import UUID

import msgspec
import structlog

from app.base.lease import Lease
from app.base.together import Read, together
from app.domain import outbox, referrals, reviews
from app.shop import Shop

log = structlog.get_logger(__name__)


class Sale(msgspec.Struct, frozen=True):
    """What the reward and clawback jobs are told."""

    order_id: UUID


class Praise(msgspec.Struct, frozen=True):
    """What the cashback job is told."""

    product_id: int
    user_id: int


class Brought(msgspec.Struct, frozen=True):
    """What one user's code has brought."""

    code: str
    link: str | None
    shares_bp: list[int]
    invited: list[referrals.Invited]
    earned: list[referrals.Earned]


_sale = msgspec.json.Decoder(Sale)
_praise = msgspec.json.Decoder(Praise)


async def reward(shop: Shop, lease: Lease, job: outbox.Job) -> None:
    """Whoever brought the buyer, and those above, have their bonus."""
    order_id = job.read(_sale).order_id
    done = await referrals.reward(shop.deps.pg, lease, order_id, shop.deps.settings.referral_shares_bp())
    if done:
        log.info("referrers rewarded", order_id=str(order_id), levels=done.levels, amount_minor=done.amount_minor)


async def claw_back(shop: Shop, lease: Lease, job: outbox.Job) -> None:
    """Of the order's bonuses as much is back as of its money."""
    order_id = job.read(_sale).order_id
    done = await referrals.claw_back(shop.deps.pg, lease, order_id)
    if done:
        log.info("bonuses back", order_id=str(order_id), taken_minor=done.taken_minor, lent_minor=done.lent_minor)


async def cash_back(shop: Shop, lease: Lease, job: outbox.Job) -> None:
    """Who reviewed a product first has the cash-back for it."""
    praise = job.read(_praise)
    share_bp = shop.deps.settings.cashback_bp
    done = await reviews.thank(shop.deps.pg, lease, praise.product_id, praise.user_id, share_bp)
    if done:
        log.info("review thanked", product_id=praise.product_id, amount_minor=done.amount_minor)


async def brought(shop: Shop, user_id: int) -> Brought:
    """The user's code, whom it brought, and what they brought."""
    pg, settings = shop.deps.pg, shop.deps.settings
    invited, earned = await together(
        Read("invited", lambda: referrals.invited(pg, user_id)),
        Read("earned", lambda: referrals.earned(pg, user_id)),
        parallel=settings.parallel,
    )
    code = referrals.code_of(user_id)
    name = settings.telegram_bot_name
    link = f"https://t.me/{name}?startapp={referrals.PREFIX}{code}" if name else None
    return Brought(code, link, settings.referral_shares_bp(), invited, earned)
