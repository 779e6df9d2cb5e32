"""PATCH /api/orders/{id}/status: one statement, the answer, and then everybody hears of it (REQUIREMENTS C)."""

from typing import Annotated, Literal

import msgspec
from litestar import Response, patch
from litestar.background_tasks import BackgroundTask
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from app.base.ids import parse_id
from app.domain import moves
from app.errors import Malformed, NotFound
from app.flows import move
from app.web.bodies import Text, exact
from app.web.guards import signed_in
from app.web.handler import Req, TheShop
from app.web.orders import OrderCard, answer


class Move(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the order shall become, and what is to be remembered of it."""

    status: moves.Status | Literal["canceled"]  # as American merchants spell it
    note: Annotated[Text, Meta(max_length=500)] = ""


@patch("/api/orders/{order_id:str}/status", limits=("moves",))
async def move_order(request: Req, order_id: FromPath[str], data: JSONBody[Move], shop: TheShop) -> Response[OrderCard]:
    """The order is moved on by its buyer, its seller or an admin, as docs/moves.md allows, and comes back whole.

    409 with the present `order_status` when there is no such move from it: of requests at once one wins. With
    `If-Match: "<status>"` only an order in that status is moved. Cancelling a paid order pays it back to the balance.
    """
    session = signed_in(request, shop)
    body = await exact(request, Move)
    known = parse_id(order_id)
    if known is None:
        raise NotFound("no such order")
    status = "cancelled" if body.status == "canceled" else body.status
    moved = await move.move(shop, session.user_id, known, status, expected=_expected(request), note=body.note)
    response = answer(moved.with_step(body.note))
    response.background = BackgroundTask(move.follow_up, shop, moved)
    return response


def _expected(request: Req) -> str:
    """The status in If-Match; empty: any. Raises: Malformed."""
    header = request.headers.get("if-match", "*").strip()
    if header == "*":
        return ""
    status = header.removeprefix("W/").strip('"')
    if not (status.isascii() and status.replace("_", "").isalpha() and len(status) <= 40):
        raise Malformed("If-Match: the order's status in quotes, as the ETag has it")
    return status
