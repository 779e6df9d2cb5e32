"""A rating is exactly the sum of the reviews behind it, however many rate at once; a review is a verified buyer's."""

import asyncio
from uuid import UUID

import asyncpg
import pytest

from app.base.ids import new_id
from app.domain import customers, reviews
from app.domain.reviews import PUT
from app.infra.sql import Postgres
from tests.sql.shelf import Shelf

ORDER = """
INSERT INTO orders
    (id, user_id, seller_id, status, currency, total_minor, idempotency_key, request_hash, expires_at, paid_at)
SELECT $1, $2, min(id), $3, 'RUB', 100, gen_random_uuid()::text, sha256('x'), now(), now() FROM sellers"""
ITEM = """
INSERT INTO order_items
    (order_id, position, product_id, title, kind, list_price_minor, price_minor, state, delivered_at)
VALUES ($1, 1, $2, 'Key', 'made', 100, 100, $3, CASE WHEN $3 = 'delivered' THEN now() END)"""
BUYERS = "INSERT INTO users (telegram_id, name) SELECT n, 'Buyer ' || n FROM generate_series(1, $1::int) n RETURNING id"
# The rating as it is kept, and as the reviews say it is.
KEPT = "SELECT ratings, total, version FROM product_ratings WHERE product_id = $1"
SUMMED = "SELECT count(*)::int, sum(rating)::int FROM reviews WHERE product_id = $1"
WAITING = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%put_review%'"""


async def bought(
    pg: Postgres, user_id: int, product_id: int, *, status: str = "delivered", state: str = "delivered"
) -> UUID:
    """This user has an order of this product, in these states."""
    order_id = new_id()
    await pg.fetch(ORDER, (order_id, user_id, status))
    await pg.fetch(ITEM, (order_id, product_id, state))
    return order_id


async def verified(pg: Postgres, product_id: int, number: int) -> list[int]:
    """So many users who may review the product."""
    users = [row[0] for row in await pg.fetch(BUYERS, (number,))]
    for user_id in users:
        await bought(pg, user_id, product_id)
    return users


async def exact(pg: Postgres, product_id: int) -> tuple[int, int]:
    """Count and sum, after checking that aggregate and reviews agree on them."""
    ((ratings, total, _),) = await pg.fetch(KEPT, (product_id,))
    ((counted, summed),) = await pg.fetch(SUMMED, (product_id,))
    assert (ratings, total) == (counted, summed)
    return ratings, total


async def rate(pg: Postgres, product_id: int, user_id: int, rating: int, text: str = "") -> tuple[str, int]:
    """The word in the end, and how many attempts met another's."""
    lost = 0
    while (put := await reviews.put(pg, product_id, user_id, rating, text)).word == "conflict":
        lost += 1
    return put.word, lost


async def refreshes(shelf: Shelf) -> int:
    ((owed,),) = await shelf.rows("SELECT count(*) FROM outbox WHERE kind = 'refresh'")
    return int(owed)


# ---- who may


async def test_a_buyer_whose_goods_were_delivered_may(shelf: Shelf) -> None:
    product = await shelf.product()
    order_id = await bought(shelf.pg, shelf.user_id, product)
    put = await reviews.put(shelf.pg, product, shelf.user_id, 4, "good")
    assert (put.word, put.ratings, put.total) == ("created", 1, 4)
    assert await shelf.rows("SELECT user_id, order_id, rating, text, edited_at FROM reviews") == [
        (shelf.user_id, order_id, 4, "good", None)
    ]


@pytest.mark.parametrize(
    ("status", "state"),
    [("pending", "held"), ("paid", "owed"), ("preorder", "owed"), ("expired", "released"), ("refunded", "delivered")],
)
async def test_other_buyers_may_not(shelf: Shelf, status: str, state: str) -> None:
    product = await shelf.product()
    await bought(shelf.pg, shelf.user_id, product, status=status, state=state)
    assert (await reviews.put(shelf.pg, product, shelf.user_id, 1, "")).word == "unverified"
    assert await shelf.rows("SELECT 1 FROM reviews UNION ALL SELECT 1 FROM product_ratings") == []


async def test_goods_of_another_product_or_buyer_prove_nothing(shelf: Shelf) -> None:
    product, other = await shelf.product(), await shelf.product()
    bob = await customers.enter(shelf.pg, telegram_id=7, name="Bob", username=None, language="en", is_admin=False)
    await bought(shelf.pg, shelf.user_id, other)
    await bought(shelf.pg, bob.id, product)
    assert (await reviews.put(shelf.pg, product, shelf.user_id, 1, "")).word == "unverified"


async def test_what_is_off_the_shelf_is_known_to_its_buyers_alone(shelf: Shelf) -> None:
    product = await shelf.product()
    await shelf.pg.fetch("UPDATE products SET active = false", ())
    assert (await reviews.put(shelf.pg, product, shelf.user_id, 5, "")).word == "unknown"
    assert (await reviews.put(shelf.pg, 999, shelf.user_id, 5, "")).word == "unknown"
    await bought(shelf.pg, shelf.user_id, product)
    assert (await reviews.put(shelf.pg, product, shelf.user_id, 5, "")).word == "created"
    assert await reviews.newest(shelf.pg, product, before=2**62, size=9) is None


# ---- one each, editable


async def test_a_later_review_replaces_the_earlier_one(shelf: Shelf) -> None:
    product = await shelf.product()
    await bought(shelf.pg, shelf.user_id, product)
    words = []
    for rating, text in [(2, "hm"), (2, "hm"), (2, "hm!"), (5, "hm!")]:
        put = await reviews.put(shelf.pg, product, shelf.user_id, rating, text)
        words.append((put.word, put.total, put.outbox_id is not None))
    # Words alone do not show on the shelf, and one buyer's stars do not refresh it again and again.
    assert words[:3] == [("created", 2, True), ("unchanged", 2, False), ("edited", 2, False)]
    assert words[3][:2] == ("edited", 5)
    assert await exact(shelf.pg, product) == (1, 5)
    assert await refreshes(shelf) <= 2  # two when ten seconds ended in between
    ((edited,),) = await shelf.rows("SELECT edited_at >= created_at FROM reviews")
    assert edited


async def test_pages_go_from_the_newest_back_and_an_edit_keeps_its_place(shelf: Shelf) -> None:
    product = await shelf.product()
    users = await verified(shelf.pg, product, 5)
    for rating, user in enumerate(users, 1):
        await rate(shelf.pg, product, user, rating)
    await rate(shelf.pg, product, users[2], 1, "on second thought")
    seen, before = [], 2**62
    while (page := await reviews.newest(shelf.pg, product, before=before, size=2)) and (here := reviews.reviews(page)):
        assert (page.ratings, page.total) == (5, 13)
        seen += [(one.name, one.rating) for one in here]
        before = here[-1].id
    assert seen == [("Buyer 5", 5), ("Buyer 4", 4), ("Buyer 3", 1), ("Buyer 2", 2), ("Buyer 1", 1)]


@pytest.mark.parametrize(
    ("ratings", "total", "shown"), [(0, 0, None), (1, 5, 5.0), (3, 13, 4.3), (3, 14, 4.7), (20, 85, 4.3), (4, 17, 4.3)]
)
def test_an_average_has_one_decimal_halves_up(ratings: int, total: int, shown: float | None) -> None:
    assert reviews.average(ratings, total) == shown


# ---- at once


async def test_500_buyers_at_once_are_all_counted(shelf: Shelf) -> None:
    product = await shelf.product()
    users = await verified(shelf.pg, product, 500)
    done = await asyncio.gather(*(rate(shelf.pg, product, user, 1 + user % 5) for user in users))
    assert [word for word, _ in done] == ["created"] * 500
    assert sum(lost for _, lost in done) > 0  # they did meet
    assert await exact(shelf.pg, product) == (500, sum(1 + user % 5 for user in users))
    ((version,),) = await shelf.rows("SELECT version FROM product_ratings")
    assert version == 500  # each write moved it once, none twice


async def test_20_edits_by_one_buyer_at_once_leave_one_review(shelf: Shelf) -> None:
    product = await shelf.product()
    await bought(shelf.pg, shelf.user_id, product)
    done = await asyncio.gather(*(rate(shelf.pg, product, shelf.user_id, 1 + n % 5, f"{n}") for n in range(20)))
    assert sorted(word for word, _ in done) == ["created"] + ["edited"] * 19
    ratings, total = await exact(shelf.pg, product)
    assert (ratings, 1 <= total <= 5) == (1, True)


@pytest.mark.parametrize("first", [True, False], ids=["the first review", "a later one"])
@pytest.mark.parametrize("same_buyer", [True, False], ids=["one buyer", "two buyers"])
@pytest.mark.parametrize("ends", ["commit", "rollback"])
async def test_who_waited_for_another_writes_only_on_what_it_has_seen(
    shelf: Shelf, pg_url: str, first: bool, same_buyer: bool, ends: str
) -> None:
    """The second's snapshot is older than the first's commit: a write on it would lose the first's stars."""
    product = await shelf.product()
    one, two, third = await verified(shelf.pg, product, 3)
    if not first:
        await rate(shelf.pg, product, third, 3)
    slow = await asyncpg.connect(pg_url)
    try:
        await slow.execute("BEGIN")
        assert (await slow.fetchrow(PUT.query.text, product, one, 5, ""))["word"] == "created"
        second = asyncio.create_task(reviews.put(shelf.pg, product, one if same_buyer else two, 1, ""))
        while not (await shelf.rows(WAITING))[0][0]:
            assert not second.done()
        await slow.execute(ends)
    finally:
        await slow.close()
    word = (await second).word
    assert word == ("conflict" if ends == "commit" else "created")
    before = [] if first else [3]
    after = [*before, 5] if ends == "commit" else [*before, 1]
    assert await exact(shelf.pg, product) == (len(after), sum(after))
