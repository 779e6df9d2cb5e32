"""Agents: people of the shop who read conversations, answer in them, hand them back, and set up their channels."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from app.base.ids import derived_id
from app.infra.sql import AlreadyThere, Many, One, Opt, Postgres


class Card(msgspec.Struct, frozen=True):
    """A conversation as agents see it; `escalated_at`: since when it is theirs."""

    id: int
    channel_id: int
    kind: str
    peer: str
    user_id: int
    name: str
    heard_at: datetime
    escalated_at: datetime | None
    escalation: str | None
    at_us: int  # of a list of theirs: its place there


class Line(msgspec.Struct, frozen=True):
    """A message; `sent_at` is known of what we said, if it is."""

    id: int
    turn_id: UUID
    role: str
    user_id: int | None  # the agent
    text: str
    at: datetime
    sent_at: datetime | None


class Alarm(msgspec.Struct, frozen=True):
    """A conversation that wants a human, with its last lines, the oldest first."""

    id: int
    kind: str
    peer: str
    user_id: int
    name: str
    username: str
    reason: str
    roles: list[str]
    texts: list[str]
    seller_id: int | None  # whose webhook hears the channel


class Spoken(msgspec.Struct, frozen=True):
    """`word`: said, repeated; forbidden, missing, other (the key has said something else)."""

    word: str
    message_id: int | None
    at: datetime | None
    owed: list[int]


class Handed(msgspec.Struct, frozen=True):
    id: int


class Instance(msgspec.Struct, frozen=True):
    """A channel with all that can be set; `endpoint_id` is the webhook that hears what is said there."""

    id: int
    kind: str
    external_id: str
    name: str
    active: bool
    quiet_ms: int
    most: int
    escalation_enabled: bool
    escalation_threshold: int
    escalation_keywords: list[str]
    endpoint_id: UUID | None
    version: int
    created_at: datetime


class Changed(msgspec.Struct, frozen=True):
    """`word`: changed, unchanged; forbidden, missing, stale, no_webhook."""

    word: str
    version: int | None


ESCALATED = Many("agents/list_escalated", Card)
CONVERSATIONS = Many("agents/list_conversations", Card)
GET = Opt("agents/get_conversation", Card)
MESSAGES = Many("agents/list_messages", Line)
ALARM = Opt("agents/find_alarm", Alarm)
SAY = One("agents/say_words", Spoken)
HAND_BACK = Opt("agents/hand_back", Handed)
INSTANCES = Many("agents/list_instances", Instance)
CHANGE = One("agents/change_channel", Changed)


async def escalated(pg: Postgres, *, before_us: int, before: int, size: int) -> list[Card]:
    """Up to `size` conversations that agents have, the latest first, after that place and id of the page before."""
    return await ESCALATED(pg, before_us, before, size)


async def newest(pg: Postgres, *, before: int, size: int) -> list[Card]:
    """Up to `size` conversations, whoever has them, with ids below `before`."""
    return await CONVERSATIONS(pg, before, size)


async def get(pg: Postgres, conversation_id: int) -> Card | None:
    return await GET(pg, conversation_id)


async def messages(pg: Postgres, conversation_id: int, *, before: int, size: int) -> list[Line]:
    """Up to `size` messages, the newest first, older than that one of the page before; 0: from the newest."""
    return await MESSAGES(pg, conversation_id, before, size)


async def alarm(pg: Postgres, conversation_id: int) -> Alarm | None:
    """None: no human need look any more."""
    return await ALARM(pg, conversation_id)


async def say(pg: Postgres, user_id: int, conversation_id: int, key: str, text: str) -> Spoken:
    """The agent's words are stored, and owed to whoever wrote there: once per key of this agent."""
    turn_id = derived_id(b"agent", str(user_id).encode(), key.encode())
    try:
        return await SAY(pg, user_id, conversation_id, turn_id, text)
    except AlreadyThere:  # the same at the same moment, which this statement did not see
        return await SAY(pg, user_id, conversation_id, turn_id, text)


async def hand_back(pg: Postgres, user_id: int, conversation_id: int) -> bool:
    """The machine has it again; False: no human had it, or this user is no admin."""
    return await HAND_BACK(pg, user_id, conversation_id) is not None


async def instances(pg: Postgres) -> list[Instance]:
    """All channels."""
    return await INSTANCES(pg)


async def change(pg: Postgres, user_id: int, channel_id: int, version: int, fields: dict[str, Any]) -> Changed:
    """These settings are as given, if `version` is the current one."""
    return await CHANGE(pg, user_id, channel_id, version, msgspec.json.encode(fields).decode())
