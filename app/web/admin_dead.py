"""Admin, dead letters: jobs that no attempt could do, looked at, replayed or dropped. Admins only: a payload may hold
what a customer has told us."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import delete, get, post
from litestar.params import JSONBody, PathParameter, QueryParameter
from msgspec import Meta

from app.domain import dead, staff
from app.errors import Forbidden, Malformed, NotFound
from app.flows.replay import replay
from app.shop import Shop
from app.web.admin import acting
from app.web.bodies import Id, exact
from app.web.handler import Req, TheShop
from app.web.params import MAX_ID, OptionalId

MAX_PAGE = 200

KindName = Annotated[str, QueryParameter(pattern=r"^([a-z_]{1,40})?$(?!\n)")]
LetterId = Annotated[int, PathParameter(ge=1, le=MAX_ID)]


class Letter(msgspec.Struct, frozen=True):
    """A dead letter with its payload and its story: a line for each replay, and for the drop."""

    id: int
    kind: str
    key: str
    aggregate: str | None
    state: str
    payload: Any
    attempts: int
    created_at: datetime
    died_at: datetime
    last_error: str
    history: list[str]


class LetterList(msgspec.Struct, frozen=True):
    """The newest first; `before=<next_before>` is the next page."""

    letters: list[dead.Letter]
    next_before: int | None


class Replay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which: one of `ids`, `kind`, `all`. A dry run changes nothing."""

    ids: Annotated[list[Id], Meta(min_length=1, max_length=1000)] | None = None
    kind: Annotated[str, Meta(pattern=r"^[a-z_]{1,40}$(?!\n)")] | None = None
    all: bool = False
    dry_run: bool = False


class Replayed(msgspec.Struct, frozen=True):
    """Those that are owed again (in a dry run: would be); `more`: as many as one call takes, so call again."""

    count: int
    ids: list[int]
    more: bool
    dry_run: bool


@get("/api/admin/dead", limits=("address", "admin"))
async def list_dead(
    request: Req,
    shop: TheShop,
    kind: KindName = "",
    before: OptionalId = None,
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = 50,
) -> LetterList:
    """Dead letters, of one kind or all."""
    await _admin(request, shop)
    found = await dead.newest(shop.deps.pg, kind, before=before or MAX_ID, size=limit + 1)
    return LetterList(found[:limit], found[limit - 1].id if len(found) > limit else None)


@get("/api/admin/dead/{letter_id:int}", limits=("address", "admin"))
async def show_dead(request: Req, letter_id: LetterId, shop: TheShop) -> Letter:
    """One dead letter, also after it was dropped."""
    await _admin(request, shop)
    one = await dead.get(shop.deps.pg, letter_id)
    if one is None:
        raise NotFound("no such dead letter")
    fields = msgspec.structs.asdict(one)
    payload, history = msgspec.json.decode(one.payload), one.history.splitlines()
    return Letter(**fields | {"payload": payload, "history": history})


@post("/api/admin/dead/replay", status_code=200, limits=("address", "admin"))
async def replay_dead(request: Req, data: JSONBody[Replay], shop: TheShop) -> Replayed:
    """Dead letters are tried again at once, as if nothing had been tried; on record."""
    by = await _admin(request, shop)
    which = await exact(request, Replay)
    if sum((which.ids is not None, which.kind is not None, which.all)) != 1:
        raise Malformed("say which: one of ids, kind, all")
    ids = await replay(shop, which.ids, which.kind or "", by, dry_run=which.dry_run)
    return Replayed(len(ids), ids, len(ids) == dead.MOST, which.dry_run)


@delete("/api/admin/dead/{letter_id:int}", status_code=204, limits=("address", "admin"))
async def drop_dead(request: Req, letter_id: LetterId, shop: TheShop) -> None:
    """This job is never done; on record, and its row stays."""
    by = await _admin(request, shop)
    if await dead.drop(shop.deps.pg, letter_id, by) is None:
        raise NotFound("no such dead letter")


async def _admin(request: Req, shop: Shop) -> dead.By:
    """The admin who calls, as Postgres says at this moment. Raises: BadToken, Forbidden."""
    session = acting(request, shop)
    now = await staff.find(shop.deps.pg, session.user_id)
    if session.role != "admin" or now is None or now.role != "admin":
        raise Forbidden("only admins may do this")
    return dead.By(session.user_id, f"user {session.user_id}")
