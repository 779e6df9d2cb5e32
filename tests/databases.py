"""A database for each test, like a new one: the one before, with what its test left taken out of it.

A copy of the template takes 0.2 s here, for a thousand tests and more; taking rows out takes a sixth of it. A database
whose schema, settings or planner statistics a test has changed, or that has grown, is thrown away instead.
"""

import os

import asyncpg

LARGE_BYTES = 1 << 20  # of one table: to delete from it and vacuum would cost more than a copy

# Nobody is connected any more, so that nothing is written after the rows are gone.
ALONE = """
SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"""
# What must be as it was for the database to be used again.
PRINT = f"""
SELECT md5(coalesce(string_agg(x, ',' ORDER BY x), '')) FROM (
    SELECT format('%s %s %s %s %s', c.relname, c.relkind, c.relnatts, c.relhastriggers, c.reltuples <= 0
                  OR NOT c.relkind IN ('r', 'i')) AS x FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace
    UNION ALL SELECT format('%s %s', c.conname, c.conrelid) FROM pg_constraint c
    UNION ALL SELECT format('%s %s %s', t.tgname, t.tgrelid, t.tgenabled) FROM pg_trigger t
    UNION ALL SELECT format('%s %s', p.oid, md5(p.prosrc)) FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
    UNION ALL SELECT format('%s %s', s.setrole, s.setconfig) FROM pg_db_role_setting s
    UNION ALL SELECT format('large %s', c.relname) FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace
      AND c.relkind = 'r' AND pg_relation_size(c.oid) > {LARGE_BYTES}) f"""


class Databases:
    """The databases of one test process, one in use at a time."""

    def __init__(self, server_url: str, template: str) -> None:
        self.server_url, self.template = server_url, template
        self.name, self.clean = "", False
        self.made = 0
        self.print = ""
        self.seeds: dict[str, str] = {}  # the template's rows by table, as JSON
        self.counters: dict[str, int | None] = {}  # the template's sequences

    def url(self, name: str) -> str:
        return self.server_url.replace("/torg?", f"/{name}?")

    async def take(self) -> str:
        """The URL of a database that is as the template is."""
        if not self.clean:
            await self._make()
        self.clean = False
        return self.url(self.name)

    async def give_back(self) -> None:
        """What the test has left is gone, or will not be met again."""
        eye = await asyncpg.connect(self.url(self.name))
        try:
            await eye.execute(ALONE)
            if await eye.fetchval(PRINT) != self.print:
                return
            async with eye.transaction():
                await self._sweep(eye)
            self.clean = True
        finally:
            await eye.close()

    async def _sweep(self, eye: asyncpg.Connection) -> None:
        await eye.execute("SET LOCAL session_replication_role = replica")  # no triggers, no foreign keys
        for table in await _filled(eye):
            seed = self.seeds.get(table)
            if seed is not None and await _rows(eye, table) == seed:
                continue
            await eye.execute(f'DELETE FROM public."{table}"')
            if seed is not None:
                await self._sow(eye, table, seed)
        for table in self.seeds.keys() - set(await _filled(eye)):
            await self._sow(eye, table, self.seeds[table])
        for name, value in (await _counters(eye)).items():
            if value != (was := self.counters.get(name)):
                await eye.execute(
                    "SELECT setval(format('public.%I', $1::text), $2, $3)", name, was or 1, was is not None
                )

    async def _sow(self, eye: asyncpg.Connection, table: str, seed: str) -> None:
        into = f'public."{table}"'
        await eye.execute(
            f"INSERT INTO {into} OVERRIDING SYSTEM VALUE SELECT * FROM jsonb_populate_recordset(NULL::{into}, $1)", seed
        )

    async def _make(self) -> None:
        """A new copy of the template, which is looked at the first time."""
        admin = await asyncpg.connect(self.server_url)
        try:
            if self.name:
                await admin.execute(f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)")
            self.made += 1
            self.name = f"t_{os.getpid()}_{self.made}"
            await admin.execute(f"CREATE DATABASE {self.name} TEMPLATE {self.template}")
        finally:
            await admin.close()
        eye = await asyncpg.connect(self.url(self.name))
        try:
            self.print = await eye.fetchval(PRINT)  # ids of a copy are its own
            if not self.counters:
                self.counters = await _counters(eye)
                self.seeds = {table: await _rows(eye, table) for table in await _filled(eye)}
        finally:
            await eye.close()


async def _filled(eye: asyncpg.Connection) -> list[str]:
    """The tables that have rows."""
    tables = await eye.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY relname"
    )
    names = [table["relname"] for table in tables]
    one = " UNION ALL ".join(f"SELECT '{name}' AS name WHERE EXISTS (SELECT FROM public.\"{name}\")" for name in names)
    return [row["name"] for row in await eye.fetch(one)]


async def _rows(eye: asyncpg.Connection, table: str) -> str:
    return str(await eye.fetchval(f'SELECT jsonb_agg(to_jsonb(t) ORDER BY t::text) FROM public."{table}" t'))


async def _counters(eye: asyncpg.Connection) -> dict[str, int | None]:
    """The last value of every sequence; None: not called yet."""
    rows = await eye.fetch("SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'public'")
    return {row["sequencename"]: row["last_value"] for row in rows}
