"""Dead letters: found, replayed or dropped on record, each in one statement."""

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from app.base import clock
from app.base.ids import new_id
from app.base.lease import Lease
from app.domain import dead, outbox
from app.infra.sql import Postgres

MACHINE = dead.By(0, "ann")
OWE = "INSERT INTO outbox (kind, key, payload) VALUES ($1, $2, '{\"n\": 1}') RETURNING id"
MAX = 2**63 - 1


async def letter(pg: Postgres, kind: str = "tell", error: str = "ValueError('no')") -> int:
    ((outbox_id,),) = await pg.fetch(OWE, (kind, str(new_id())))
    lease = Lease(outbox_id, new_id(), 60)
    assert await outbox.claim(pg, lease)
    assert await outbox.bury(pg, lease, error)
    return int(outbox_id)


async def column(pg: Postgres, name: str, outbox_id: int) -> Any:
    return (await pg.fetch(f"SELECT {name} FROM outbox WHERE id = $1", (outbox_id,)))[0][0]


async def records(pg: Postgres) -> list[dict[str, Any]]:
    rows = await pg.fetch("SELECT user_id, role, noun, noun_id, what::text FROM changes ORDER BY id", ())
    assert {tuple(row)[1:4] for row in rows} <= {("admin", "dead", None)}
    return [msgspec.json.decode(row["what"]) | {"user_id": row["user_id"]} for row in rows]


async def listed(pg: Postgres, kind: str = "", **how: Any) -> list[int]:
    return [one.id for one in await dead.newest(pg, kind, **({"before": MAX, "size": 10} | how))]


async def test_dead_letters_are_listed_the_newest_first(pg: Postgres) -> None:
    ids = [await letter(pg, kind) for kind in ("tell", "settle", "tell")]
    await pg.fetch(OWE, ("tell", "owed"))
    assert await listed(pg) == ids[::-1]
    assert await listed(pg, "tell") == [ids[2], ids[0]]
    assert await listed(pg, "deliver") == []
    assert await listed(pg, before=ids[1]) == ids[:1]
    assert await listed(pg, size=1) == ids[2:]
    assert await listed(pg, since=clock.now() + timedelta(hours=1)) == []
    assert await listed(pg, since=clock.now() - timedelta(hours=1)) == ids[::-1]


async def test_a_dead_letter_says_all_that_is_known(pg: Postgres) -> None:
    outbox_id = await letter(pg)
    found = await dead.get(pg, outbox_id)
    assert found is not None
    assert (found.kind, found.state, found.payload, found.attempts) == ("tell", "dead", '{"n": 1}', 1)
    assert (found.last_error, found.history) == ("ValueError('no')", "")
    assert await dead.get(pg, 10**9) is None


async def test_a_replay_starts_anew_and_keeps_the_story(pg: Postgres) -> None:
    outbox_id, other = await letter(pg), await letter(pg)
    (replayed,) = await dead.replay(pg, [outbox_id], "", MACHINE, dry_run=False)
    assert replayed.id == outbox_id
    assert await dead.get(pg, outbox_id) is None
    job = await outbox.claim(pg, mine := Lease(outbox_id, new_id(), 60))
    assert job is not None
    assert (job.attempts, job.orphaned) == (1, 0)
    await outbox.bury(pg, mine, "again")
    found = await dead.get(pg, outbox_id)
    assert found is not None
    assert found.last_error == "again"
    assert found.history.partition(" replayed ")[2] == "by ann, after 1 attempts and ValueError('no')\n"
    await dead.replay(pg, [outbox_id], "", MACHINE, dry_run=False)
    assert (await column(pg, "history", outbox_id)).count("\n") == 2
    assert await records(pg) == [{"by": "ann", "replayed": [outbox_id], "user_id": None}] * 2
    assert await listed(pg) == [other]


async def test_a_dry_run_says_which_and_changes_nothing(pg: Postgres) -> None:
    ids = [await letter(pg) for _ in range(3)]
    found = await dead.replay(pg, None, "", MACHINE, dry_run=True)
    assert [one.id for one in found] == ids
    assert await listed(pg) == ids[::-1]
    assert (await records(pg), await column(pg, "history", ids[0])) == ([], "")


async def test_a_replay_takes_those_of_a_kind_or_all_and_nothing_else(pg: Postgres) -> None:
    tell, settle, dropped = await letter(pg), await letter(pg, "settle"), await letter(pg)
    ((owed,),) = await pg.fetch(OWE, ("tell", "owed"))
    await dead.drop(pg, dropped, MACHINE)
    assert [one.id for one in await dead.replay(pg, None, "tell", MACHINE, dry_run=False)] == [tell]
    assert await dead.replay(pg, [tell, owed, dropped, 10**9], "", MACHINE, dry_run=False) == []
    assert await dead.replay(pg, [], "", MACHINE, dry_run=False) == []
    assert await listed(pg) == [settle]
    assert [one.id for one in await dead.replay(pg, None, "", MACHINE, dry_run=False)] == [settle]
    assert await column(pg, "state", dropped) == "dropped"


async def test_two_replays_at_once_take_each_letter_once(pg: Postgres) -> None:
    ids = [await letter(pg) for _ in range(5)]
    both = await asyncio.gather(*(dead.replay(pg, None, "", MACHINE, dry_run=False) for _ in range(2)))
    assert sorted(one.id for taken in both for one in taken) == ids
    assert len(await records(pg)) == 1


async def test_a_replay_takes_no_more_than_a_statement_should(pg: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead, "MOST", 2)
    ids = [await letter(pg) for _ in range(3)]
    assert [one.id for one in await dead.replay(pg, None, "", MACHINE, dry_run=False)] == ids[:2]
    assert await listed(pg) == ids[2:]


async def test_what_is_dropped_stays_with_its_story_and_is_never_owed_again(pg: Postgres) -> None:
    ((user_id,),) = await pg.fetch("INSERT INTO users (telegram_id, name) VALUES (1, 'Eve') RETURNING id", ())
    outbox_id = await letter(pg)
    key = await column(pg, "key", outbox_id)
    assert await dead.drop(pg, outbox_id, dead.By(user_id, "user 1"))
    assert await dead.drop(pg, outbox_id, MACHINE) is None
    found = await dead.get(pg, outbox_id)
    assert found is not None
    assert (found.state, found.payload, found.last_error) == ("dropped", '{"n": 1}', "ValueError('no')")
    assert found.history.endswith(" dropped by user 1\n")
    assert await listed(pg) == []
    anew = "INSERT INTO outbox (kind, key, payload) VALUES ('tell', $1, '{}') ON CONFLICT DO NOTHING RETURNING id"
    assert await pg.fetch(anew, (key,)) == []
    (record,) = await records(pg)
    assert record == {
        "by": "user 1", "dropped": [outbox_id], "kind": "tell", "key": key, "error": "ValueError('no')",
        "user_id": user_id,
    }  # fmt: skip
