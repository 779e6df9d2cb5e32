"""`torg dead`, as an operator runs it: a process on the shop's own database."""

from tests.test_desk import torg
from tests.world import World

OWE = "INSERT INTO outbox (kind, key, payload) VALUES ($1, $2, $3::text::jsonb) RETURNING id"


async def test_dead_letters_are_looked_at_replayed_and_dropped_at_the_machine(world: World) -> None:
    bad = await world.scalar(OWE, "tell", "one", '{"order_id": 7}')
    unknown = await world.scalar(OWE, "of_tomorrow", "two", '{"n": 1}')
    await world.drain()

    code, said = await torg(world, "dead", "list")
    assert (code, said.splitlines()[-1]) == (0, "2 dead letters")
    assert f"{unknown} " in said
    assert "of_tomorrow two 1 tries no handler for of_tomorrow" in said
    code, said = await torg(world, "dead", "list", "--kind", "tell", "--limit", "1", "--since", "2020-01-01")
    assert (code, len(said.splitlines()), "tell one 1 tries BadPayload" in said) == (0, 2, True)
    assert (await torg(world, "dead", "list", "--since", "2199-01-01"))[1] == "0 dead letters\n"

    code, said = await torg(world, "dead", "show", str(unknown))
    assert code == 0
    assert 'payload   {"n": 1}' in said
    assert (await torg(world, "dead", "show", "999999"))[0] == 1

    code, said = await torg(world, "dead", "replay", "--all", "--dry-run")
    assert (code, said.splitlines()) == (0, ["2 dead letters would be owed again", f"{bad} {unknown}"])
    await world.pg.fetch("UPDATE outbox SET kind = 'refresh' WHERE id = $1", (unknown,))  # tomorrow has come
    code, said = await torg(world, "dead", "replay", str(unknown), "999999")
    assert (code, "999999 is no dead letter" in said, "1 dead letters are owed again" in said) == (1, True, True)
    await world.drain()
    assert await world.scalar("SELECT state FROM outbox WHERE id = $1", unknown) == "done"
    for which in ([], [str(bad), "--all"], ["--kind", "tell", "--all"]):
        assert (await torg(world, "dead", "replay", *which))[0] == 2

    assert await torg(world, "dead", "drop", str(bad)) == (0, f"{bad} is dropped\n")
    assert (await torg(world, "dead", "drop", str(bad)))[0] == 1
    said = (await torg(world, "dead", "show", str(bad)))[1]
    assert "state     dropped" in said
    assert "history   " in said
    assert " dropped by " in said
    acts = await world.pg.fetch(
        "SELECT what ->> 'by' IS NOT NULL, user_id, what ? 'dropped' FROM changes ORDER BY id", ()
    )
    assert [tuple(act) for act in acts] == [(True, None, False), (True, None, True)]
