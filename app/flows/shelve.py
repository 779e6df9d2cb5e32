"""Shelve: units come to the shelf, a whole batch or nothing of it, and leave it again while nobody holds them."""

import asyncio
from collections.abc import Iterable
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from app.base import clock
from app.domain import units
from app.errors import Busy, Conflict, Forbidden, KeyReused, Malformed, NotFound
from app.flows import hold, refresh
from app.flows.curate import NO_STAFF
from app.shop import Shop

MAX_SECRETS = 1000
MAX_PIECES = 10_000
MAX_PAGE = 200
FARTHEST = timedelta(days=36_500)  # an expiry later than this is a slip of the pen
REPEATED = "repeated"
FITS = {"unit": "secrets are for products of kind unit", "shipped": "pieces are for products of kind shipped"}


class Fault(msgspec.Struct, frozen=True):
    """What is wrong with the unit of a line; what the line holds is not in it."""

    line: int
    reason: str


class Twice(msgspec.Struct, frozen=True):
    """A secret that the product had before, or that stands twice in what was given."""

    line: int
    fingerprint: str  # the first 12 hex digits of its keyed hash


class Added(msgspec.Struct, frozen=True):
    """So many units are new; the duplicates were left out, as asked. `repeated`: so it was for an earlier request."""

    units: int
    duplicates: list[Twice]
    repeated: bool = False


class Clash(msgspec.Struct, frozen=True):
    """Nothing is added, because of these."""

    duplicates: list[Twice]
    units: int = 0


async def shelve(
    shop: Shop,
    actor: units.Actor,
    product_id: int,
    given: list[units.Unit],
    *,
    skip_duplicates: bool,
    dry_run: bool = False,
    earlier: set[bytes] | None = None,
) -> Added | Clash:
    """The secrets are on the shelf, sealed; or they would be (`dry_run`). `earlier` is what a dry run saw before.

    Raises: Malformed, Forbidden, NotFound, Conflict (not for such goods), KeyReused, Busy. Nothing is added then.
    """
    if shop.deps.sealer is None:
        raise NotFound("this shop has no goods keys: TORG_GOODS_KEYS is not set")
    if wrong := list(faults(given)):
        lines = "; ".join(f"line {fault.line}: {fault.reason}" for fault in wrong[:10])
        raise Malformed(f"secrets: {lines}", faults=wrong)
    sealed = units.seal(shop.deps.sealer, product_id, given)
    new, again = _parted(sealed, set() if earlier is None else earlier)
    refused = bool(again) and not skip_duplicates
    done = await units.shelve(
        shop.deps.pg, actor, product_id, new, kind="unit", skip_duplicates=skip_duplicates, dry_run=dry_run or refused
    )
    done = _granted(done, product_id, "unit")
    again += [new[position - 1] for position in done.known]
    twice = sorted((Twice(unit.line, unit.shown) for unit in again), key=lambda one: one.line)
    if twice and not skip_duplicates:
        return Clash(twice)
    if done.units and not dry_run:
        await _shown(shop, product_id, done.seller_id, done.outbox_id)
    return Added(done.units, twice, done.word == REPEATED)


async def shelve_pieces(
    shop: Shop, actor: units.Actor, product_id: int, number: int, discount_bp: int, expires_at: datetime | None
) -> Added:
    """So many pieces without a secret (books) are on the shelf. Raises: as `shelve`."""
    if reason := _bad_expiry(expires_at):
        raise Malformed(reason)
    batch = units.pieces(number, discount_bp, expires_at)
    done = await units.shelve(
        shop.deps.pg, actor, product_id, batch, kind="shipped", skip_duplicates=False, dry_run=False
    )
    done = _granted(done, product_id, "shipped")
    await _shown(shop, product_id, done.seller_id, done.outbox_id)
    return Added(done.units, [], done.word == REPEATED)


async def withdraw(shop: Shop, user_id: int, product_id: int, ids: list[UUID]) -> list[UUID]:
    """Those of these units that were for sale and no longer are. Raises: Forbidden, NotFound."""
    done = await units.withdraw(shop.deps.pg, user_id, product_id, ids)
    if done.word == "forbidden":
        raise Forbidden(NO_STAFF)
    if done.word == "missing":
        raise NotFound(f"product {product_id} is not here")
    if done.ids:
        await _shown(shop, product_id, done.seller_id, done.outbox_id)
    return done.ids


def faults(given: Iterable[units.Unit]) -> Iterable[Fault]:
    """What is wrong with these units, each by its line."""
    for unit in given:
        secret = unit.secret or ""
        if not secret.strip():
            yield Fault(unit.line, "no secret")
        elif len(secret) > units.MAX_SECRET:
            yield Fault(unit.line, f"longer than {units.MAX_SECRET} characters")
        elif not 0 <= unit.discount_bp <= 10_000:
            yield Fault(unit.line, "discount_bp is not within 0 and 10000")
        elif reason := _bad_expiry(unit.expires_at):
            yield Fault(unit.line, reason)


def _bad_expiry(at: datetime | None) -> str:
    if at is None:
        return ""
    if at.tzinfo is None:
        return "expires_at has no time zone"
    if not clock.now() < at < clock.now() + FARTHEST:
        return "expires_at is in the past, or absurdly far away"
    return ""


def _parted(sealed: list[units.Sealed], seen: set[bytes]) -> tuple[list[units.Sealed], list[units.Sealed]]:
    """Those whose secret was not seen before, and those that repeat one."""
    new: list[units.Sealed] = []
    again: list[units.Sealed] = []
    for unit in sealed:
        print_ = unit.fingerprint or b""
        (again if print_ in seen else new).append(unit)
        seen.add(print_)
    return new, again


def _granted(done: units.Shelved | None, product_id: int, kind: str) -> units.Shelved:
    if done is None:
        raise Busy("others are adding the same right now; nothing was added", retry_after_s=1)
    if done.word == "forbidden":
        raise Forbidden(NO_STAFF)
    if done.word == "missing":
        raise NotFound(f"product {product_id} is not here")
    if done.word == "reused":
        raise KeyReused("this Idempotency-Key belongs to another request")
    if done.word == "unfit":
        raise Conflict(f"{FITS[kind]}, product {product_id} is of kind {done.kind}")
    return done


async def _shown(shop: Shop, product_id: int, seller_id: int | None, outbox_id: int | None) -> None:
    """Counters and catalog follow what is committed."""
    assert seller_id is not None  # something was written, so the product was there
    await asyncio.gather(hold.forget(shop, seller_id, [product_id]), refresh.at_once(shop, outbox_id))
