"""Staff change products only at the version they have seen, only those they act for, and never without a trace."""

import asyncio
import json
from typing import Any

import pytest

from app.domain import changes, products, staff
from app.domain.products import Filter
from app.infra.secrets import Sealer, shared_row
from tests.sql.shelf import Shelf

SEALER = Sealer("t1:a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=")
NEW: dict[str, Any] = {
    "title": "Key", "description": "", "category": "Keys", "kind": "unit", "currency": "RUB", "list_price_minor": 100,
    "discount_bp": 0, "duration_days": None, "lead_time_h": None, "active": True,
}  # fmt: skip
STAFF = "UPDATE users SET role = $2, seller_id = $3 WHERE id = $1"
WHAT = "SELECT role, noun, user_id, what::text FROM changes ORDER BY id"


@pytest.fixture
async def admin(shelf: Shelf) -> int:
    await act(shelf, "admin")
    return shelf.user_id


async def act(shelf: Shelf, role: str, seller_id: int | None = None) -> None:
    """The shelf's user is this from now on."""
    await shelf.pg.fetch(STAFF, (shelf.user_id, role, seller_id))


async def other_seller(shelf: Shelf) -> int:
    ((seller_id,),) = await shelf.rows("INSERT INTO sellers (name) VALUES ('Other') RETURNING id")
    return int(seller_id)


async def trail(shelf: Shelf) -> list[tuple[str, str, int, dict[str, Any]]]:
    return [(*row[:3], json.loads(row[3])) for row in await shelf.rows(WHAT)]


# ---- new ones


async def test_a_new_product_is_audited_and_shown(shelf: Shelf, admin: int) -> None:
    entered = await products.create(shelf.pg, admin, shelf.seller_id, NEW | {"discount_bp": 250})
    assert (entered.word, entered.outbox_id is not None) == ("created", True)
    card = await products.find(shelf.pg, admin, entered.product_id or 0)
    assert card is not None
    assert (card.title, card.discount_bp, card.active, card.version, card.seller_name) == (
        "Key",
        250,
        True,
        1,
        "Seller",
    )
    ((role, noun, user_id, what),) = await trail(shelf)
    assert (role, noun, user_id) == ("admin", "product", admin)
    assert what["discount_bp"] == {"old": None, "new": 250}
    assert what.keys() == NEW.keys() | {"seller_id"}


@pytest.mark.parametrize("named", [True, False])
async def test_a_seller_enters_products_of_its_own(shelf: Shelf, named: bool) -> None:
    await act(shelf, "seller", shelf.seller_id)
    entered = await products.create(shelf.pg, shelf.user_id, shelf.seller_id if named else None, NEW)
    assert entered.word == "created"
    assert await shelf.rows("SELECT seller_id FROM products") == [(shelf.seller_id,)]


async def test_nobody_enters_products_of_somebody_else(shelf: Shelf) -> None:
    other = await other_seller(shelf)
    for role, acts_for, named, word in (
        ("buyer", shelf.seller_id, shelf.seller_id, "forbidden"), ("seller", None, shelf.seller_id, "forbidden"),
        ("seller", shelf.seller_id, other, "no_seller"), ("seller", shelf.seller_id, 999, "no_seller"),
        ("admin", None, None, "no_seller"), ("admin", None, 999, "no_seller"),
    ):  # fmt: skip
        await act(shelf, role, acts_for)
        assert (await products.create(shelf.pg, shelf.user_id, named, NEW)).word == word
    assert (
        await shelf.rows("SELECT 1 FROM products UNION ALL SELECT 1 FROM changes UNION ALL SELECT 1 FROM outbox") == []
    )


# ---- changes


async def test_a_change_keeps_what_it_does_not_name(shelf: Shelf, admin: int) -> None:
    product = await shelf.product(title="Old", description="words", duration_days=365)
    done = await products.change(shelf.pg, admin, product, 1, {"title": "New", "duration_days": None})
    assert (done.word, done.version, done.outbox_id is not None) == ("changed", 2, True)
    card = await products.find(shelf.pg, admin, product)
    assert card is not None
    assert (card.title, card.description, card.duration_days, card.version) == ("New", "words", None, 2)
    assert (await trail(shelf))[0][3] == {
        "title": {"old": "Old", "new": "New"}, "duration_days": {"old": 365, "new": None},
    }  # fmt: skip


async def test_the_audit_names_only_what_differs(shelf: Shelf, admin: int) -> None:
    product = await shelf.product(title="Same")
    await products.change(shelf.pg, admin, product, 1, {"title": "Same", "list_price_minor": 7})
    assert [what for *_, what in await trail(shelf)] == [{"list_price_minor": {"old": 10_000, "new": 7}}]


@pytest.mark.parametrize("fields", [{}, {"title": "Key"}, {"title": "Key", "discount_bp": 0, "duration_days": None}])
async def test_nothing_to_change_changes_nothing(shelf: Shelf, admin: int, fields: dict[str, Any]) -> None:
    product = await shelf.product()
    done = await products.change(shelf.pg, admin, product, 1, fields)
    assert (done.word, done.version, done.outbox_id) == ("unchanged", 1, None)
    assert await trail(shelf) == []


async def test_of_two_changes_of_one_version_one_is_told(shelf: Shelf, admin: int) -> None:
    product = await shelf.product()
    for version in range(1, 21):
        done = await asyncio.gather(
            *(products.change(shelf.pg, admin, product, version, {"title": f"{version} {n}"}) for n in range(4))
        )
        assert (
            sorted((one.word, one.version) for one in done) == [("changed", version + 1)] + [("stale", version + 1)] * 3
        )
    assert len(await trail(shelf)) == 20


async def test_changes_of_different_fields_at_once_lose_nothing(shelf: Shelf, admin: int) -> None:
    """Each repeats at the version that it is told: every field ends as somebody wanted it."""
    product = await shelf.product()

    async def insist(fields: dict[str, Any]) -> None:
        version = 1
        while (done := await products.change(shelf.pg, admin, product, version, fields)).word == "stale":
            version = done.version or 0

    wanted = {"title": "T", "description": "D", "category": "C", "list_price_minor": 5, "discount_bp": 9}
    await asyncio.gather(*(insist({name: value}) for name, value in wanted.items()))
    card = await products.find(shelf.pg, admin, product)
    assert card is not None
    assert ({name: getattr(card, name) for name in wanted}, card.version) == (wanted, 6)
    assert {name for *_, what in await trail(shelf) for name in what} == wanted.keys()


async def test_only_what_is_made_to_order_has_a_lead_time(shelf: Shelf, admin: int) -> None:
    key, made = await shelf.product(), await shelf.product(kind="made", lead_time_h=48)
    for product, lead_time_h, word in ((key, 1, "unfit"), (made, None, "unfit"), (made, 24, "changed")):
        assert (await products.change(shelf.pg, admin, product, 1, {"lead_time_h": lead_time_h})).word == word


@pytest.mark.parametrize(
    ("role", "own", "word"),
    [
        ("buyer", True, "forbidden"),
        ("seller", True, "changed"),
        ("seller", False, "missing"),
        ("admin", False, "changed"),
    ],
)
async def test_postgres_says_who_may(shelf: Shelf, role: str, own: bool, word: str) -> None:
    product, shared = await shelf.product(), await shelf.product(kind="shared")
    other = await other_seller(shelf)
    await act(shelf, role, shelf.seller_id if own else other)
    seen = word == "changed"
    assert (await products.change(shelf.pg, shelf.user_id, product, 1, {"title": "X"})).word == word
    assert (await products.share(shelf.pg, SEALER, shelf.user_id, shared, "file")).word == word
    assert (await products.find(shelf.pg, shelf.user_id, product) is not None) == seen
    assert bool(await products.page(shelf.pg, shelf.user_id, Filter(), after=0, size=9)) == seen
    assert len(await trail(shelf)) == 2 * seen
    told = await changes.newest(shelf.pg, shelf.user_id, product_id=None, before=2**62, size=9)
    assert len(told) == 2 * seen
    assert (await staff.find(shelf.pg, shelf.user_id) is None) == (role == "buyer")


async def test_a_product_that_is_not_there_is_missing(shelf: Shelf, admin: int) -> None:
    done = await products.change(shelf.pg, admin, 999, 1, {"title": "X"})
    assert (done.word, done.version) == ("missing", None)
    assert (await products.share(shelf.pg, SEALER, admin, 999, "file")).word == "missing"


# ---- content


async def test_the_content_is_sealed_and_its_change_audited_without_it(shelf: Shelf, admin: int) -> None:
    product, key = await shelf.product(kind="shared"), await shelf.product()
    for _ in range(2):
        assert (await products.share(shelf.pg, SEALER, admin, product, "CANARY")).word == "changed"
    assert (await products.share(shelf.pg, SEALER, admin, key, "CANARY")).word == "unfit"
    ((sealed,),) = await shelf.rows("SELECT sealed FROM shared_goods")
    assert SEALER.open(sealed, shared_row(product)) == b"CANARY"
    assert [what for *_, what in await trail(shelf)] == [
        {"content": {"old": None, "new": "sealed"}}, {"content": {"old": "sealed", "new": "sealed"}},
    ]  # fmt: skip
    card = await products.find(shelf.pg, admin, product)
    assert card is not None
    assert card.has_content


# ---- lists


async def test_a_card_counts_units_by_state(shelf: Shelf, admin: int) -> None:
    product = await shelf.product()
    for state, number in {"available": 4, "held": 3, "sold": 2, "withdrawn": 1}.items():
        for _ in range(number):
            await shelf.unit(product, state=state)
    for left_s in (-1, -1, 60):
        await shelf.unit(product, left_s=left_s)
    card = await products.find(shelf.pg, admin, product)
    assert card is not None
    assert (card.available, card.expired, card.held, card.sold, card.withdrawn) == (5, 2, 3, 2, 1)


async def test_lists_can_be_narrowed_and_paged(shelf: Shelf, admin: int) -> None:
    other = await other_seller(shelf)
    one = await shelf.product(title="Red LANTERN")
    two = await shelf.product(title="Blue", category="Lanterns", seller_id=other)
    three = await shelf.product(title="100% off_er")
    await products.change(shelf.pg, admin, three, 1, {"active": False})

    async def ids(after: int = 0, size: int = 9, **wanted: Any) -> list[int]:
        return [card.id for card in await products.page(shelf.pg, admin, Filter(**wanted), after=after, size=size)]

    assert await ids() == [one, two, three]
    assert await ids(after=one, size=1) == [two]
    assert await ids(query="lantern") == [one, two]
    assert await ids(query="% off_") == [three]
    assert await ids(query="%") == [three]
    assert await ids(seller_id=other) == [two]
    assert await ids(active=False) == [three]
    assert await ids(active=True, query="lantern", seller_id=shelf.seller_id) == [one]


async def test_changes_can_be_narrowed_and_paged(shelf: Shelf, admin: int) -> None:
    one, two = await shelf.product(), await shelf.product()
    for turn in range(1, 4):
        for product in (one, two):
            await products.change(shelf.pg, admin, product, turn, {"title": f"turn {turn}"})
    everything = await changes.newest(shelf.pg, admin, product_id=None, before=2**62, size=9)
    assert [change.noun_id for change in everything] == [two, one] * 3
    mine = await changes.newest(shelf.pg, admin, product_id=one, before=2**62, size=2)
    assert [json.loads(change.what)["title"]["new"] for change in mine] == ["turn 3", "turn 2"]
    rest = await changes.newest(shelf.pg, admin, product_id=one, before=mine[-1].id, size=2)
    assert [json.loads(change.what)["title"]["new"] for change in rest] == ["turn 1"]
    assert (mine[0].user_name, mine[0].role) == ("Ann", "admin")
