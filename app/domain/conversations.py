"""Conversations: who talks with us by which channel, what was said, and who sends what we say.

A reply is claimed for sending before it is sent, and by one; what becomes of a turn until then is `talks`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from app.infra.sql import Many, One, Opt, Postgres

Kind = Literal["telegram", "whatsapp", "app"]

HISTORY_TOKENS = 800  # of the ten lines that a read gives, at most
CHARS_PER_TOKEN = 4  # a rough measure, the same for every model


class Channel(msgspec.Struct, frozen=True):
    """One instance of a channel: a bot, a phone number, the Mini App."""

    id: int
    kind: str
    external_id: str
    active: bool
    quiet_ms: int
    most: int


class Opened(msgspec.Struct, frozen=True):
    """A conversation found or made, in one query with its channel and its user."""

    id: int
    channel_id: int
    kind: str
    peer: str
    user_id: int
    role: str  # of the user: buyer, seller, admin
    language: str
    heard_before: datetime | None  # when its user wrote before this; None: never


class Said(msgspec.Struct, frozen=True):
    """A line of the history."""

    role: str
    text: str
    at: datetime


class Noted(msgspec.Struct, frozen=True):
    id: UUID


class Latest(msgspec.Struct, frozen=True):
    """The last lines of a conversation, the oldest first, by column, and whether a human has it."""

    escalated: bool
    ids: list[int]
    roles: list[str]
    texts: list[str]
    ats: list[datetime]


class Claimed(msgspec.Struct, frozen=True):
    """A decided answer that is this caller's to send, and where to."""

    state: str
    answer: str
    by: str
    offers: str  # JSON: those that hold
    kind: str
    peer: str
    user_id: int
    conversation_id: int
    language: str


REGISTER = One("conversations/register_channel", Channel)
CHANNELS = Many("conversations/list_channels", Channel)
OPEN = Opt("conversations/open_conversation", Opened)
NOTE = Opt("conversations/note_turn", Noted)
CLAIM = Opt("conversations/claim_reply", Claimed)
RELEASE = Opt("conversations/release_reply", Noted)
SENT = Opt("conversations/mark_sent", Noted)
LATEST = Opt("conversations/show_latest", Latest)


async def register(pg: Postgres, kind: Kind, external_id: str) -> Channel:
    """The channel that this process serves, made when it is new."""
    return await REGISTER(pg, kind, external_id)


async def channels(pg: Postgres) -> list[Channel]:
    """All of them."""
    return await CHANNELS(pg)


async def open(
    pg: Postgres, channel_id: int, peer: str, *, name: str, username: str, language: str, at_s: int | None = None
) -> Opened | None:
    """The conversation with this peer, with its user; None when there is no such channel, or it is switched off.

    `at_s`: when it was written; None: now. What WhatsApp brings days late opens no window.
    """
    return await OPEN(pg, channel_id, peer, name, username, language, at_s)


async def latest(pg: Postgres, kind: Kind, external_id: str, peer: str, *, size: int) -> Latest | None:
    """The last lines of this peer's conversation; None while there is none."""
    return await LATEST(pg, kind, external_id, peer, size)


def budgeted(lines: Sequence[Said]) -> list[Said]:
    """The lines, without the oldest ones that are beyond the model's budget."""
    kept, tokens = 0, 0
    for line in reversed(lines):
        tokens += -(-len(line.text) // CHARS_PER_TOKEN)
        if tokens > HISTORY_TOKENS:
            break
        kept += 1
    return list(lines[len(lines) - kept :])


async def repeated(pg: Postgres, turn_id: UUID, conversation_id: int, question: str) -> None:
    """The turn said nothing new."""
    await NOTE(pg, turn_id, conversation_id, "duplicate", question)


async def claim_send(pg: Postgres, turn_id: UUID, conversation_id: int) -> bool:
    """Nobody has sent, or will send, under this id but who was told True: at most once."""
    return await NOTE(pg, turn_id, conversation_id, "noted", "") is not None


async def claim_reply(pg: Postgres, turn_id: UUID) -> Claimed | None:
    """An answer that was decided and that nobody has sent, or may have sent, is this caller's to send."""
    return await CLAIM(pg, turn_id)


async def release(pg: Postgres, turn_id: UUID) -> None:
    """The claim is given up: nothing was sent."""
    await RELEASE(pg, turn_id)


async def mark_sent(pg: Postgres, turn_id: UUID) -> None:
    """The reply is where it should be."""
    await SENT(pg, turn_id)
