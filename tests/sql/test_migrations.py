"""Migrations: forward only, each once, whoever calls and however often."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from app.infra.embedded import Servers
from app.infra.migrate import BadMigration, files, migrate, pending
from tests.house import generate

SCHEMA = (generate.ROOT / "sql/schema.sql").read_text()
REAL = [path.stem for _, path in files()]

ONE = "CREATE TABLE one (id int);"
TWO = "CREATE TABLE two (id int); INSERT INTO two VALUES (2);"
BROKEN = "CREATE TABLE half (id int); SELECT 1 / 0;"


@pytest.fixture
async def empty_url(servers: Servers) -> AsyncIterator[str]:
    """A database with nothing in it."""
    name = f"empty_{uuid4().hex}"
    admin = await asyncpg.connect(servers.database_url)
    try:
        await admin.execute(f"CREATE DATABASE {name}")
        yield servers.database_url.replace("/torg?", f"/{name}?")
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return written(tmp_path, ONE, TWO)


def written(root: Path, *texts: str) -> Path:
    """Migrations 0001, 0002 … with these texts and no others."""
    for path in root.glob("*.sql"):
        path.unlink()
    for number, text in enumerate(texts, 1):
        (root / f"{number:04}_step.sql").write_text(text)
    return root


async def fetch(url: str, query: str) -> list[Any]:
    """The first column."""
    connection = await asyncpg.connect(url)
    try:
        return [row[0] for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def tables(url: str) -> set[str]:
    return set(await fetch(url, "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'"))


async def dumped(url: str) -> str:
    return await asyncio.to_thread(generate.schema, url)


# ---- the real ones


async def test_the_migrations_make_what_schema_sql_says(empty_url: str) -> None:
    assert await migrate(empty_url) == REAL
    assert await dumped(empty_url) == SCHEMA


async def test_schema_sql_is_whole(empty_url: str) -> None:
    connection = await asyncpg.connect(empty_url)
    await connection.execute(SCHEMA)
    await connection.close()
    assert await dumped(empty_url) == SCHEMA


# ---- once


async def test_migrating_twice_is_a_no_op(empty_url: str, root: Path) -> None:
    ledger = "SELECT schema_migrations::text FROM schema_migrations ORDER BY version"
    assert await migrate(empty_url, root) == ["0001_step", "0002_step"]
    before = await fetch(empty_url, ledger)
    assert await migrate(empty_url, root) == []
    assert await fetch(empty_url, ledger) == before
    assert await fetch(empty_url, "SELECT id FROM two") == [2]


async def test_only_what_is_new_is_applied(empty_url: str, root: Path) -> None:
    written(root, ONE)
    assert await migrate(empty_url, root) == ["0001_step"]
    written(root, ONE, TWO)
    assert await migrate(empty_url, root) == ["0002_step"]


async def test_ten_at_once_apply_once(empty_url: str, root: Path) -> None:
    applied = await asyncio.gather(*(migrate(empty_url, root) for _ in range(10)))
    assert sorted(applied) == [[]] * 9 + [["0001_step", "0002_step"]]
    assert await fetch(empty_url, "SELECT version FROM schema_migrations ORDER BY version") == [1, 2]
    assert await fetch(empty_url, "SELECT id FROM two") == [2]


async def test_three_processes_at_once_apply_once(empty_url: str) -> None:
    code = "import asyncio, sys; from app.infra.migrate import migrate; print(*asyncio.run(migrate(sys.argv[1])))"

    async def one() -> str:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, empty_url, cwd=generate.ROOT, stdout=asyncio.subprocess.PIPE
        )
        told, _ = await process.communicate()
        assert process.returncode == 0
        return told.decode().strip()

    assert sorted(await asyncio.gather(one(), one(), one())) == ["", "", " ".join(REAL)]
    assert await dumped(empty_url) == SCHEMA


# ---- refused


async def test_an_edited_file_is_refused(empty_url: str, root: Path) -> None:
    await migrate(empty_url, root)
    (root / "0001_step.sql").write_text(ONE + " -- on second thought")
    (root / "0003_step.sql").write_text("CREATE TABLE three (id int);")
    with pytest.raises(BadMigration, match=r"^0001_step.sql was edited"):
        await migrate(empty_url, root)
    assert "three" not in await tables(empty_url)


async def test_a_failing_file_is_undone_and_the_earlier_ones_stay(empty_url: str, root: Path) -> None:
    written(root, ONE, BROKEN, TWO)
    for _ in range(2):
        with pytest.raises(asyncpg.DivisionByZeroError):
            await migrate(empty_url, root)
        assert await tables(empty_url) == {"schema_migrations", "one"}
    written(root, ONE, "CREATE TABLE half (id int);", TWO)
    assert await migrate(empty_url, root) == ["0002_step", "0003_step"]  # and nobody holds the lock


async def test_a_newer_database_is_refused(empty_url: str, root: Path) -> None:
    await migrate(empty_url, root)
    with pytest.raises(BadMigration, match="the database is at migration 2, this release knows 1"):
        await migrate(empty_url, written(root, ONE))


@pytest.mark.parametrize(
    "names",
    [
        ["0002_b.sql"],
        ["0001_a.sql", "0003_c.sql"],
        ["0001_a.sql", "0001_b.sql"],
        ["spine.sql"],
        ["1_a.sql"],
        ["0001a.sql"],
    ],
)
def test_misnamed_files_are_refused(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(BadMigration, match=r"0001_words.sql"):
        files(tmp_path)


# ---- pending


async def test_pending_tells_what_lacks_and_changes_nothing(empty_url: str, root: Path) -> None:
    assert await pending(empty_url, root) == ["0001_step", "0002_step"]
    assert await tables(empty_url) == set()
    await migrate(empty_url, written(root, ONE))
    assert await pending(empty_url, written(root, ONE, TWO, BROKEN)) == ["0002_step", "0003_step"]
    await migrate(empty_url, written(root, ONE, TWO))
    assert await pending(empty_url, root) == []
