"""Referrals: who brought whom, and what that earned: one bonus per order and level, taken back as its money is."""

from hashlib import blake2b
from uuid import UUID

import msgspec

from app.base.lease import Lease
from app.infra.sql import Many, Opt, Postgres

LEVELS = 3
PREFIX = "ref_"  # of a Mini App's start parameter

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_CHECKS = 3  # digits that tell a mistyped code from another user's
_MOST = 13 + _CHECKS  # digits of the largest id


class Rewarded(msgspec.Struct, frozen=True):
    """How many levels have a bonus, and what they come to."""

    levels: int
    amount_minor: int


class Clawed(msgspec.Struct, frozen=True):
    """What came off balances, and what became a debt because it was spent."""

    taken_minor: int
    lent_minor: int


class Invited(msgspec.Struct, frozen=True):
    level: int
    people: int


class Earned(msgspec.Struct, frozen=True):
    """The bonuses of one level in one currency, and what of them was taken back."""

    level: int
    currency: str
    earned_minor: int
    clawed_minor: int


REWARD = Opt("referrals/reward_order", Rewarded)
CLAW = Opt("referrals/claw_back", Clawed)
INVITED = Many("referrals/count_invited", Invited)
EARNED = Many("referrals/sum_earned", Earned)


async def reward(pg: Postgres, lease: Lease, order_id: UUID, shares_bp: list[int]) -> Rewarded | None:
    """Every level has its share, once; None when nobody has one, or the job is no longer ours."""
    return await REWARD(pg, lease.outbox_id, lease.attempt_id, order_id, shares_bp)


async def claw_back(pg: Postgres, lease: Lease, order_id: UUID) -> Clawed | None:
    """Of each bonus as much is back as of the order's money; None when nothing was to be taken."""
    return await CLAW(pg, lease.outbox_id, lease.attempt_id, order_id)


async def invited(pg: Postgres, user_id: int) -> list[Invited]:
    return await INVITED(pg, user_id)


async def earned(pg: Postgres, user_id: int) -> list[Earned]:
    return await EARNED(pg, user_id)


def code_of(user_id: int) -> str:
    """The user's code: its id with check digits, the same from every process and for ever; no secret."""
    checks = int.from_bytes(blake2b(str(user_id).encode(), digest_size=8, person=b"torg-ref").digest())
    return _spelt(checks % len(_DIGITS) ** _CHECKS).rjust(_CHECKS, "0") + _spelt(user_id)


def user_of(start_param: str) -> int | None:
    """Whose code a Mini App was opened with; None when it is no code."""
    code = start_param.removeprefix(PREFIX)
    digits = code[_CHECKS:]
    if code == start_param or len(code) > _MOST or not digits or not all(digit in _DIGITS for digit in code):
        return None
    user_id = int(digits, len(_DIGITS))
    return user_id if 0 < user_id < 2**63 and code_of(user_id) == code else None


def _spelt(number: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, len(_DIGITS))
        text = _DIGITS[digit] + text
    return text
