"""Reviews over real HTTP: from a purchase to stars on the shelf, what may be sent, and a crowd that rates at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio

from app import errors
from app.domain import reviews
from app.domain.reviews import Put
from app.flows import review
from app.infra.embedded import Servers
from app.shop import opened
from tests.sql.test_reviews import bought, exact, verified
from tests.web.test_shop import in_module, own_world, problem
from tests.world import Buyer, World, invoice_of


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_world(servers: Servers, template: str) -> AsyncIterator[World]:
    async with own_world(servers, template, "reviews", 5) as world:
        yield world


async def someone(world: World, **user: Any) -> Buyer:
    return await world.buyer(uuid4().int >> 80, **user)


async def write(buyer: Buyer, product_id: int | str, body: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else httpx.Request("PUT", "http://x", json=body).content
    headers = buyer.headers | {"Content-Type": "application/json"}
    return await buyer.http.put(f"/api/products/{product_id}/review", content=content, headers=headers)


async def read(world: World, product_id: int, **query: Any) -> dict[str, Any]:
    answer = await world.http.get(f"/api/products/{product_id}/reviews", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def owner(world: World, product_id: int, **user: Any) -> Buyer:
    """Somebody who has the goods."""
    buyer = await someone(world, **user)
    user_id = (await buyer.get("/api/me")).json()["user_id"]
    await bought(world.pg, user_id, product_id)
    return buyer


@in_module
async def test_from_a_purchase_to_stars_on_the_shelf(shared: World) -> None:
    product, ann = await shared.product("KEY"), await someone(shared, name="Ann Mary")
    problem(await write(ann, product, {"rating": 5}), errors.Forbidden)
    placed = (await ann.order((product, 1))).json()
    problem(await write(ann, product, {"rating": 5}), errors.Forbidden)
    await shared.crystalpay.pay(invoice_of(placed))
    await shared.drain()
    assert await ann.status(placed["order"]["id"]) == "delivered"
    first = await write(ann, product, {"rating": 5, "text": "Works."})
    assert (first.status_code, first.json()) == (201, {"outcome": "created", "ratings": 1, "rating": 5.0})
    again = await write(ann, product, {"rating": 4, "text": "Works."})
    assert (again.status_code, again.json()) == (200, {"outcome": "edited", "ratings": 1, "rating": 4.0})
    same = await write(ann, product, {"rating": 4, "text": "Works."})
    assert (same.status_code, same.json()["outcome"]) == (200, "unchanged")
    page = await read(shared, product)
    (told,) = page.pop("reviews")
    assert page == {"ratings": 1, "rating": 4.0, "next_cursor": None}
    assert told.pop("edited_at") > told.pop("created_at")
    assert told == {"name": "Ann", "rating": 4, "text": "Works."}  # and neither a surname nor an id


@in_module
async def test_a_review_is_on_the_shelf_at_once(shared: World) -> None:
    product = await shared.product("KEY")
    ann, bob, eve = [await owner(shared, product) for _ in range(3)]
    shown = []
    for buyer, rating in ((ann, 5), (bob, 4), (eve, 3)):
        path = f"/api/products/{product}"
        before = (await shared.http.get(path)).json()
        assert (await write(buyer, product, {"rating": rating})).is_success
        after = (await shared.http.get(path)).json()
        shown.append((before["rating"], after["rating"], after["ratings"]))
        assert after["rating"] == (await read(shared, product))["rating"]
    assert shown == [(None, 5.0, 1), (5.0, 4.5, 2), (4.5, 4.0, 3)]


@in_module
async def test_pages_follow_each_other(shared: World) -> None:
    product = await shared.product("KEY")
    for rating in (1, 2, 3, 4, 5):
        await write(await owner(shared, product, name=f"N{rating} S"), product, {"rating": rating})
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await read(shared, product, cursor=cursor, limit=2)
        seen += [one["name"] for one in page["reviews"]]
        cursor = page["next_cursor"]
    assert seen == ["N5", "N4", "N3", "N2", "N1"]
    assert (page["ratings"], page["rating"]) == (5, 3.0)


@in_module
async def test_a_product_without_reviews_says_so(shared: World) -> None:
    product = await shared.product("KEY")
    assert await read(shared, product) == {"ratings": 0, "rating": None, "reviews": [], "next_cursor": None}
    problem(await shared.http.get("/api/products/999999/reviews"), errors.NotFound)
    problem(await write(await someone(shared), 999999, {"rating": 5}), errors.NotFound)


@in_module
async def test_who_is_nobody_writes_nothing(shared: World) -> None:
    product = await shared.product("KEY")
    problem(await write(Buyer(shared.http, "v1.1.buyer.9.x", 1), product, {"rating": 5}), errors.BadToken)


@in_module
@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b"{}", b"null", b"\xff", b"[" * 100_000, {"rating": 0}, {"rating": 6}, {"rating": -1},
     {"rating": 4.5}, {"rating": "5"}, {"rating": True}, {"rating": None}, {"rating": 10**30}, {"text": "x"},
     {"rating": 5, "text": None}, {"rating": 5, "text": 1}, {"rating": 5, "text": "x" * 2001},
     {"rating": 5, "text": "a\0b"}, {"rating": 5, "text": "a\0"}, {"rating": 5, "user_id": 1},
     {"rating": 5, "order_id": 1}, b'{"rating":5,"text":"\\ud800"}', b'{"rating":5,"text":"\xff"}'],
    ids=lambda body: repr(body)[:40],
)  # fmt: skip
async def test_what_is_no_review_is_malformed(shared: World, body: Any) -> None:
    product = await shared.product("KEY")
    ann = await owner(shared, product)
    problem(await write(ann, product, body), errors.Malformed)
    assert (await read(shared, product))["ratings"] == 0


@in_module
@pytest.mark.parametrize("text", ["", "x" * 2000, "🙂" * 2000, "a\nb\t'\";--\\", "\\u0000", "\x7f\u200f"])
async def test_any_other_text_is_kept_as_it_is(shared: World, text: str) -> None:
    product = await shared.product("KEY")
    ann = await owner(shared, product)
    assert (await write(ann, product, {"rating": 5, "text": text})).status_code == 201
    assert (await read(shared, product))["reviews"][0]["text"] == text


@in_module
@pytest.mark.parametrize("query", ["cursor=x", "cursor=-1", "cursor=" + "9" * 19, "limit=0", "limit=101", "limit=x"])
async def test_a_page_that_is_none_is_malformed(shared: World, query: str) -> None:
    product = await shared.product("KEY")
    problem(await shared.http.get(f"/api/products/{product}/reviews?{query}"), errors.Malformed)


@in_module
async def test_500_buyers_at_once_are_all_counted(shared: World) -> None:
    """In four shops at a time, as four processes would; whoever is told to repeat repeats."""
    product = await shared.product("KEY")
    users = await verified(shared.pg, product, 500)
    async with AsyncExitStack() as stack:
        settings = shared.shop.deps.settings
        shops = [await stack.enter_async_context(opened(settings)) for _ in range(4)]

        async def rate(user: int) -> str:
            while True:
                with suppress(errors.Busy):
                    return (await review.review(shops[user % 4], user, product, 1 + user % 5, "")).word

        words = await asyncio.gather(*(rate(user) for user in users))
    assert words == ["created"] * 500
    assert await exact(shared.pg, product) == (500, sum(1 + user % 5 for user in users))
    page = await read(shared, product)
    assert (page["ratings"], len(page["reviews"])) == (500, 20)


@in_module
async def test_20_edits_at_once_over_http_leave_one_review(shared: World) -> None:
    product = await shared.product("KEY")
    ann = await owner(shared, product)
    done = await asyncio.gather(*(write(ann, product, {"rating": 1 + n % 5, "text": str(n)}) for n in range(20)))
    assert sorted(answer.json()["outcome"] for answer in done) == ["created"] + ["edited"] * 19
    ratings, total = await exact(shared.pg, product)
    page = await read(shared, product)
    assert (ratings, total, page["rating"]) == (1, page["reviews"][0]["rating"], float(total))


@in_module
async def test_who_always_comes_second_is_told_to_repeat(shared: World, monkeypatch: pytest.MonkeyPatch) -> None:
    product = await shared.product("KEY")
    ann = await owner(shared, product)
    tried: list[int] = []

    async def late(*_: object) -> Put:
        tried.append(1)
        return Put("conflict", 0, 0, None)

    with monkeypatch.context() as patched:
        patched.setattr(reviews, "put", late)
        patched.setattr(review, "FIRST_WAIT_S", 0.0)
        answer = await write(ann, product, {"rating": 5})
    assert problem(answer, errors.Busy)["detail"].endswith("nothing was written")
    assert (answer.headers["retry-after"], len(tried)) == ("1", review.TRIES)
    assert (await write(ann, product, {"rating": 5})).status_code == 201


def test_the_waits_grow_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: (low, high))
    waits: list[Any] = [review.wait_s(attempt) for attempt in range(1, review.TRIES)]
    assert [low for low, _ in waits] == [0] * (review.TRIES - 1)
    highs = [high for _, high in waits]
    assert highs == sorted(highs)
    assert highs[-1] == review.LONGEST_WAIT_S
