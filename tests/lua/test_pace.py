"""The bot's pace: every message has its place, news before broadcasts, and what Telegram asks for is obeyed by all."""

import asyncio
import random

import pytest

from app.base import keys
from app.domain import pace
from app.domain.pace import Bot, Chat, Go, Hold, LaterBot, LaterChat, Own, Place, Rate
from app.infra.lua import Redis
from app.infra.pipe import Pipe
from app.settings import BadSettings
from tests.lua.measure import commands_run, stated

NOW = 1_800_000_000_000_000  # us: these tests have a clock of their own
S = 1_000_000
BY = pace.rates("")
BOT_US = BY["bot"].every_us  # a hair more than a thirtieth of a second
STEPS = 3000


async def news(store: Redis, chat_id: int, *, at_us: int = 0) -> Place:
    return await pace.admit(store, chat_id, "news", BY, NOW + at_us)


async def cry(store: Redis, chat_id: int, *, at_us: int = 0) -> Place:
    return await pace.admit(store, chat_id, "broadcast", BY, NOW + at_us)


# ---- a chat


async def test_a_chat_has_three_at_once_and_then_one_a_second(store: Redis) -> None:
    wide = {**BY, "bot": Rate(1_000_000, 1)}
    told = [await pace.admit(store, 7, "news", wide, NOW + number) for number in range(6)]
    assert [type(place) for place in told] == [Go, Go, Go, Hold, LaterChat, LaterChat]
    assert told[3:] == [Hold(S - 3), LaterChat(2 * S - 4), LaterChat(2 * S - 5)]
    assert isinstance(await pace.admit(store, 7, "held", wide, NOW + S), Go)
    # Who comes when it was told to is in time.
    assert await pace.admit(store, 7, "news", wide, NOW + 2 * S) == Go(0)
    assert isinstance(await pace.admit(store, 7, "news", wide, NOW + 2 * S + 1), Hold)


async def test_a_group_has_twenty_a_minute(store: Redis) -> None:
    leaving = []
    for second in range(120):
        match await news(store, -100, at_us=second * S):
            case Go(wait_us) | Hold(wait_us):
                leaving.append(second * S + wait_us)
    assert leaving == [number * 3 * S for number in range(41)]


async def test_chats_do_not_wait_for_each_other(store: Redis) -> None:
    for _ in range(5):
        await news(store, 7)
    assert isinstance(await news(store, 8), Go)


# ---- the bot


async def test_thirty_a_second_leave_evenly_whoever_asks(redis: Pipe) -> None:
    """All ask at once: each has a place of its own, up to a second away, and the others come again."""
    told = await asyncio.gather(*(news(redis, chat) for chat in range(1, 101)))
    waits = sorted(place.wait_us for place in told if isinstance(place, Go))
    assert waits == [number * BOT_US for number in range(30)]
    later = [place for place in told if isinstance(place, LaterBot)]
    assert len(later) == 70
    assert {place.wait_us for place in later} == {30 * BOT_US}


async def test_a_minute_of_asking_is_thirty_a_second(store: Redis) -> None:
    sent = 0
    for step in range(600):  # five chats each tenth of a second: too many
        told = [await news(store, 10 * step + chat + 1, at_us=step * S // 10) for chat in range(5)]
        sent += sum(isinstance(place, Go) for place in told)
    assert sent - 59_900_000 // BOT_US in (30, 31)  # thirty have their place within the next second


async def test_who_waits_for_the_chat_does_not_hold_up_the_bot(store: Redis) -> None:
    for _ in range(3):
        await news(store, 7)
    assert isinstance(await news(store, 7), Hold)
    assert await news(store, 8) == Go(3 * BOT_US)


# ---- broadcasts


async def test_broadcasts_are_twenty_a_second_at_most(store: Redis) -> None:
    sent = sum([isinstance(await cry(store, step + 1, at_us=step * 1000), Go) for step in range(3000)])
    assert sent == 60


async def test_a_broadcast_goes_only_when_no_news_waits(store: Redis) -> None:
    assert await news(store, 1) == Go(0)
    assert await cry(store, 2) == LaterBot(BOT_US)
    assert await news(store, 3) == Go(BOT_US)
    assert await cry(store, 2, at_us=BOT_US) == LaterBot(BOT_US)
    assert await cry(store, 2, at_us=2 * BOT_US) == Go(0)
    # And news that comes just then waits for one message of a broadcast, not for all of them.
    assert await news(store, 4, at_us=2 * BOT_US) == Go(BOT_US)


async def test_news_at_full_pace_leaves_no_place_to_broadcasts(store: Redis) -> None:
    for step in range(300):
        at_us = step * BOT_US
        assert isinstance(await news(store, step + 1, at_us=at_us), Go)
        assert isinstance(await cry(store, 9999, at_us=at_us + BOT_US // 2), LaterBot)


async def test_a_broadcast_keeps_to_the_chats_pace_too(store: Redis) -> None:
    for _ in range(3):
        await news(store, 7)
    assert await cry(store, 7, at_us=S // 2) == LaterChat(S // 2)
    assert isinstance(await cry(store, 7, at_us=S), Go)


# ---- drafts


async def test_a_draft_leaves_at_once_or_not_at_all_and_costs_its_chat_nothing(store: Redis) -> None:
    assert await pace.admit(store, 7, "draft", BY, NOW) == Go(0)
    assert await pace.admit(store, 8, "draft", BY, NOW) == LaterBot(BOT_US)
    for _ in range(3):  # the chat's own burst is untouched
        assert isinstance(await news(store, 7), Go)
    assert await pace.admit(store, 7, "draft", BY, NOW + S // 2) == LaterChat(S // 2)


async def test_drafts_at_full_pace_hold_up_news_by_one_place(store: Redis) -> None:
    for step in range(100):
        at_us = step * BOT_US
        await pace.admit(store, 2 * step + 1, "draft", BY, NOW + at_us)
        match await news(store, 2 * step + 2, at_us=at_us):
            case Go(wait_us):
                assert wait_us <= BOT_US
            case other:
                raise AssertionError(other)


# ---- what Telegram asks for


async def test_a_chat_that_telegram_stopped_waits_and_the_others_do_not(store: Redis) -> None:
    assert await pace.stop(store, 7, 17, BY, NOW) == Chat()
    assert await news(store, 7, at_us=S) == LaterChat(16 * S)
    assert await cry(store, 7, at_us=S) == LaterChat(16 * S)
    assert isinstance(await news(store, 7, at_us=16 * S), Hold)
    assert isinstance(await news(store, 8, at_us=S), Go)


async def test_when_a_second_chat_is_stopped_meanwhile_everybody_waits(store: Redis) -> None:
    await pace.stop(store, 7, 17, BY, NOW)
    assert await pace.stop(store, 7, 17, BY, NOW + S) == Chat()
    assert await pace.stop(store, 8, 5, BY, NOW + S) == Bot()
    assert await news(store, 9, at_us=2 * S) == LaterBot(4 * S)
    assert await cry(store, 9, at_us=2 * S) == LaterBot(4 * S)
    assert await news(store, 9, at_us=6 * S) == Go(0)


async def test_a_shorter_wait_does_not_end_a_longer_one(store: Redis) -> None:
    await pace.stop(store, 7, 60, BY, NOW)
    await pace.stop(store, 7, 1, BY, NOW)
    assert await news(store, 7, at_us=10 * S) == LaterChat(50 * S)


async def test_an_absurd_wait_is_a_day(redis: Pipe) -> None:
    await pace.stop(redis, 7, 10**12, BY)
    left_ms = await redis.command("PTTL", keys.telegram_chat(7))
    assert isinstance(left_ms, int)
    assert left_ms <= 86_400_000


# ---- as this process alone


async def test_thousands_of_random_steps_are_the_same_in_memory(store: Redis) -> None:
    chance, own, now_us, seen = random.Random(3), Own(BY), NOW, set()
    for _ in range(STEPS):
        now_us += chance.choice([0, 100, 20_000, 20_000, 300_000, 2_000_000])
        chat_id = chance.choice([1, 2, 3, -4])
        if chance.random() < 0.05:
            wait_s = chance.randint(1, 3)
            assert await pace.stop(store, chat_id, wait_s, BY, now_us) == own.stop(chat_id, wait_s, now_us)
            continue
        lane: pace.Lane = chance.choice(["news", "news", "held", "broadcast", "draft"])
        told = await pace.admit(store, chat_id, lane, BY, now_us)
        assert told == own.admit(chat_id, lane, now_us)
        seen.add(type(told))
    assert seen == {Go, Hold, LaterChat, LaterBot}


def test_own_chats_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "KEPT", 3)
    own = Own(BY)
    for chat_id in range(1, 10):
        own.admit(chat_id, "news", NOW)
    assert list(own.chats) == [7, 8, 9]


# ---- life, cost, figures


async def test_the_keys_live_until_their_places_are_free_and_a_second_more(redis: Pipe) -> None:
    for _ in range(3):
        await pace.admit(redis, 7, "news", BY)
    for name, most_ms in ((keys.telegram_chat(7), 4000), (keys.TELEGRAM_BOT, 1000 + 3 * 34)):
        left_ms = await redis.command("PTTL", name)
        assert isinstance(left_ms, int)
        assert 0 < left_ms <= most_ms


async def test_each_script_costs_what_it_states(redis: Pipe) -> None:
    assert await commands_run(redis, pace.admit(redis, 7, "broadcast", BY)) == stated(pace.ADMIT).commands
    assert await commands_run(redis, pace.admit(redis, 8, "news", BY)) < stated(pace.ADMIT).commands
    await pace.stop(redis, 7, 5, BY)
    assert await commands_run(redis, pace.stop(redis, 8, 5, BY)) == stated(pace.STOP).commands


@pytest.mark.parametrize("text", ["chat", "chat=1", "chat=0/1", "chat=1/0", "nobody=1/1", "chat=1/1/1", "bot=-3/1"])
def test_figures_that_are_none_stop_the_start(text: str) -> None:
    with pytest.raises(BadSettings, match="TORG_TELEGRAM_PACE"):
        pace.rates(text)


def test_figures_change_one_or_all() -> None:
    assert pace.rates("bot=1000/1, group=1/3") == {**BY, "bot": Rate(1000, 1), "group": Rate(1, 3)}
    assert {rate.every_us for rate in pace.rates("*=1000000/1").values()} == {1}
