"""Migrations: `sql/migrations/NNNN_words.sql`, plain SQL, forward only, each applied once.

An advisory lock lets any number of processes call `migrate` at the same time; a checksum refuses a file
that was edited after it had been applied.
"""

import hashlib
from pathlib import Path

import asyncpg

from app.errors import PostgresDown
from app.infra.sql import ROOT

LOCK = 0x746F7267  # "torg": any constant will do, as long as every release uses the same

LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version    int PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)"""


class BadMigration(Exception):
    """A migration file was edited after it had been applied, is misnamed, or is newer than this release."""


def files(root: Path = ROOT / "migrations") -> list[tuple[int, Path]]:
    """Every migration in order. Raises: BadMigration when numbers are not 1, 2, 3 …"""
    found = sorted(root.glob("*.sql"))
    if [path.name[:5] for path in found] != [f"{number:04}_" for number in range(1, len(found) + 1)]:
        raise BadMigration(f"{root}: migrations are not named 0001_words.sql, 0002_…")
    return list(enumerate(found, 1))


async def _connected(url: str) -> "asyncpg.Connection[asyncpg.Record]":
    try:
        return await asyncpg.connect(url)
    except (OSError, asyncpg.PostgresError) as error:
        raise PostgresDown(f"Postgres does not answer ({type(error).__name__})") from error


async def migrate(url: str, root: Path = ROOT / "migrations") -> list[str]:
    """The database has every migration; returns the names of those applied now.

    Raises: BadMigration; asyncpg's error when a file fails, with that file undone and the earlier ones kept.
    """
    # A connection of its own: the advisory lock is session state, and pooled connections have none.
    connection = await _connected(url)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
        await connection.execute(LEDGER)
        done = {
            row["version"]: row["checksum"]
            for row in await connection.fetch("SELECT version, checksum FROM schema_migrations")
        }
        known = files(root)
        if done and max(done) > len(known):
            raise BadMigration(f"the database is at migration {max(done)}, this release knows {len(known)}")
        applied = []
        for version, path in known:
            text = path.read_text()
            checksum = hashlib.sha256(text.encode()).hexdigest()
            if version in done:
                if done[version] != checksum:
                    raise BadMigration(f"{path.name} was edited after it had been applied")
                continue
            async with connection.transaction():
                await connection.execute(text)
                await connection.execute(
                    "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)",
                    version, path.stem, checksum,
                )  # fmt: skip
            applied.append(path.stem)
        return applied
    finally:
        await connection.close()


async def pending(url: str, root: Path = ROOT / "migrations") -> list[str]:
    """The names of the migrations that the database lacks."""
    connection = await _connected(url)
    try:
        ledger = await connection.fetchval("SELECT to_regclass('schema_migrations') IS NOT NULL")
        rows = await connection.fetch("SELECT version FROM schema_migrations") if ledger else []
        done = {row["version"] for row in rows}
        return [path.stem for version, path in files(root) if version not in done]
    finally:
        await connection.close()
