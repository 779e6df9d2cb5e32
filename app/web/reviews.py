"""Reviews: what buyers who got the goods say of them."""

from datetime import datetime
from typing import Annotated

import msgspec
from litestar import Response, get, put
from litestar.params import JSONBody, QueryParameter
from msgspec import Meta

from app.domain import reviews
from app.flows import review
from app.web.bodies import Text, exact
from app.web.guards import signed_in
from app.web.handler import Req, TheShop
from app.web.params import MAX_ID, Cursor, ProductId


class Written(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Stars and, if you like, words."""

    rating: Annotated[int, Meta(ge=1, le=5)]
    text: Annotated[Text, Meta(max_length=reviews.MAX_TEXT)] = ""


class Counted(msgspec.Struct, frozen=True):
    """What became of it (created, edited, unchanged), and the product's rating with it."""

    outcome: str
    ratings: int
    rating: float | None


class Review(msgspec.Struct, frozen=True):
    """A verified buyer's; only the first name is shown."""

    name: str
    rating: int
    text: str
    created_at: datetime
    edited_at: datetime | None


class ReviewList(msgspec.Struct, frozen=True):
    """The newest reviews first; `rating` is the average of all `ratings`, null when there are none."""

    ratings: int
    rating: float | None
    reviews: list[Review]
    next_cursor: str | None


@put("/api/products/{product_id:int}/review", limits=("address", "reviews"))
async def write_review(
    request: Req, product_id: ProductId, data: JSONBody[Written], shop: TheShop
) -> Response[Counted]:
    """Your review of a product whose goods were delivered to you; a later one replaces it."""
    session = signed_in(request, shop)
    body = await exact(request, Written)
    done = await review.review(shop, session.user_id, product_id, body.rating, body.text)
    shown = Counted(done.word, done.ratings, reviews.average(done.ratings, done.total))
    return Response(shown, status_code=201 if done.word == "created" else 200)


@get("/api/products/{product_id:int}/reviews", limits=("browse",))
async def list_reviews(
    product_id: ProductId,
    shop: TheShop,
    cursor: Cursor = "",
    limit: Annotated[int, QueryParameter(ge=1, le=review.MAX_PAGE)] = 20,
) -> ReviewList:
    """What buyers say of a product, page by page."""
    page = await review.read(shop, product_id, before=int(cursor or MAX_ID), size=limit + 1)
    found = reviews.reviews(page)
    more = len(found) > limit
    return ReviewList(
        ratings=page.ratings,
        rating=reviews.average(page.ratings, page.total),
        reviews=[_review(one) for one in found[:limit]],
        next_cursor=str(found[limit - 1].id) if more else None,
    )


def _review(r: reviews.Review) -> Review:
    first = r.name.split(maxsplit=1)[:1]
    return Review("".join(first), r.rating, r.text, r.created_at, r.edited_at)
