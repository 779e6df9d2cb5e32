"""Search: every word in any language and any form, the best fit first, and no text that the server cannot take."""

from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.domain import catalog
from app.domain.catalog import Found, Search
from app.infra.sql import Postgres
from tests.sql.shelf import Shelf
from tests.sql.test_plans import scans

BEGINNING = (catalog.BEST, 0)


async def find(
    shelf: Shelf, text: str, *, category: str = "", after: tuple[int, int] = BEGINNING, size: int = 99
) -> list[Found]:
    return await Search().find(shelf.pg, catalog.words_of(text), category, after, size)


async def titles(shelf: Shelf, text: str, **more: Any) -> list[str]:
    return [product.title for product in await find(shelf, text, **more)]


# ---- words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Steam key", ["steam", "key"]),
        ("  КЛЮЧ-ключ, Ключ!", ["ключ"]),
        ("ёлка Ёлка елка", ["елка"]),
        ("и\u0306од", ["йод"]),
        ("node.js C++ 1_000", ["node", "js", "c", "1", "000"]),
        ("100 %", ["100"]),
        ("' \\ :* & | ! <-> () 🙂", []),
        ("", []),
        ("a b c d e f g h i j", ["a", "b", "c", "d", "e", "f", "g", "h"]),
    ],
)
def test_a_text_is_its_words(text: str, words: Sequence[str]) -> None:
    assert catalog.words_of(text) == words


# ---- what is found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("key", True),
        ("KEYS", True),  # a stem
        ("gam", True),  # a beginning
        ("games", True),
        ("ключи", True),
        ("ключами", True),
        ("КЛЮ", True),
        ("лицензии", True),
        ("звездного", True),  # with and without dots
        ("нодe", False),  # a Latin e
        ("node js", True),
        ("software", True),  # its category
        ("3d", True),
        ("cafes", False),
        ("cafés", True),
        ("key lumen", False),  # every word
        ("key ключ licence", True),
        ("ey", False),  # no part from within a word
        ("the key", True),  # a word that English leaves out, where one begins with it
        ("for", True),
        ("with", False),
    ],
)
async def test_a_product_is_found_by_any_form_of_its_words(shelf: Shelf, text: str, found: bool) -> None:
    description = "Ключ лицензии Звёздного неба for the café. Licence for node.js, 3D"
    await shelf.product(title="Gaming key", category="Software keys", description=description)
    await shelf.product(title="Other", category="Books")
    assert (await titles(shelf, text) == ["Gaming key"]) is found


async def test_the_best_fit_comes_first_then_the_oldest(shelf: Shelf) -> None:
    await shelf.product(title="Book", description="about lanterns")
    await shelf.product(title="Plain", category="Lanterns")
    await shelf.product(title="Red lantern")
    await shelf.product(title="Red lantern")
    found = await find(shelf, "lantern")
    assert [product.title for product in found] == ["Red lantern", "Red lantern", "Plain", "Book"]
    assert found[0].id < found[1].id
    assert found[0].rank == found[1].rank > found[2].rank > found[3].rank


@pytest.mark.parametrize("size", [1, 2, 3, 5, 50])
async def test_pages_of_a_search_are_the_whole_of_it(shelf: Shelf, size: int) -> None:
    for number in range(12):
        title = ("Lamp", "Lamp and lamp", "Lock")[number % 3]
        await shelf.product(title=title, description="lamp" * (number % 2))
    whole = [product.id for product in await find(shelf, "lamp")]
    pages: list[int] = []
    after = BEGINNING
    while page := await find(shelf, "lamp", after=after, size=size):
        assert len(page) <= size
        pages += [product.id for product in page]
        after = page[-1].rank, page[-1].id
    assert pages == whole
    assert len(whole) == len(set(whole)) == 10


async def test_a_search_stays_on_the_shelf_and_in_its_category(shelf: Shelf) -> None:
    gone = await shelf.product(title="Lamp gone")
    await shelf.pg.fetch("UPDATE products SET active = false WHERE id = $1", (gone,))
    await shelf.product(title="Lamp here", category="Books")
    await shelf.product(title="Lamp there")
    assert await titles(shelf, "lamp") == ["Lamp here", "Lamp there"]
    assert await titles(shelf, "lamp", category="Books") == ["Lamp here"]
    assert await titles(shelf, "lamp", category="%") == []


async def test_what_was_changed_is_found_by_its_new_words_only(shelf: Shelf) -> None:
    product = await shelf.product(title="Old name")
    await shelf.pg.fetch("UPDATE products SET title = 'New name' WHERE id = $1", (product,))
    assert (await titles(shelf, "old"), await titles(shelf, "new")) == ([], ["New name"])


async def test_found_products_are_those_of_the_shelf(shelf: Shelf) -> None:
    product = await shelf.product(title="Key", discount_bp=1000)
    await shelf.units(product, 2)
    await shelf.pg.fetch("INSERT INTO product_ratings (product_id, ratings, total) VALUES ($1, 3, 14)", (product,))
    (found,) = await find(shelf, "key")
    shown = await catalog.get(shelf.pg, product)
    assert shown is not None
    assert {name: getattr(found, name) for name in catalog.Product.__struct_fields__} == {
        name: getattr(shown, name) for name in catalog.Product.__struct_fields__
    }
    assert (found.price_minor, found.units_left, found.ratings, found.rating) == (9000, 2, 3, 4.7)


# ---- any text at all

# Signs, marks without a letter, and digits that Postgres's parser does not know.
NO_WORDS = {
    "'", "''", "\\", "\\'", ":*", "(", "())", "<->", "🙂" * 100, "%", "_", "\u200b", "\ufffd",
    "\U0010ffff", "\u0301", "\u094d", "\ud7ff", "\u0600", "١٢٣",
}  # fmt: skip
HOSTILE = [
    "'", "''", "\\", "\\'", ":*", "a:*", "a & b", "a | !b", "(", "())", "<->", "a <-> b", "🙂" * 100, "%", "_", "$1",
    "'); DROP TABLE products; --", "\u200b", "a\u0301", "²", "x²y", "½", "Ⅷ", "١٢٣", "ß", "İ", "ǆ", "漢字", "हिन्दी",
    "\ufffd", "\U0010ffff", "\u3316" * 100, "\ufdfa" * 100, "\u0301", "\u094d",
    "x" * 100, "1e400", "10e5abc", "-5", "a" * 99 + "'", "the", "и", "\ud7ff", "１２", "ﬁ", "a\u00adb", "\u0600",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
async def test_no_text_is_too_much_for_the_server(shelf: Shelf, text: str) -> None:
    await find(shelf, text)
    await shelf.product(title=text.replace("\0", "") or "x", description=text)
    found = await find(shelf, text)
    assert len(found) == (text not in NO_WORDS)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=100))
async def test_no_text_that_anybody_thought_of_is_either(pg: Postgres, text: str) -> None:
    assert await Search().find(pg, catalog.words_of(text), "", BEGINNING, 9) == []


async def test_no_words_find_nothing(shelf: Shelf) -> None:
    await shelf.product()
    assert await find(shelf, "%") == []


# ---- likeness


async def test_a_server_without_trigrams_is_asked_once_and_finds_nothing_alike(shelf: Shelf) -> None:
    await shelf.product(title="Lumen Editor")
    search = Search()
    assert await search.resembling(shelf.pg, ["edtior"], "", 9) == []
    assert search.likeness is False


# ---- plan

MANY = """
INSERT INTO products (seller_id, title, description, category, kind, currency, list_price_minor)
SELECT 1, 'Product ' || n, 'word' || n % 500 || ' word' || n % 77, 'Category ' || n % 10, 'unit', 'RUB', 1000
  FROM generate_series(1, 20000) n"""


async def test_a_search_among_20_000_products_reads_the_index(shelf: Shelf, pg_url: str) -> None:
    wanted = await shelf.product(title="Lumen Editor")
    connection = await asyncpg.connect(pg_url)
    try:
        await connection.execute(MANY)
        await connection.execute("ANALYZE")
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        found = await scans(connection, catalog.SEARCH.query)
    finally:
        await connection.close()
    assert "products_search" in {node.get("Index Name") for node in found}
    assert "products" not in {node["Relation Name"] for node in found if node["Node Type"] == "Seq Scan"}
    assert [product.id for product in await find(shelf, "lumen edi")] == [wanted]
