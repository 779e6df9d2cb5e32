"""Units come whole batches at a time, each secret once, and leave only while nobody holds them."""

import asyncio
import hashlib
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from app.base import clock
from app.base.ids import new_id
from app.domain import customers, units
from app.domain.units import SHELVE, Actor, Request, Unit
from app.infra.secrets import Sealer, stock_row
from tests.sql.shelf import Shelf

SEALER = Sealer("t1:a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=")
NEWEST = UUID(int=2**128 - 1)
MACHINE = Actor(None, {"by": "root"})
STAFF = "UPDATE users SET role = $2, seller_id = $3 WHERE id = $1"
WHAT = "SELECT role, noun, noun_id, user_id, what::text FROM changes ORDER BY id"
WAITING = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%shelve_units%'"""


def secrets(*texts: str, **more: Any) -> list[Unit]:
    return [Unit(line, text, **more) for line, text in enumerate(texts, 1)]


async def shelve(
    shelf: Shelf, product_id: int, *texts: str, actor: Actor = MACHINE, skip: bool = False, dry: bool = False
) -> units.Shelved:
    sealed = units.seal(SEALER, product_id, secrets(*texts))
    done = await units.shelve(shelf.pg, actor, product_id, sealed, kind="unit", skip_duplicates=skip, dry_run=dry)
    assert done
    return done


async def there(shelf: Shelf) -> int:
    ((number,),) = await shelf.rows("SELECT count(*) FROM stock_items")
    return int(number)


async def test_a_batch_is_there_sealed_each_with_its_own_discount_and_end(shelf: Shelf) -> None:
    product = await shelf.product()
    end = clock.now() + timedelta(days=30)
    given = [Unit(1, "ONE"), Unit(2, "TWO", 500, end)]
    sealed = units.seal(SEALER, product, given)
    done = await units.shelve(shelf.pg, MACHINE, product, sealed, kind="unit", skip_duplicates=False, dry_run=False)
    assert done is not None
    assert (done.word, done.units, done.known, done.seller_id) == ("shelved", 2, [], shelf.seller_id)
    rows = await shelf.rows("SELECT id, sealed, discount_bp, expires_at, state FROM stock_items ORDER BY discount_bp")
    opened = [(SEALER.open(row[1], stock_row(row[0])), *row[2:]) for row in rows]
    assert opened == [(b"ONE", 0, None, "available"), (b"TWO", 500, end, "available")]
    assert await shelf.rows("SELECT id FROM outbox WHERE kind = 'refresh'") == [(done.outbox_id,)]


async def test_one_known_secret_refuses_the_whole_batch(shelf: Shelf) -> None:
    product, other = await shelf.product(), await shelf.product()
    await shelve(shelf, product, "OLD")
    await shelve(shelf, other, "ELSEWHERE")
    owed = await shelf.rows("SELECT count(*) FROM outbox")
    done = await shelve(shelf, product, "NEW", "OLD", "ELSEWHERE")
    assert (done.word, done.units, done.known, done.outbox_id) == ("duplicates", 0, [2], None)
    assert await there(shelf) == 2
    assert await shelf.rows("SELECT count(*) FROM outbox") == owed
    assert len(await shelf.rows(WHAT)) == 2
    skipped = await shelve(shelf, product, "NEW", "OLD", "ELSEWHERE", skip=True)
    assert (skipped.word, skipped.units, skipped.known) == ("shelved", 2, [2])
    assert await there(shelf) == 4


async def test_a_batch_of_known_secrets_only_changes_nothing(shelf: Shelf) -> None:
    product = await shelf.product()
    await shelve(shelf, product, "OLD")
    done = await shelve(shelf, product, "OLD", skip=True)
    assert (done.word, done.units, done.known, done.outbox_id) == ("shelved", 0, [1], None)
    assert len(await shelf.rows(WHAT)) == 1


@pytest.mark.parametrize("state", ["available", "held", "sold", "withdrawn"])
async def test_a_secret_is_known_whatever_became_of_it_and_whoever_added_it(shelf: Shelf, state: str) -> None:
    product = await shelf.product()
    assert (await shelve(shelf, product, "KEY", actor=await keyed(shelf))).word == "shelved"
    await shelf.pg.fetch("UPDATE stock_items SET state = $1", (state,))
    assert (await shelve(shelf, product, "KEY")).word == "duplicates"


async def test_a_dry_run_judges_and_writes_nothing(shelf: Shelf) -> None:
    product = await shelf.product()
    assert (await shelve(shelf, product, "A", "B", dry=True)).units == 2
    assert (await there(shelf), await shelf.rows(WHAT)) == (0, [])


async def test_pieces_are_for_what_is_shipped_and_secrets_for_units(shelf: Shelf) -> None:
    book, key = await shelf.product(kind="shipped"), await shelf.product()
    for product, kind, word, number in ((book, "shipped", "shelved", 3), (key, "shipped", "unfit", 0)):
        done = await units.shelve(
            shelf.pg, MACHINE, product, units.pieces(3, 0, None), kind=kind, skip_duplicates=False, dry_run=False
        )
        assert done is not None
        assert (done.word, done.units) == (word, number)
    assert (await shelve(shelf, book, "KEY")).word == "unfit"
    assert await there(shelf) == 3


# ---- at once


async def test_of_two_batches_with_the_same_secret_one_comes(shelf: Shelf) -> None:
    product = await shelf.product()
    for turn in range(20):
        one, two = await asyncio.gather(
            shelve(shelf, product, *(f"{turn}-A{n}" for n in range(50)), f"{turn}-SAME"),
            shelve(shelf, product, f"{turn}-SAME", *(f"{turn}-B{n}" for n in range(50))),
        )
        assert sorted((one.word, two.word)) == ["duplicates", "shelved"]
        assert await there(shelf) == 51 * (turn + 1)


async def test_who_waited_for_the_same_secret_sees_it_on_the_next_try(shelf: Shelf, pg_url: str) -> None:
    product = await shelf.product()
    slow = await asyncpg.connect(pg_url)
    try:
        await slow.execute("BEGIN")
        sealed = units.seal(SEALER, product, secrets("SAME"))
        columns = [[getattr(unit, name) for unit in sealed] for name in units.Sealed.__struct_fields__[1:]]
        await slow.fetch(SHELVE.query.text, None, product, "unit", *columns, False, False, '{"by": "root"}', None, None)
        second = asyncio.create_task(shelve(shelf, product, "NEW", "SAME"))
        while not (await shelf.rows(WAITING))[0][0]:
            assert not second.done()
        await slow.execute("COMMIT")
    finally:
        await slow.close()
    done = await second
    assert (done.word, done.known) == ("duplicates", [2])
    assert await there(shelf) == 1


# ---- once, by its key


async def keyed(shelf: Shelf, key: str = "monday", body: str = "body", *, role: str = "admin") -> Actor:
    """The shelf's user, in this role, with a request of this key and body."""
    await shelf.pg.fetch(STAFF, (shelf.user_id, role, None))
    return Actor(shelf.user_id, request=Request(key, hashlib.sha256(body.encode()).digest()))


async def deliver(shelf: Shelf, actor: Actor, product_id: int, number: int = 5) -> units.Shelved:
    """So many books."""
    batch = units.pieces(number, 0, None)
    done = await units.shelve(shelf.pg, actor, product_id, batch, kind="shipped", skip_duplicates=False, dry_run=False)
    assert done
    return done


async def test_a_repeat_is_told_what_the_first_one_did(shelf: Shelf) -> None:
    book, key = await shelf.product(kind="shipped"), await shelf.product()
    actor = await keyed(shelf)
    first, again = [await deliver(shelf, actor, book) for _ in range(2)]
    assert (first.word, again.word) == ("shelved", "repeated")
    assert (again.units, again.known, again.seller_id, again.outbox_id) == (5, [], shelf.seller_id, None)
    await shelve(shelf, key, "OLD")
    actor = await keyed(shelf, "tuesday")
    first, again = [await shelve(shelf, key, "NEW", "OLD", actor=actor, skip=True) for _ in range(2)]
    assert (first.word, again.word) == ("shelved", "repeated")
    assert (first.units, first.known) == (again.units, again.known) == (1, [2])
    assert (await there(shelf), len(await shelf.rows(WHAT))) == (7, 3)


async def test_a_key_is_its_users_and_its_requests(shelf: Shelf) -> None:
    book, other = await shelf.product(kind="shipped"), await shelf.product(kind="shipped")
    monday = await keyed(shelf)
    assert (await deliver(shelf, monday, book)).word == "shelved"
    otherwise = await keyed(shelf, body="another")
    for product, number in ((book, 5), (book, 6), (other, 5)):
        assert (await deliver(shelf, otherwise, product, number)).word == "reused"
    bob = await customers.enter(shelf.pg, telegram_id=2, name="Bob", username=None, language="en", is_admin=True)
    assert (await deliver(shelf, Actor(bob.id, request=monday.request), book)).word == "shelved"
    assert (await deliver(shelf, await keyed(shelf, "tuesday"), book)).word == "shelved"
    assert (await deliver(shelf, await keyed(shelf, role="buyer"), book)).word == "forbidden"
    assert await there(shelf) == 15


async def test_a_key_that_added_nothing_is_free(shelf: Shelf) -> None:
    product, book = await shelf.product(), await shelf.product(kind="shipped")
    await shelve(shelf, product, "OLD")
    actor = await keyed(shelf)
    assert (await shelve(shelf, product, "OLD", "NEW", actor=actor)).word == "duplicates"
    assert (await shelve(shelf, product, "OLD", actor=actor, skip=True)).units == 0
    assert (await shelve(shelf, product, "NEW", actor=actor, dry=True)).units == 1
    assert (await deliver(shelf, actor, product)).word == "unfit"
    assert (await deliver(shelf, await keyed(shelf, body="another"), book)).word == "shelved"


async def test_of_repeats_at_once_one_adds(shelf: Shelf) -> None:
    book, key = await shelf.product(kind="shipped"), await shelf.product()
    for turn in range(10):
        actor, more = await keyed(shelf, f"{turn}"), await keyed(shelf, f"{turn} more")
        done = await asyncio.gather(*(deliver(shelf, actor, book) for _ in range(4)))
        done += await asyncio.gather(*(shelve(shelf, key, f"{turn}-A", f"{turn}-B", actor=more) for _ in range(4)))
        assert sorted(one.word for one in done) == ["repeated"] * 6 + ["shelved"] * 2
        assert [one.units for one in done] == [5] * 4 + [2] * 4
        assert await there(shelf) == 7 * (turn + 1)


@pytest.mark.parametrize(("end", "word", "number"), [("COMMIT", "repeated", 2), ("ROLLBACK", "shelved", 3)])
async def test_who_waited_for_its_own_first_request_adds_only_if_that_one_did_not(
    shelf: Shelf, pg_url: str, end: str, word: str, number: int
) -> None:
    book = await shelf.product(kind="shipped")
    actor = await keyed(shelf)
    assert actor.request
    slow = await asyncpg.connect(pg_url)
    try:
        await slow.execute("BEGIN")
        columns = [
            [getattr(unit, name) for unit in units.pieces(2, 0, None)] for name in units.Sealed.__struct_fields__[1:]
        ]
        said = (False, False, "{}", actor.request.key, actor.request.hash)
        await slow.fetch(SHELVE.query.text, shelf.user_id, book, "shipped", *columns, *said)
        second = asyncio.create_task(deliver(shelf, actor, book, 3))
        while not (await shelf.rows(WAITING))[0][0]:
            assert not second.done()
        await slow.execute(end)
    finally:
        await slow.close()
    done = await second
    assert (done.word, done.units) == (word, number)
    assert await there(shelf) == number


# ---- who may


@pytest.mark.parametrize(
    ("role", "own", "word"),
    [
        ("buyer", True, "forbidden"),
        ("seller", True, "shelved"),
        ("seller", False, "missing"),
        ("admin", False, "shelved"),
    ],
)
async def test_postgres_says_who_may(shelf: Shelf, role: str, own: bool, word: str) -> None:
    product = await shelf.product()
    ((other,),) = await shelf.rows("INSERT INTO sellers (name) VALUES ('Other') RETURNING id")
    await shelf.pg.fetch(STAFF, (shelf.user_id, role, shelf.seller_id if own else other))
    actor = Actor(shelf.user_id)
    assert (await shelve(shelf, product, "KEY", actor=actor)).word == word
    item = await shelf.unit(product)
    withdrawn = await units.withdraw(shelf.pg, shelf.user_id, product, [item])
    assert withdrawn.word == word.replace("shelved", "withdrawn")
    page = await units.newest(shelf.pg, shelf.user_id, product, state="", before=NEWEST, size=9)
    assert (page is None) == (word != "shelved")


async def test_the_machine_must_say_by_whose_hands(shelf: Shelf) -> None:
    product = await shelf.product()
    assert (await shelve(shelf, product, "KEY", actor=Actor(None))).word == "forbidden"
    assert (await shelve(shelf, product, "KEY", actor=Actor(None, {"by": ""}))).word == "forbidden"
    assert (await shelve(shelf, product, "KEY", actor=Actor(shelf.user_id, {"by": "root"}))).word == "forbidden"
    assert await there(shelf) == 0


# ---- out again


async def test_only_what_is_for_sale_can_be_withdrawn(shelf: Shelf) -> None:
    product, other = await shelf.product(), await shelf.product()
    await shelf.pg.fetch(STAFF, (shelf.user_id, "admin", None))
    here = [await shelf.unit(product), await shelf.unit(product)]
    stays = [await shelf.unit(product, state=state) for state in ("held", "sold", "withdrawn")]
    stays.append(await shelf.unit(other))
    done = await units.withdraw(shelf.pg, shelf.user_id, product, [*here, *stays, new_id()])
    assert (done.word, done.ids, done.seller_id) == ("withdrawn", sorted(here), shelf.seller_id)
    assert await shelf.for_sale(product) == []
    assert await shelf.for_sale(other) == [stays[-1]]
    again = await units.withdraw(shelf.pg, shelf.user_id, product, here)
    assert (again.ids, again.outbox_id) == ([], None)
    ((*_, what),) = await shelf.rows(WHAT)
    assert str(here[0]) in what


async def test_a_unit_is_either_withdrawn_or_sold(shelf: Shelf) -> None:
    product = await shelf.product()
    await shelf.pg.fetch(STAFF, (shelf.user_id, "admin", None))
    for _ in range(20):
        item = await shelf.unit(product)
        withdrawn, created = await asyncio.gather(
            units.withdraw(shelf.pg, shelf.user_id, product, [item]), shelf.buy((product, 1))
        )
        ((state,),) = await shelf.rows("SELECT state FROM stock_items WHERE id = $1", item)
        assert (bool(withdrawn.ids), created is not None, state) in (
            (True, False, "withdrawn"), (False, True, "held")
        )  # fmt: skip
        assert await shelf.for_sale(product) == []


async def test_the_audit_says_who_did_what(shelf: Shelf) -> None:
    product = await shelf.product()
    await shelf.pg.fetch(STAFF, (shelf.user_id, "seller", shelf.seller_id))
    await shelve(shelf, product, "CANARY-1", "CANARY-2", actor=Actor(shelf.user_id))
    await shelve(shelf, product, "CANARY-3", actor=Actor(None, {"by": "root", "lines": "1-1"}))
    assert await shelf.rows(WHAT) == [
        ("seller", "stock", product, shelf.user_id, '{"added": 2}'),
        ("admin", "stock", product, None, '{"by": "root", "added": 1, "lines": "1-1"}'),
    ]
