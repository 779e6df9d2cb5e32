"""Postgres as the rest of Torg sees it: named statements from `sql/queries`, typed rows, one pool.

A statement is a module constant of the noun that owns it. The text Postgres gets is the text in the file;
tests/sql prepares every one and compares parameters and columns with its header and its Struct.
"""

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import asyncpg
import msgspec
import structlog

from app.base import tally
from app.errors import PostgresDown

log = structlog.get_logger(__name__)

ROOT = Path(__file__).parents[2] / "sql"

R = TypeVar("R", bound=msgspec.Struct)

CLOSE_S = 0.5  # what a connection in use gets when the process ends

_HEADER = re.compile(r"-- name: (\w+) :(one|opt|many|exec)(?: (\w+))?")
_PARAM = re.compile(r"-- \$(\d+) (\w+)\s+([\w\[\]]+)(?:\s+-- .*)?")

# Planning our views takes longer than reading them: with 240,000 units, create_order 1.6 instead of 4.8 ms,
# count_units 0.15 instead of 0.8 ms. That generic plans are good ones is what tests/sql/test_plans.py holds.
PLANS = {"plan_cache_mode": "force_generic_plan"}

# What asyncpg raises when the server, not the statement, is at fault.
_DOWN = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a pooled connection whose backend was ended a moment ago
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InsufficientResourcesError,  # too many connections, disk full, out of memory
    asyncpg.ReadOnlySQLTransactionError,  # a standby, after a failover
    asyncpg.QueryCanceledError,
    asyncpg.DeadlockDetectedError,
)

# A unique key refused a row, and with it the whole statement: for callers to whom that is an expected outcome.
AlreadyThere = asyncpg.UniqueViolationError


class BadStatement(Exception):
    """A query file and the code that names its statement disagree."""


class Param(msgspec.Struct, frozen=True):
    """One `-- $n name type` line."""

    name: str
    type: str


class Query(msgspec.Struct, frozen=True):
    """One statement as its file states it."""

    name: str
    mode: str
    row: str
    params: tuple[Param, ...]
    text: str


@cache
def queries(noun: str, root: Path = ROOT) -> dict[str, Query]:
    """The statements of `sql/queries/<noun>.sql` by name. Raises: BadStatement when the file breaks the grammar."""
    path = root / "queries" / f"{noun}.sql"
    found: dict[str, Query] = {}
    for block in re.split(r"(?m)^(?=-- name: )", path.read_text())[1:]:
        lines = block.rstrip().splitlines()
        header = _HEADER.fullmatch(lines[0])
        if header is None:
            raise BadStatement(f"{path.name}: {lines[0]!r} is not '-- name: verb :one|opt|many|exec Row'")
        declared = [match for line in lines[1:] if (match := _PARAM.fullmatch(line.strip()))]
        if [int(match[1]) for match in declared] != list(range(1, len(declared) + 1)):
            raise BadStatement(f"{path.name}: {header[1]}: parameters are not listed once each, in order")
        params = tuple(Param(match[2], match[3]) for match in declared)
        if (header[2] == "exec") != (header[3] is None):
            raise BadStatement(f"{path.name}: {header[1]}: exec has no row, every other mode has one")
        found[header[1]] = Query(header[1], header[2], header[3] or "", params, "\n".join(lines) + "\n")
    return found


class Postgres:
    """The connection pool; connections carry no session state, so none is reset on release (PROBE B3)."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", timeout_ms: int) -> None:
        self.pool = pool
        self.timeout_s = timeout_ms / 1000

    @classmethod
    async def open(cls, url: str, *, pool_size: int, timeout_ms: int) -> Self:
        """A pool of at most `pool_size` connections. Raises: PostgresDown when Postgres does not answer."""
        try:
            try:
                pool = await _pool(url, pool_size, timeout_ms, PLANS)
            except asyncpg.ProtocolViolationError as error:  # a pooler in between knows no such setting
                log.warning("each statement is planned anew", error=str(error))
                pool = await _pool(url, pool_size, timeout_ms, {})
        except _DOWN as error:
            raise PostgresDown("Postgres does not answer") from error
        return cls(pool, timeout_ms)

    async def close(self) -> None:
        """Every connection is closed; those that still wait for an answer after `CLOSE_S` are cut."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self.pool.close()  # cancelled, it cuts them

    async def fetch(self, text: str, args: Sequence[object]) -> "list[asyncpg.Record]":
        """The rows of one statement. Raises: PostgresDown; any other driver error is a defect and passes."""
        try:
            async with self.pool.acquire(timeout=self.timeout_s) as connection:
                rows: list[asyncpg.Record] = await connection.fetch(text, *args, timeout=self.timeout_s)
                return rows
        except _DOWN as error:
            raise PostgresDown("Postgres does not answer") from error


async def _pool(url: str, pool_size: int, timeout_ms: int, settings: dict[str, str]) -> "asyncpg.Pool[asyncpg.Record]":
    return await asyncpg.create_pool(
        url, min_size=min(2, pool_size), max_size=pool_size, timeout=timeout_ms / 1000, reset=_keep,
        server_settings=settings,
    )  # fmt: skip


async def _keep(_connection: object) -> None:
    """Leaves a released connection as it is: asyncpg's own reset is a round trip on every release."""


class Statement(Generic[R]):
    """A named statement of `sql/queries/<noun>.sql`, checked at import against its header."""

    mode = ""

    def __init__(self, path: str, row: type[R] | None = None) -> None:
        noun, _, name = path.partition("/")
        query = queries(noun).get(name)
        if query is None:
            raise BadStatement(f"sql/queries/{noun}.sql has no {name!r}")
        if query.mode != self.mode:
            raise BadStatement(f"{path} is :{query.mode}, the code calls it :{self.mode}")
        if query.row != (row.__name__ if row else ""):
            raise BadStatement(f"{path} yields {query.row or 'nothing'}, the code reads {row and row.__name__}")
        self.path, self.query, self.row = path, query, row
        self._times = tally.STATEMENTS.of(path)

    async def _rows(self, pg: Postgres, args: tuple[object, ...]) -> list[R]:
        if len(args) != len(self.query.params):
            raise TypeError(f"{self.path} takes {len(self.query.params)} parameters, got {len(args)}")
        row: Any = self.row
        return [row(*record) for record in await self._times.timed(pg.fetch(self.query.text, args))]


class One(Statement[R]):
    """Always exactly one row."""

    mode = "one"

    async def __call__(self, pg: Postgres, *args: object) -> R:
        (row,) = await self._rows(pg, args)
        return row


class Opt(Statement[R]):
    """One row or None."""

    mode = "opt"

    async def __call__(self, pg: Postgres, *args: object) -> R | None:
        rows = await self._rows(pg, args)
        return rows[0] if rows else None


class Many(Statement[R]):
    """Any number of rows."""

    mode = "many"

    async def __call__(self, pg: Postgres, *args: object) -> list[R]:
        return await self._rows(pg, args)
