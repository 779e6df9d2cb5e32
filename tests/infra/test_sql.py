"""The pool: plans are made once, and a pooler that will not hear of that is no reason not to start."""

from typing import Any

import asyncpg
import pytest

from app.infra.sql import Postgres

MODE = "SELECT current_setting('plan_cache_mode')"


async def test_statements_are_planned_once(pg: Postgres) -> None:
    assert [tuple(row) for row in await pg.fetch(MODE, ())] == [("force_generic_plan",)]


async def test_a_pooler_that_knows_no_such_setting_is_asked_without_it(
    pg_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_pool, refused = asyncpg.create_pool, []

    async def pooler(url: str, **given: Any) -> Any:
        if given["server_settings"]:
            refused.append(given["server_settings"])
            raise asyncpg.ProtocolViolationError("unsupported startup parameter: plan_cache_mode")
        return await create_pool(url, **given)

    monkeypatch.setattr(asyncpg, "create_pool", pooler)
    pg = await Postgres.open(pg_url, pool_size=1, timeout_ms=10_000)
    assert [tuple(row) for row in await pg.fetch(MODE, ())] == [("auto",)]
    assert len(refused) == 1
    await pg.close()
