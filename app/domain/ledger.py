"""Ledger: every movement of money as one posting between two accounts, and the balances that buyers can spend."""

from datetime import datetime
from uuid import UUID

import msgspec

from app.infra.sql import Many, Opt, Postgres

BALANCE = "balance"  # the provider name under which a buyer's own money pays


class Paid(msgspec.Struct, frozen=True):
    """What is left on the balance, and the delivery that is owed."""

    balance_minor: int
    outbox_id: int | None


class Balance(msgspec.Struct, frozen=True):
    """What a buyer has in one currency; the debt is withheld from later bonuses."""

    currency: str
    balance_minor: int
    debt_minor: int


class Entry(msgspec.Struct, frozen=True):
    """One line of a buyer's statement: what came is positive, what went negative."""

    id: int
    at: datetime
    reason: str
    currency: str
    amount_minor: int
    order_id: UUID | None
    order_number: int | None


class Fault(msgspec.Struct, frozen=True):
    """Two sums that should be equal and are not."""

    rule: str
    subject: str
    expected: str
    found: str


PAY = Opt("ledger/pay_from_balance", Paid)
BALANCES = Many("ledger/list_balances", Balance)
POSTINGS = Many("ledger/list_postings", Entry)
CHECK = Many("ledger/check_ledger", Fault)


async def pay(pg: Postgres, order_id: UUID, user_id: int) -> Paid | None:
    """The balance pays this order, whole; None when it is too little, or the order is not to be paid."""
    return await PAY(pg, order_id, user_id)


async def balances(pg: Postgres, user_id: int) -> list[Balance]:
    return await BALANCES(pg, user_id)


async def statement(pg: Postgres, user_id: int, *, before: int, size: int) -> list[Entry]:
    return await POSTINGS(pg, user_id, before, size)


async def check(pg: Postgres) -> list[Fault]:
    """What does not add up; an empty list is the proof that everything does."""
    return await CHECK(pg)
