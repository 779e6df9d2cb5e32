"""Reviews: one per verified buyer and product, and the product's rating, which is always exactly their sum."""

from datetime import datetime

import msgspec

from app.base.lease import Lease
from app.infra.sql import One, Opt, Postgres

MAX_TEXT = 2000


class Put(msgspec.Struct, frozen=True):
    """What became of one attempt, with the product's rating after it.

    `word`: created, edited or unchanged; unknown (no such product), unverified (no delivered order of it);
    conflict: another came between, nothing was written.
    """

    word: str
    ratings: int
    total: int  # the sum of all stars
    outbox_id: int | None  # the refresh that the shelf is owed


class Review(msgspec.Struct, frozen=True):
    id: int
    name: str
    rating: int
    text: str
    created_at: datetime
    edited_at: datetime | None


class Page(msgspec.Struct, frozen=True):
    """A product's rating and some of its reviews."""

    ratings: int
    total: int
    reviews: str  # JSON of list[Review]


class Thanked(msgspec.Struct, frozen=True):
    """The cash-back of a review, and how much of it went towards a debt."""

    amount_minor: int
    repaid_minor: int


PUT = One("reviews/put_review", Put)
THANK = Opt("reviews/pay_cashback", Thanked)
LIST = Opt("reviews/list_reviews", Page)

_reviews = msgspec.json.Decoder(list[Review])


async def put(pg: Postgres, product_id: int, user_id: int, rating: int, text: str) -> Put:
    """One attempt; whether it was in time, its word tells."""
    return await PUT(pg, product_id, user_id, rating, text)


async def newest(pg: Postgres, product_id: int, *, before: int, size: int) -> Page | None:
    """The product's rating and up to `size` reviews older than `before`; None when it is not on the shelf."""
    return await LIST(pg, product_id, before, size)


async def thank(pg: Postgres, lease: Lease, product_id: int, user_id: int, share_bp: int) -> Thanked | None:
    """The review's writer has the cash-back, once; None when nothing is due, or the job is no longer ours."""
    return await THANK(pg, lease.outbox_id, lease.attempt_id, product_id, user_id, share_bp)


def reviews(page: Page) -> list[Review]:
    return _reviews.decode(page.reviews)


def average(ratings: int, total: int) -> float | None:
    """Stars with one decimal, halves up; None without ratings."""
    return (20 * total + ratings) // (2 * ratings) / 10 if ratings else None
