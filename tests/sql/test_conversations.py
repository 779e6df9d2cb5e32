"""Conversations in Postgres: who is who, when one is opened anew, and reads that many share."""

import asyncio
from typing import Any

import pytest

from app.base import clock
from app.base.heard import Heard
from app.base.ids import new_id
from app.domain import conversations, talks
from app.domain.conversations import Opened
from app.infra.sql import Postgres


async def opened(pg: Postgres, channel_id: int, peer: str, language: str = "", name: str = "Ann") -> Opened:
    found = await conversations.open(pg, channel_id, peer, name=name, username="ann", language=language)
    assert found
    return found


async def test_a_channel_is_registered_once_and_keeps_its_settings(pg: Postgres) -> None:
    first = await conversations.register(pg, "telegram", "7")
    await pg.fetch("UPDATE channels SET most = 2, active = false WHERE id = $1", (first.id,))
    again = await conversations.register(pg, "telegram", "7")
    assert (again.id, again.most, again.active) == (first.id, 2, False)
    assert [known.kind for known in await conversations.channels(pg)] == ["app", "telegram"]


async def test_a_telegram_user_is_the_one_who_is_known(pg: Postgres) -> None:
    channel = await conversations.register(pg, "telegram", "7")
    await pg.fetch(
        "INSERT INTO users (telegram_id, name, role, language, blocked_at) VALUES (1001, 'Old', 'admin', 'uk', now())",
        (),
    )
    first = await opened(pg, channel.id, "1001", "ru-RU")
    assert (first.kind, first.peer, first.role, first.language, first.heard_before) == (
        "telegram", "1001", "admin", "ru-RU", None,
    )  # fmt: skip
    again = await opened(pg, channel.id, "1001", name="")
    assert (again.id, again.user_id, again.language) == (first.id, first.user_id, "ru-RU")
    assert again.heard_before is not None
    (user,) = await pg.fetch("SELECT name, username, blocked_at FROM users", ())
    assert tuple(user) == ("Ann", "ann", None)
    await pg.fetch("UPDATE users SET language = 'en', chosen_language = 'en'", ())
    assert (await opened(pg, channel.id, "1001", "ru")).language == "en"


async def test_a_whatsapp_user_is_their_phone_and_a_mini_app_user_their_id(pg: Postgres) -> None:
    phone = await conversations.register(pg, "whatsapp", "10042")
    first = await opened(pg, phone.id, "380501112233")
    assert (await opened(pg, phone.id, "380501112233")).user_id == first.user_id
    (user,) = await pg.fetch("SELECT whatsapp, telegram_id, name FROM users", ())
    assert tuple(user) == ("380501112233", None, "Ann")
    (app,) = [known for known in await conversations.channels(pg) if known.kind == "app"]
    found = await opened(pg, app.id, str(first.user_id), name="")
    assert (found.user_id, found.kind) == (first.user_id, "app")
    assert found.id != first.id


@pytest.mark.parametrize(
    ("kind", "peer"), [("telegram", "-100"), ("telegram", "x"), ("whatsapp", "+38050"), ("app", "9")]
)
async def test_nobody_can_be_some_peers(pg: Postgres, kind: Any, peer: str) -> None:
    channel = await conversations.register(pg, kind, "app" if kind == "app" else "7")
    assert await conversations.open(pg, channel.id, peer, name="", username="", language="") is None
    assert await conversations.open(pg, 999, "1001", name="", username="", language="") is None
    assert await pg.fetch("SELECT FROM conversations", ()) == []


@pytest.mark.parametrize(("silent", "anew"), [("5 hours 59 minutes", False), ("6 hours 1 minute", True)])
async def test_after_six_silent_hours_the_same_one_is_opened_anew(pg: Postgres, silent: str, anew: bool) -> None:
    channel = await conversations.register(pg, "telegram", "7")
    first = await opened(pg, channel.id, "1001")
    past = f"UPDATE conversations SET opened_at = now() - interval '1 day', heard_at = now() - interval '{silent}'"
    await pg.fetch(past, ())
    assert (await opened(pg, channel.id, "1001")).id == first.id
    (row,) = await pg.fetch("SELECT now() - opened_at < interval '1 minute' AS anew FROM conversations", ())
    assert row["anew"] is anew


async def test_old_messages_of_whatsapp_open_one_conversation_and_no_window(pg: Postgres) -> None:
    channel = await conversations.register(pg, "whatsapp", "7")
    day_s, now_s = 86_400, clock.unix_s()

    async def heard(at_s: int | None) -> tuple[int, Any]:
        """How long ago, in days, its user is taken to have written last; and since when it is open."""
        told = {"name": "", "username": "", "language": ""}
        assert await conversations.open(pg, channel.id, "380501234567", at_s=at_s, **told)
        query = "SELECT extract(epoch FROM now() - heard_at)::int8 AS ago_s, opened_at FROM conversations"
        (row,) = await pg.fetch(query, ())
        return round(row["ago_s"] / day_s), row["opened_at"]

    backlog = [await heard(now_s - 3 * day_s + n) for n in range(3)]
    assert backlog == [(3, backlog[0][1])] * 3
    assert (await heard(0)) == backlog[0]  # 1970
    today = await heard(now_s)
    assert (today[0], today[1] > backlog[0][1]) == (0, True)
    assert await heard(now_s - 2 * day_s) == today  # late, it takes nothing back
    assert await heard(now_s + 365 * day_s) == today
    assert await heard(None) == today


async def test_conversations_that_are_read_together_have_each_their_own(
    pg: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = await conversations.register(pg, "telegram", "7")
    everyone = [await opened(pg, channel.id, str(1000 + n)) for n in range(20)]
    for n, one in enumerate(everyone):
        for words in range(n % 3):
            await talks.store(pg, new_id(), one.id, f"{n}", [Heard(f"{n}.{words}", 0, text=f"{n} says {words}")])
    fetched, fetch = [], pg.fetch

    async def counting(text: str, args: Any) -> Any:
        fetched.append(text)
        return await fetch(text, args)

    monkeypatch.setattr(pg, "fetch", counting)
    reads, turns = talks.Reads(pg), [(new_id(), one.id) for one in everyone]
    known, histories, asked, escalations, settings = (
        await asyncio.gather(*(reads.known.do((*turn, [f"{n}.0"])) for n, turn in enumerate(turns))),
        await asyncio.gather(*(reads.history.do(turn) for turn in turns)),
        await asyncio.gather(*(reads.interactions.do(turn) for turn in turns)),
        await asyncio.gather(*(reads.escalation.do(o.id) for o in everyone)),
        await asyncio.gather(*(reads.settings.do(o.channel_id) for o in everyone)),
    )
    assert len(fetched) == 5
    for n in range(20):
        texts = [f"{n} says {words}" for words in range(n % 3)]
        assert sorted(known[n].texts) == texts
        assert known[n].external_ids == ([f"{n}.0"] if n % 3 else [])
        assert (known[n].state, known[n].answer, known[n].sent) == (None, "", False)
        assert histories[n].texts == texts
        assert asked[n].questions == [f"{n}"] * (n % 3)
        assert (escalations[n].at, settings[n]) == (None, talks.Settings())
    await reads.finish()
