"""Endpoints: where sellers' own systems hear what becomes of their orders, signed as Standard Webhooks says.

A call is an outbox row of kind `hook`, keyed by event and endpoint, whose payload is the event as it was. What signs is
kept sealed, opens only in its own row, and is shown once.
"""

import base64
import hashlib
import hmac
import os
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from app.base.lease import Lease
from app.infra.secrets import Sealer, endpoint_row
from app.infra.sql import Many, One, Opt, Postgres

# What an endpoint may ask for. `order.status` comes with every move of an order, beside the others; the last two go to
# endpoints that an admin has set for a channel (docs/conversations.md).
TYPES = (
    "order.paid", "order.delivered", "order.cancelled", "order.expired", "order.refunded", "order.status",
    "conversation.message", "conversation.escalated",
)  # fmt: skip
TEST = "webhook.test"

MOST = 10  # endpoints of one seller
MOST_AGAIN = 1000  # calls that one replay owes again
ROTATION_S = 86_400  # how long a former secret signs beside its successor
PATIENCE_S = 5 * 86_400  # of nothing but failures; one call's whole ladder takes three days

PREFIX = "whsec_"
SECRET_BYTES = 32


class Endpoint(msgspec.Struct, frozen=True):
    """An endpoint as its staff see it."""

    id: UUID
    seller_id: int
    url: str
    types: list[str]
    disabled_at: datetime | None
    disabled_why: str | None
    failing_since: datetime | None
    heard_at: datetime | None
    former_until: datetime | None
    version: int
    created_at: datetime


class Entered(msgspec.Struct, frozen=True):
    """`word`: created; forbidden, no_seller, full."""

    word: str


class Changed(msgspec.Struct, frozen=True):
    """`word`: changed, unchanged; forbidden, missing, stale."""

    word: str
    version: int | None


class Owed(msgspec.Struct, frozen=True):
    id: int


class Again(msgspec.Struct, frozen=True):
    """A call that is owed again; `turn` is for the ring."""

    id: int
    turn: int


class Listed(msgspec.Struct, frozen=True):
    """A call: `state` is owed, done, dead (given up) or dropped."""

    id: int
    event_id: str
    state: str
    attempts: int
    created_at: datetime
    run_at: datetime
    done_at: datetime | None
    last_error: str
    event: str  # JSON


class Target(msgspec.Struct, frozen=True):
    """What a call needs; `disabled_why` is empty while it may be made."""

    seller_id: int
    url: str
    sealed: bytes
    former: bytes | None
    disabled_why: str


class Closed(msgspec.Struct, frozen=True):
    id: int


class Disabled(msgspec.Struct, frozen=True):
    why: str


CREATE = One("endpoints/create_endpoint", Entered)
CHANGE = One("endpoints/change_endpoint", Changed)
ROTATE = One("endpoints/rotate_secret", Changed)
DELETE = One("endpoints/delete_endpoint", Changed)
FIND = Opt("endpoints/find_endpoint", Endpoint)
LIST = Many("endpoints/list_endpoints", Endpoint)
OWE = Many("endpoints/owe_calls", Owed)
OWE_TEST = Opt("endpoints/owe_test", Owed)
CALLS = Many("endpoints/list_calls", Listed)
REPLAY = Many("endpoints/replay_calls", Again)
TARGET = Opt("endpoints/find_target", Target)
HEAR = Opt("endpoints/hear_call", Closed)
FAIL = Opt("endpoints/fail_call", Disabled)
POSTPONE = Opt("endpoints/postpone_call", Closed)


def new_secret() -> str:
    """As its owner is shown it, and as it is sealed."""
    return PREFIX + base64.b64encode(os.urandom(SECRET_BYTES)).decode()


def signed(secrets: Sequence[str], message_id: str, at_s: int, body: bytes) -> dict[str, str]:
    """The headers that prove the body to whoever has one of the secrets."""
    told = f"{message_id}.{at_s}.".encode() + body
    keys = [base64.b64decode(secret.removeprefix(PREFIX)) for secret in secrets]
    signatures = [base64.b64encode(hmac.digest(key, told, hashlib.sha256)).decode() for key in keys]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def opened(sealer: Sealer, endpoint_id: UUID, target: Target) -> list[str]:
    """The secrets that sign now, the newest first. Raises: Unsealable."""
    sealed = [target.sealed] + ([target.former] if target.former else [])
    return [sealer.open(one, endpoint_row(endpoint_id)).decode() for one in sealed]


async def create(
    pg: Postgres, sealer: Sealer, user_id: int, endpoint_id: UUID, seller_id: int | None, url: str, types: list[str],
    secret: str,
) -> str:  # fmt: skip
    """The word that says what became of the new endpoint."""
    sealed = sealer.seal(secret.encode(), endpoint_row(endpoint_id))
    return (await CREATE(pg, user_id, endpoint_id, seller_id, url, types, sealed, MOST)).word


async def change(pg: Postgres, user_id: int, endpoint_id: UUID, version: int, fields: dict[str, Any]) -> Changed:
    """These of url, types and enabled are as given, if `version` is the current one."""
    return await CHANGE(pg, user_id, endpoint_id, version, msgspec.json.encode(fields).decode())


async def rotate(pg: Postgres, sealer: Sealer, user_id: int, endpoint_id: UUID, secret: str) -> Changed:
    """This secret signs from now on, its predecessor for `ROTATION_S` more."""
    return await ROTATE(pg, user_id, endpoint_id, sealer.seal(secret.encode(), endpoint_row(endpoint_id)), ROTATION_S)


async def delete(pg: Postgres, user_id: int, endpoint_id: UUID) -> Changed:
    return await DELETE(pg, user_id, endpoint_id)


async def find(pg: Postgres, user_id: int, endpoint_id: UUID) -> Endpoint | None:
    """The endpoint, if this user has to do with it."""
    return await FIND(pg, user_id, endpoint_id)


async def page(pg: Postgres, user_id: int, *, after: UUID, size: int) -> list[Endpoint]:
    """Up to `size` of this user's endpoints with ids above `after`."""
    return await LIST(pg, user_id, after, size)


async def owe(pg: Postgres, order_id: UUID, event_id: int, type: str, at: datetime) -> list[int]:
    """Every endpoint that wants to hear this of the order is owed a call; the new rows, to be rung for.

    `event_id` is the order_events row: it names the message, so that a repeat owes nothing new.
    """
    return [owed.id for owed in await OWE(pg, order_id, event_id, type, at)]


async def owe_test(pg: Postgres, user_id: int, endpoint_id: UUID, event_id: str) -> int | None:
    """The endpoint is owed an event that means nothing; None when it is disabled, or not this user's."""
    owed = await OWE_TEST(pg, user_id, endpoint_id, event_id, TEST)
    return owed.id if owed else None


async def calls(pg: Postgres, endpoint_id: UUID, *, before: int, size: int) -> list[Listed]:
    """Up to `size` calls older than `before`, whoever asks."""
    return await CALLS(pg, endpoint_id, before, size)


async def replay(pg: Postgres, user_id: int, endpoint_id: UUID, event_id: str, since: datetime | None) -> list[Again]:
    """The event's call is owed again; or (without one) all since then that were not heard, the newest `MOST_AGAIN`."""
    return await REPLAY(pg, user_id, endpoint_id, event_id, since, MOST_AGAIN)


async def target(pg: Postgres, endpoint_id: UUID) -> Target | None:
    """None when it was deleted."""
    return await TARGET(pg, endpoint_id)


async def hear(pg: Postgres, lease: Lease, endpoint_id: UUID) -> bool:
    """The call is done; False when the row is no longer this attempt's."""
    return await HEAR(pg, lease.outbox_id, lease.attempt_id, endpoint_id) is not None


async def fail(pg: Postgres, endpoint_id: UUID, *, gone: bool, alert: str) -> str | None:
    """The failure is on record; why the endpoint is disabled, when this failure did that."""
    disabled = await FAIL(pg, endpoint_id, gone, PATIENCE_S, alert)
    return disabled.why if disabled else None


async def postpone(pg: Postgres, lease: Lease, delay_s: float) -> None:
    """The row is nobody's for so long, and this attempt is not counted."""
    await POSTPONE(pg, lease.outbox_id, lease.attempt_id, int(delay_s * 1000))
