"""Rank: the leaderboard says what Postgres says, soon after each sale and refund, and at once after Redis lost it.

A job writes the buyer's savings and then reads them again: whoever wrote last has seen that nothing changed since, or
writes once more. Dies in between: the job runs again. A board that is not there is built by one process of all, while
the others wait for it; without Redis each process reads Postgres once at a time for each board.
"""

import asyncio
from secrets import token_hex
from uuid import UUID

import msgspec
import structlog

from app.base import clock
from app.base.lease import Lease
from app.domain import leaderboard, outbox
from app.domain.leaderboard import Board, Ours, Saver, Theirs, Which
from app.errors import Busy, RedisDown
from app.shop import Shop

log = structlog.get_logger(__name__)

WRITES = 5  # of one job
LOOKS = 20  # at a board that another builds, before Postgres is asked
PAUSE_S = 0.05


class Sale(msgspec.Struct, frozen=True):
    """What the rank job is told."""

    order_id: UUID


class Line(msgspec.Struct, frozen=True):
    """Those who saved the same share a rank."""

    rank: int
    user_id: int
    name: str  # as others may see it
    saved_minor: int


class Ranking(msgspec.Struct, frozen=True):
    """A board's first lines; where the asking user stands: 0 nowhere, None when that cannot be told without Redis."""

    board: str
    lines: list[Line]
    own_saved_minor: int
    own_rank: int | None


_sale = msgspec.json.Decoder(Sale)


async def rank(shop: Shop, lease: Lease, job: outbox.Job) -> None:
    """The buyer stands where Postgres says. Raises: RedisDown, Busy: the job runs again later."""
    order_id, pg, redis = job.read(_sale).order_id, shop.deps.pg, shop.deps.redis
    standings = await leaderboard.standings(pg, order_id)
    for _ in range(WRITES):
        await asyncio.gather(*(leaderboard.score(redis, standing) for standing in standings))
        written, standings = standings, await leaderboard.standings(pg, order_id)
        if standings == written:
            await outbox.finish(pg, lease)
            return
    raise Busy("the buyer's savings change all the time")


async def ranking(shop: Shop, period: str, currency: str, *, user_id: int, size: int) -> Ranking:
    """The first lines of a board, and where this user (0: nobody) stands."""
    board = leaderboard.which(period, currency, clock.now())
    try:
        found = await _in_redis(shop, board, user_id, size)
    except RedisDown as error:
        log.warning("leaderboard without Redis", board=board.board, error=str(error))
        found = None
    if found is None:
        return await _from_postgres(shop, board, user_id, size)
    scores = [(int(user), int(float(saved))) for user, saved in zip(found.lines[::2], found.lines[1::2], strict=True)]
    names = await leaderboard.names(shop.deps.pg, [user for user, _ in scores]) if scores else {}
    savers = [Saver(user, saved, names.get(user, "")) for user, saved in scores]
    return Ranking(board.board, _lines(savers), int(float(found.own_saved)), found.own_rank)


async def _in_redis(shop: Shop, board: Which, user_id: int, size: int) -> Board | None:
    """What Redis has, built first if need be; None when that takes too long."""
    for _ in range(LOOKS):
        found = await leaderboard.top(shop.deps.redis, board, user_id, size)
        if isinstance(found, Board):
            return found
        await shop.boards.builds.join(board, lambda: _build(shop, board))
    return None


async def _build(shop: Shop, board: Which) -> None:
    """The board is there, or another builds it; it may be gone again, or its lease lost: the next look tells."""
    token = token_hex(8)
    match await leaderboard.build(shop.deps.redis, board, token):
        case Theirs():
            await asyncio.sleep(PAUSE_S)
        case Ours():
            savings = await leaderboard.savings(shop.deps.pg, board)
            done = await leaderboard.fill(shop.deps.redis, board, token, savings)
            log.info("leaderboard built", board=board.board, users=len(savings), outcome=type(done).__name__)


async def _from_postgres(shop: Shop, board: Which, user_id: int, size: int) -> Ranking:
    savers = await shop.boards.reads.join(board, lambda: leaderboard.best(shop.deps.pg, board))
    own = await leaderboard.own(shop.deps.pg, board, user_id) if user_id else 0
    rank: int | None = 0
    if own:  # known as long as nobody who is not on the list has saved more
        known = len(savers) < leaderboard.MOST or own >= savers[-1].saved_minor
        rank = 1 + sum(saver.saved_minor > own for saver in savers) if known else None
    return Ranking(board.board, _lines(savers[:size]), own, rank)


def _lines(savers: list[Saver]) -> list[Line]:
    lines: list[Line] = []
    for place, saver in enumerate(savers, 1):
        rank = lines[-1].rank if lines and lines[-1].saved_minor == saver.saved_minor else place
        lines.append(Line(rank, saver.user_id, leaderboard.short_name(saver.name), saver.saved_minor))
    return lines
