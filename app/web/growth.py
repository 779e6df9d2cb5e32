"""Growth: what your code has brought, and who saved most."""

from typing import Annotated, Literal

import msgspec
from litestar import get
from litestar.params import QueryParameter

from app.base.money import MINOR_DIGITS
from app.domain import leaderboard
from app.errors import Malformed
from app.flows import rank, reward
from app.web.guards import caller, signed_in
from app.web.handler import Req, TheShop


class Earned(msgspec.Struct, frozen=True):
    """Bonuses in one currency, and what of them went back with refunds."""

    currency: str
    earned_minor: int
    clawed_minor: int


class Level(msgspec.Struct, frozen=True):
    """Level 1 are those whom you brought, level 2 those whom they brought, and so on."""

    level: int
    share_percent: float
    invited: int
    earned: list[Earned]


class Referrals(msgspec.Struct, frozen=True):
    """Your code and the link that carries it; `link` is null when the shop does not know its bot's name."""

    code: str
    link: str | None
    levels: list[Level]


class Place(msgspec.Struct, frozen=True):
    """Those who saved the same share a rank."""

    rank: int
    name: str
    saved_minor: int
    you: bool


class Own(msgspec.Struct, frozen=True):
    """`rank` is 0 when you saved nothing, and null when the shop cannot tell it now."""

    rank: int | None
    saved_minor: int


class Leaderboard(msgspec.Struct, frozen=True):
    """Money saved against list prices; `you` is null without a token."""

    period: str
    board: str
    currency: str
    places: list[Place]
    you: Own | None


@get("/api/referrals", limits=("browse",))
async def show_referrals(request: Req, shop: TheShop) -> Referrals:
    """Your code, whom it brought, and what they brought you."""
    session = signed_in(request, shop)
    found = await reward.brought(shop, session.user_id)
    people = {one.level: one.people for one in found.invited}
    numbers = sorted({*range(1, len(found.shares_bp) + 1), *people, *(one.level for one in found.earned)})
    shares = dict(enumerate(found.shares_bp, 1))
    levels = [
        Level(
            number,
            shares.get(number, 0) / 100,
            people.get(number, 0),
            [Earned(e.currency, e.earned_minor, e.clawed_minor) for e in found.earned if e.level == number],
        )
        for number in numbers
    ]
    return Referrals(found.code, found.link, levels)


@get("/api/leaderboard", limits=("browse",))
async def show_leaderboard(
    request: Req,
    shop: TheShop,
    period: Annotated[Literal["all", "month", "week"], QueryParameter()] = "all",
    currency: Annotated[str, QueryParameter(max_length=3)] = "RUB",
    limit: Annotated[int, QueryParameter(ge=1, le=leaderboard.MOST)] = 10,
) -> Leaderboard:
    """Who saved most: ever, this month or this week (UTC), and where you stand if you are signed in."""
    if currency not in MINOR_DIGITS:
        raise Malformed(f"currency: one of {', '.join(MINOR_DIGITS)}")
    session = caller(request.scope, shop)
    user_id = session.user_id if session else 0
    found = await rank.ranking(shop, period, currency, user_id=user_id, size=limit)
    places = [Place(line.rank, line.name, line.saved_minor, line.user_id == user_id) for line in found.lines]
    own = Own(found.own_rank, found.own_saved_minor) if session else None
    return Leaderboard(period, found.board, currency, places, own)
