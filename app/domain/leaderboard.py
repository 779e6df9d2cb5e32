"""The leaderboard: who saved most against list prices, ever, this month and this ISO week, per currency.

Postgres knows; Redis keeps each board sorted. What a user has saved is written as what Postgres says, never added up:
so repeats and order do not matter. A board that is lost is built anew by one process of all; what is sold meanwhile is
noted beside it, and wins over what the builder had read before.
"""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec

from app.base import keys
from app.base.flights import Flights
from app.infra.lua import Redis, Script
from app.infra.sql import Many, One, Postgres

PERIODS = ("all", "month", "week")
LIFE_MS = 3_600_000  # of a board from its building on, however often it is written
BUILD_MS = 10_000
STAGED = 2000  # lines of one call
MOST = 100  # lines that are shown
EVER = datetime(1970, 1, 1, tzinfo=UTC)


class Which(msgspec.Struct, frozen=True):
    """One board: its name, the currency, and from when on it counts."""

    board: str  # all, 2031-01, 2031-W01
    currency: str
    since: datetime


class Saving(msgspec.Struct, frozen=True):
    user_id: int
    saved_minor: int


class Saver(msgspec.Struct, frozen=True):
    user_id: int
    saved_minor: int
    name: str


class Standing(msgspec.Struct, frozen=True):
    """What a user has saved on one board."""

    board: str
    user_id: int
    currency: str
    saved_minor: int


class Own(msgspec.Struct, frozen=True):
    saved_minor: int


class Named(msgspec.Struct, frozen=True):
    user_id: int
    name: str


class Board(msgspec.Struct, frozen=True):
    """User, saved, user, saved … the highest first; what the asking user saved, and how many have more, plus one."""

    own_saved: bytes
    own_rank: int
    lines: tuple[bytes, ...]


class Absent(msgspec.Struct, frozen=True):
    """Redis has no such board."""


class Scored(msgspec.Struct, frozen=True):
    """The board has it."""


class Noted(msgspec.Struct, frozen=True):
    """The board that is being built will have it."""


class Ours(msgspec.Struct, frozen=True):
    """The caller builds."""


class Theirs(msgspec.Struct, frozen=True):
    """Another builds."""


class There(msgspec.Struct, frozen=True):
    """Nobody need build."""


class Staged(msgspec.Struct, frozen=True):
    """It is kept until the board opens."""


class Opened(msgspec.Struct, frozen=True):
    """Everybody sees the board."""


class Lost(msgspec.Struct, frozen=True):
    """The lease was over: nothing is kept."""


class Flying(msgspec.Struct, frozen=True):
    """What one process does at this moment, each once for all who want it."""

    builds: Flights[Which, None] = msgspec.field(default_factory=Flights)
    reads: Flights[Which, list[Saver]] = msgspec.field(default_factory=Flights)  # of Postgres, while Redis is out

    async def finish(self) -> None:
        await self.builds.finish()
        await self.reads.finish()


TOP: Script[Board | Absent] = Script("leaderboard/top", Board, Absent)
SCORE: Script[Scored | Noted | Absent] = Script("leaderboard/score", Scored, Noted, Absent)
BUILD: Script[Ours | Theirs | There] = Script("leaderboard/build", Ours, Theirs, There)
STAGE: Script[Staged | Lost] = Script("leaderboard/stage", Staged, Lost)
OPEN: Script[Opened | Lost] = Script("leaderboard/open", Opened, Lost)

SCRIPTS = (TOP, SCORE, BUILD, STAGE, OPEN)

SAVINGS = Many("leaderboard/list_savings", Saving)
STANDINGS = Many("leaderboard/sum_savings", Standing)
BEST = Many("leaderboard/list_best", Saver)
OWN = One("leaderboard/sum_own", Own)
NAMES = Many("leaderboard/name_users", Named)


def which(period: str, currency: str, now: datetime) -> Which:
    """The board of this period at this moment (UTC)."""
    day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "month":
        return Which(f"{day:%Y-%m}", currency, day.replace(day=1))
    if period == "week":
        return Which(f"{day:%G-W%V}", currency, day - timedelta(days=day.weekday()))
    return Which("all", currency, EVER)


async def top(redis: Redis, board: Which, user_id: int, size: int) -> Board | Absent:
    """The best of the board, and where this user stands; 0 is nobody."""
    return await TOP(redis, keys=_keys(board.board, board.currency)[:1], args=[user_id, size])


async def score(redis: Redis, standing: Standing) -> Scored | Noted | Absent:
    """The user's savings are these, unless the board is absent: whoever builds it reads Postgres."""
    wanted = _keys(standing.board, standing.currency)[:2]
    return await SCORE(redis, keys=wanted, args=[standing.user_id, standing.saved_minor])


async def build(redis: Redis, board: Which, token: str) -> Ours | Theirs | There:
    return await BUILD(redis, keys=_keys(board.board, board.currency), args=[token, BUILD_MS])


async def fill(redis: Redis, board: Which, token: str, savings: list[Saving]) -> Opened | Lost:
    """What was read under this token, and what was scored since, is the board; lost, and nothing is there."""
    place, building, stage = _keys(board.board, board.currency)
    for start in range(0, max(len(savings), 1), STAGED):
        lines = [part for one in savings[start : start + STAGED] for part in (one.user_id, one.saved_minor)]
        if isinstance(await STAGE(redis, keys=[building, stage], args=[token, BUILD_MS, *lines]), Lost):
            return Lost()
    return await OPEN(redis, keys=[place, building, stage], args=[token, len(savings), LIFE_MS])


async def savings(pg: Postgres, board: Which) -> list[Saving]:
    """Everybody's, in no order."""
    return await SAVINGS(pg, board.currency, board.since)


async def standings(pg: Postgres, order_id: UUID) -> list[Standing]:
    """What the order's buyer has saved in its currency, on each board of this moment."""
    return await STANDINGS(pg, order_id)


async def best(pg: Postgres, board: Which) -> list[Saver]:
    """The board's first lines without Redis: one look at all that was delivered in the period."""
    return await BEST(pg, board.currency, board.since, MOST)


async def own(pg: Postgres, board: Which, user_id: int) -> int:
    return (await OWN(pg, user_id, board.currency, board.since)).saved_minor


async def names(pg: Postgres, user_ids: list[int]) -> dict[int, str]:
    return {one.user_id: one.name for one in await NAMES(pg, user_ids)}


def short_name(name: str) -> str:
    """What others may see: the first name, and the first letter of the next."""
    first, *rest = name.split() or [""]
    return f"{first[:32]} {rest[0][0].upper()}." if rest else first[:32]


def _keys(board: str, currency: str) -> list[str]:
    """The board, who builds it, and what is built."""
    return [
        keys.rank_board(board, currency), keys.rank_building(board, currency), keys.rank_stage(board, currency),
    ]  # fmt: skip
