"""Conversations: who talks with us by which channel, what was said, and what became of it."""

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from app.infra.sql import Postgres

Kind = Literal["telegram", "whatsapp", "app"]


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


async def register(pg: Postgres, kind: Kind, external_id: str) -> Channel:
    """The channel that this process serves, made when it is new."""
    raise NotImplementedError


async def channels(pg: Postgres) -> list[Channel]:
    """All of them."""
    raise NotImplementedError


async def open(pg: Postgres, channel_id: int, peer: str, *, name: str, username: str, language: str) -> Opened | None:
    """The conversation with this peer, with its user; None when there is no such channel, or it is switched off."""
    raise NotImplementedError


async def claim_send(pg: Postgres, turn_id: UUID, conversation_id: int) -> bool:
    """Nobody has sent, or will send, under this id but who was told True: at most once."""
    raise NotImplementedError
