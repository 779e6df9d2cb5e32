"""The source's conversation pipeline on our schema (003-conversation-pipeline.md), one query after another.

`bench/conversation.py` runs it beside ours, in the same process and on as many connections. Its steps: instance (1),
the active conversation (2; the query for an inactive one comes on top when there is none, which the bench never needs),
the duplicate check (3), the message stored (4), the history (5), the webhook's configuration (6), whether it is
escalated (7), the settings of escalation (8) and the recent interactions (9), the model's answer, the answer stored
(10), the reply, and the buffer marked as processed (11). Like the source it has no transaction, claims nothing before
it sends, checks no offer again and owes the channel's webhook nothing; what our schema spreads over two tables is one
query. Its connections are held from first to last, which spares it the reset that asyncpg's pool would send.
"""

from collections.abc import Awaitable, Callable
from difflib import SequenceMatcher
from typing import Any
from uuid import UUID

import msgspec

INSTANCE = "SELECT id, quiet_ms, most FROM channels WHERE kind = 'telegram' AND external_id = $1"
ACTIVE = """
SELECT id, user_id FROM conversations
 WHERE channel_id = $1 AND peer = $2 AND heard_at > now() - interval '6 hours'"""
LATELY = """
SELECT text FROM messages
 WHERE conversation_id = $1 AND role = 'user' AND at > now() - interval '5 minutes' ORDER BY id DESC LIMIT 10"""
STORE = """
WITH turn AS (INSERT INTO turns (id, conversation_id, state, question) VALUES ($1, $2, 'open', $4))
INSERT INTO messages (conversation_id, turn_id, role, text, external_id) VALUES ($2, $1, 'user', $4, $3)"""
HISTORY = "SELECT role, text, at FROM messages WHERE conversation_id = $1 ORDER BY id DESC LIMIT 10"
WEBHOOK = """
SELECT e.url FROM channels c JOIN endpoints e ON e.id = c.endpoint_id WHERE c.id = $1"""
ESCALATED = "SELECT escalated_at FROM conversations WHERE id = $1"
SETTINGS = "SELECT escalation_enabled, escalation_threshold, escalation_keywords FROM channels WHERE id = $1"
INTERACTIONS = """
SELECT question, quality, created_at FROM turns WHERE conversation_id = $1 ORDER BY created_at DESC LIMIT 5"""
ANSWER = """
WITH turn AS (
    UPDATE turns SET state = 'answered', answer = $3, answered_by = 'model', quality = 0.9, answered_at = now(),
                     sending_at = now() WHERE id = $1)
INSERT INTO messages (conversation_id, turn_id, role, text) VALUES ($2, $1, 'assistant', $3)"""
PROCESSED = "UPDATE turns SET sent_at = now() WHERE id = $1"
QUERIES = 11  # a message

SIMILAR = 0.9

Model = Callable[[str], Awaitable[str]]
Send = Callable[[str, str], Awaitable[None]]


class Message(msgspec.Struct, frozen=True):
    """What is answered."""

    turn_id: UUID
    external_id: str
    bot_id: str
    peer: str
    text: str


async def reply(db: Any, message: Message, model: Model, send: Send) -> None:
    """The message is stored and answered."""
    (instance,) = await db.fetch(INSTANCE, message.bot_id)
    (talk,) = await db.fetch(ACTIVE, instance["id"], message.peer)
    lately = await db.fetch(LATELY, talk["id"])
    if any(SequenceMatcher(None, one["text"], message.text).ratio() > SIMILAR for one in lately):
        await db.fetch(PROCESSED, message.turn_id)
        return
    await db.fetch(STORE, message.turn_id, talk["id"], message.external_id, message.text)
    await db.fetch(HISTORY, talk["id"])
    await db.fetch(WEBHOOK, instance["id"])
    (state,) = await db.fetch(ESCALATED, talk["id"])
    await db.fetch(SETTINGS, instance["id"])
    await db.fetch(INTERACTIONS, talk["id"])
    if state["escalated_at"]:
        return
    answer = await model(message.text)
    await db.fetch(ANSWER, message.turn_id, talk["id"], answer)
    await send(message.peer, answer)
    await db.fetch(PROCESSED, message.turn_id)
