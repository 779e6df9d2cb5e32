"""Units: the physical stock, row by row, as its staff add, list and withdraw it. What of it can be sold is stock's."""

from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from app.base.ids import new_id
from app.infra.secrets import Sealer, stock_row
from app.infra.sql import AlreadyThere, One, Opt, Postgres

MAX_SECRET = 4000  # characters
SHELVE_TRIES = 5  # each lost one means that another batch with the same secret or key was added meanwhile
PRINT_BYTES = 6  # of a fingerprint, as people see it: 12 hex digits


class Unit(msgspec.Struct, frozen=True):
    """A unit about to be shelved, under the number of its line where it came from; a piece (a book) has no secret."""

    line: int
    secret: str | None = None
    discount_bp: int = 0
    expires_at: datetime | None = None


class Sealed(msgspec.Struct, frozen=True):
    """The same, as Postgres gets it."""

    line: int
    id: UUID
    sealed: bytes | None
    fingerprint: bytes | None
    discount_bp: int
    expires_at: datetime | None

    @property
    def shown(self) -> str:
        """What people may see of the secret: enough to find it again, no more."""
        return (self.fingerprint or b"")[:PRINT_BYTES].hex()


class Request(msgspec.Struct, frozen=True):
    """What tells a repeat from one more batch: the user's Idempotency-Key, and the hash of what it came with."""

    key: str
    hash: bytes


class Actor(msgspec.Struct, frozen=True):
    """By whose hands: a user's, or at the machine (no user), where `note["by"]` names them."""

    user_id: int | None
    note: dict[str, Any] = {}
    request: Request | None = None  # of the user, when it has a key: then it adds once, however often it is made


class Shelved(msgspec.Struct, frozen=True):
    """`word`: shelved; duplicates (`known` were there, nothing is added); forbidden, missing, unfit (for its kind).

    Of a request with a key also: repeated (`units` and `known` are what the first one got), reused (by another one).
    """

    word: str
    kind: str | None
    units: int
    known: list[int]  # positions in the batch, from 1: what the product had before
    seller_id: int | None
    outbox_id: int | None


class Withdrawn(msgspec.Struct, frozen=True):
    """`word`: withdrawn; forbidden, missing. `ids` are those that were for sale and no longer are."""

    word: str
    ids: list[UUID]
    seller_id: int | None
    outbox_id: int | None


class Row(msgspec.Struct, frozen=True):
    """A unit as it may be shown: never its secret."""

    id: UUID
    state: str
    received_at: datetime
    expires_at: datetime | None
    discount_bp: int
    fingerprint: str | None  # its first 12 hex digits


class Page(msgspec.Struct, frozen=True):
    units: str  # JSON of list[Row]


SHELVE = One("units/shelve_units", Shelved)
WITHDRAW = One("units/withdraw_units", Withdrawn)
LIST = Opt("units/list_units", Page)

_rows = msgspec.json.Decoder(list[Row])


def seal(sealer: Sealer, product_id: int, units: list[Unit]) -> list[Sealed]:
    """These units, ready for this product."""
    return [_sealed(sealer, product_id, unit) for unit in units]


def pieces(number: int, discount_bp: int, expires_at: datetime | None) -> list[Sealed]:
    """So many units without a secret."""
    return [Sealed(line, new_id(), None, None, discount_bp, expires_at) for line in range(1, number + 1)]


async def shelve(
    pg: Postgres, actor: Actor, product_id: int, batch: list[Sealed], *, kind: str, skip_duplicates: bool, dry_run: bool
) -> Shelved | None:
    """All of the batch is on the shelf or nothing of it; None when others keep adding the same meanwhile.

    Shape: no secret twice in the batch; `kind` is that of the products which such units are for.
    """
    columns = [[getattr(unit, name) for unit in batch] for name in Sealed.__struct_fields__ if name != "line"]
    said = [skip_duplicates, dry_run, msgspec.json.encode(actor.note).decode()]
    said += [actor.request.key, actor.request.hash] if actor.request else [None, None]
    for _ in range(SHELVE_TRIES):
        with suppress(AlreadyThere):
            return await SHELVE(pg, actor.user_id, product_id, kind, *columns, *said)
    return None


async def withdraw(pg: Postgres, user_id: int, product_id: int, ids: list[UUID]) -> Withdrawn:
    """Those of these units that are for sale are withdrawn."""
    return await WITHDRAW(pg, user_id, product_id, ids)


async def newest(
    pg: Postgres, user_id: int, product_id: int, *, state: str, before: UUID, size: int
) -> list[Row] | None:
    """Up to `size` units older than `before`, of one state or any; None when the product is not this user's."""
    page = await LIST(pg, user_id, product_id, state, before, size)
    return _rows.decode(page.units) if page else None


def _sealed(sealer: Sealer, product_id: int, unit: Unit) -> Sealed:
    item = new_id()
    if unit.secret is None:
        return Sealed(unit.line, item, None, None, unit.discount_bp, unit.expires_at)
    fingerprint = sealer.fingerprint(f"{product_id}/{unit.secret}".encode())
    sealed = sealer.seal(unit.secret.encode(), stock_row(item))
    return Sealed(unit.line, item, sealed, fingerprint, unit.discount_bp, unit.expires_at)
