"""Talks: what is known before a turn is answered, and what becomes of it.

A turn is what is answered together. It is decided once: its row leaves `open` in one statement, which claims the reply
for sending too, so whoever finds it decided says nothing. The reads are asked by many conversations at a time, so each
is a statement over lists, and concurrent ones share a round trip (app/base/batches.py).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar
from uuid import UUID

import msgspec

from app.base import wording
from app.base.batches import Batches, Work
from app.base.heard import Heard
from app.errors import PostgresDown
from app.infra.sql import Many, Opt, Postgres

T = TypeVar("T")
R = TypeVar("R")

MOST_TOGETHER = 64  # conversations of one statement
AT_ONCE = 2  # of each read, of one process's connections
PATIENCE_S = 0.002


class Known(msgspec.Struct, frozen=True):
    """What is known of a turn (state None: nothing), and of what its messages may repeat."""

    state: str | None
    answer: str
    by: str
    sent: bool
    external_ids: list[str]  # of its messages, those that another turn has stored
    texts: list[str]  # of other turns, by the user, in the last five minutes


class History(msgspec.Struct, frozen=True):
    """The last ten lines, the oldest first, by column."""

    roles: list[str]
    texts: list[str]
    ats: list[datetime]


class Settings(msgspec.Struct, frozen=True):
    """When a channel hands over to a human; these are the defaults of its row."""

    enabled: bool = True
    threshold: int = 3  # weak answers among the last five
    keywords: list[str] = []


class Escalation(msgspec.Struct, frozen=True):
    """Since when a human has the conversation; None: the machine has it."""

    at: datetime | None = None


class Interactions(msgspec.Struct, frozen=True):
    """The last turns since the conversation was opened, the newest first, by column; quality None: no answer."""

    questions: list[str] = []
    qualities: list[float | None] = []


class Stored(msgspec.Struct, frozen=True):
    id: int


class Dropped(msgspec.Struct, frozen=True):
    id: UUID


class Closed(msgspec.Struct, frozen=True):
    """What became of a turn, by this call: `answer` is what may be said now (empty: nothing)."""

    state: str
    answer: str
    by: str
    offers: str  # JSON: those that hold
    owed: list[int]  # outbox rows to ring for


class Decision(msgspec.Struct, frozen=True):
    """What should become of a turn. In a conversation that a human has, `review` is said, if anything."""

    state: str  # answered, escalated, silent
    answer: str
    by: str
    review: str
    reason: str = ""  # of an escalation
    quality: float | None = None
    offers: str = "[]"  # JSON
    gone: str = ""  # added when an offer does not hold


class Judged(msgspec.Struct, frozen=True):
    """A turn's messages that came for the first time, and of these the ones that say something new."""

    fresh: list[Heard]
    new: list[Heard]


Asked = tuple[UUID, int]  # a turn and its conversation

KNOW = Many("talks/know_turns", Known)
HISTORIES = Many("talks/read_histories", History)
SETTINGS = Many("talks/read_settings", Settings)
ESCALATIONS = Many("talks/read_escalations", Escalation)
INTERACTIONS = Many("talks/read_interactions", Interactions)
STORE = Opt("talks/store_turn", Stored)
DROP = Opt("talks/drop_turn", Dropped)
CLOSE = Opt("talks/close_turn", Closed)


class Reads:
    """The five reads, one by one to their callers and together to Postgres."""

    def __init__(self, pg: Postgres) -> None:
        async def know(asked: list[tuple[UUID, int, list[str]]]) -> list[Known]:
            pairs = [(place, id) for place, (*_, ids) in enumerate(asked, 1) for id in ids]
            return await KNOW(pg, *_columns([(turn, talk) for turn, talk, _ in asked]), *_columns(pairs))

        async def histories(asked: list[Asked]) -> list[History]:
            return await HISTORIES(pg, *_columns(asked))

        async def interactions(asked: list[Asked]) -> list[Interactions]:
            return await INTERACTIONS(pg, *_columns(asked))

        async def settings(channel_ids: list[int]) -> list[Settings]:
            return await SETTINGS(pg, channel_ids)

        async def escalations(conversation_ids: list[int]) -> list[Escalation]:
            return await ESCALATIONS(pg, conversation_ids)

        self.known: Batches[tuple[UUID, int, list[str]], Known] = _gathered(know)
        self.history: Batches[Asked, History] = _gathered(histories)
        self.interactions: Batches[Asked, Interactions] = _gathered(interactions)
        self.settings: Batches[int, Settings] = _gathered(settings)
        self.escalation: Batches[int, Escalation] = _gathered(escalations)

    async def finish(self) -> None:
        """Everything that was begun is answered."""
        for one in (self.known, self.history, self.interactions, self.settings, self.escalation):
            await one.finish()


def _gathered(work: Work[T, R]) -> Batches[T, R]:
    return Batches(work, most=MOST_TOGETHER, at_once=AT_ONCE, patience_s=PATIENCE_S, shared=PostgresDown)


def _columns(rows: Sequence[tuple[object, object]]) -> tuple[list[object], list[object]]:
    return [a for a, _ in rows], [b for _, b in rows]


def judge(heard: Sequence[Heard], known: Known) -> Judged:
    """What is no repeat: by the channel's id it never is, by its words only for five minutes."""
    ids, said = set(known.external_ids), [wording.folded(text) for text in known.texts]
    fresh: list[Heard] = []
    new: list[Heard] = []
    for one in heard:
        if one.external_id and one.external_id in ids:
            continue
        ids.add(one.external_id)
        fresh.append(one)
        words = wording.folded(one.text)
        if not any(wording.alike(words, earlier) for earlier in said):
            new.append(one)
            said.append(words)
    return Judged(fresh, new)


async def store(pg: Postgres, turn_id: UUID, conversation_id: int, question: str, heard: Sequence[Heard]) -> bool:
    """The turn is open, with its user's messages; a second time changes nothing. False: none was stored by this."""
    ids, texts = [one.external_id for one in heard], [one.text for one in heard]
    return await STORE(pg, turn_id, conversation_id, question, ids, texts) is not None


async def drop(pg: Postgres, turn_id: UUID) -> None:
    """An open turn whose messages are all another's is a duplicate."""
    await DROP(pg, turn_id)


async def close(pg: Postgres, turn_id: UUID, conversation_id: int, decision: Decision) -> Closed | None:
    """What became of the turn; None: another call has decided it."""
    d = decision
    return await CLOSE(
        pg, turn_id, conversation_id, d.state, d.reason, d.answer, d.by, d.quality, d.offers, d.review, d.gone
    )  # fmt: skip
