"""The leaderboard scripts: who builds a board, what wins over what was read, and where everybody stands."""

import asyncio
import random

import pytest

from app.base import keys
from app.domain import leaderboard
from app.domain.leaderboard import (
    Absent,
    Board,
    Lost,
    Noted,
    Opened,
    Ours,
    Saving,
    Scored,
    Standing,
    Theirs,
    There,
    Which,
)
from app.infra.lua import Redis
from app.infra.pipe import Pipe
from tests.lua.measure import check_life, commands_run, everything, stated

ALL = Which("all", "RUB", leaderboard.EVER)
WEEK = Which("2031-W01", "RUB", leaderboard.EVER)
DOLLARS = Which("all", "USD", leaderboard.EVER)
BOARD = keys.rank_board("all", "RUB")
BUILDING = keys.rank_building("all", "RUB")
STAGE = keys.rank_stage("all", "RUB")


def standing(user_id: int, saved_minor: int, board: Which = ALL) -> Standing:
    return Standing(board.board, user_id, board.currency, saved_minor)


async def filled(store: Redis, savings: dict[int, int], board: Which = ALL) -> None:
    assert await leaderboard.build(store, board, "one") == Ours()
    rows = [Saving(user, saved) for user, saved in savings.items()]
    assert await leaderboard.fill(store, board, "one", rows) == Opened()


async def lines(store: Redis, size: int = 100, board: Which = ALL) -> list[tuple[int, int]]:
    found = await leaderboard.top(store, board, 0, size)
    assert isinstance(found, Board)
    return [(int(user), int(saved)) for user, saved in zip(found.lines[::2], found.lines[1::2], strict=True)]


async def own(store: Redis, user_id: int) -> tuple[int, int]:
    found = await leaderboard.top(store, ALL, user_id, 1)
    assert isinstance(found, Board)
    return int(found.own_saved), found.own_rank


async def test_a_board_that_is_not_there_has_one_builder(store: Redis) -> None:
    assert await leaderboard.top(store, ALL, 7, 10) == Absent()
    assert await leaderboard.build(store, ALL, "one") == Ours()
    assert [await leaderboard.build(store, ALL, token) for token in ("one", "two")] == [Theirs()] * 2
    assert await leaderboard.top(store, ALL, 7, 10) == Absent()  # until it is whole
    assert await leaderboard.fill(store, ALL, "two", [Saving(1, 5)]) == Lost()
    assert await leaderboard.fill(store, ALL, "one", [Saving(1, 5), Saving(2, 9)]) == Opened()
    assert await leaderboard.build(store, ALL, "two") == There()
    assert await lines(store) == [(2, 9), (1, 5)]
    assert await leaderboard.build(store, WEEK, "two") == Ours()  # boards know nothing of each other
    assert await leaderboard.build(store, DOLLARS, "two") == Ours()


async def test_a_board_of_nobody_is_there_too(store: Redis) -> None:
    await filled(store, {})
    assert await leaderboard.top(store, ALL, 7, 10) == Board(b"0", 0, ())
    assert await leaderboard.score(store, standing(7, 10)) == Scored()
    assert await leaderboard.score(store, standing(7, 0)) == Scored()
    assert await leaderboard.top(store, ALL, 7, 10) == Board(b"0", 0, ())


async def test_the_highest_come_first_and_equals_share_a_rank(store: Redis) -> None:
    await filled(store, {9: 5, 10: 700, 11: 5, 12: 20_000_000_000_000})
    assert await lines(store) == [(12, 20_000_000_000_000), (10, 700), (9, 5), (11, 5)]  # "9" is after "11"
    assert await lines(store, 2) == [(12, 20_000_000_000_000), (10, 700)]
    assert [await own(store, user) for user in (12, 10, 9, 11, 8, 0)] == [
        (20_000_000_000_000, 1), (700, 2), (5, 3), (5, 3), (0, 0), (0, 0),
    ]  # fmt: skip


async def test_savings_are_set_and_never_added_up(store: Redis) -> None:
    await filled(store, {1: 5})
    for saved in (7, 7, 3, 3):
        assert await leaderboard.score(store, standing(1, saved)) == Scored()
    assert await lines(store) == [(1, 3)]
    await leaderboard.score(store, standing(1, 0))
    assert await lines(store) == []


async def test_what_is_sold_while_a_board_is_built_wins_over_what_was_read(store: Redis) -> None:
    assert await leaderboard.score(store, standing(1, 100)) == Absent()  # whoever builds reads Postgres afterwards
    await leaderboard.build(store, ALL, "one")
    assert await leaderboard.score(store, standing(1, 7)) == Noted()
    assert await leaderboard.score(store, standing(2, 0)) == Noted()
    assert await leaderboard.score(store, standing(3, 8)) == Noted()
    assert await leaderboard.fill(store, ALL, "one", [Saving(1, 5), Saving(2, 6), Saving(4, 1)]) == Opened()
    assert await lines(store) == [(3, 8), (1, 7), (4, 1)]


async def test_a_board_is_built_in_parts(store: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaderboard, "STAGED", 3)
    savings = {user: user * 10 for user in range(1, 11)}
    await filled(store, savings)
    assert dict(await lines(store)) == savings


@pytest.mark.parametrize("gone", [BUILDING, STAGE])
async def test_a_builder_that_lost_a_part_opens_nothing(store: Redis, gone: str) -> None:
    await leaderboard.build(store, ALL, "one")
    stage = [BUILDING, STAGE]
    await leaderboard.STAGE(store, keys=stage, args=["one", 10_000, 1, 5])
    await store.command("DEL", gone)
    await leaderboard.STAGE(store, keys=stage, args=["one", 10_000, 2, 6])
    assert await leaderboard.OPEN(store, keys=[BOARD, *stage], args=["one", 2, 1000]) == Lost()
    assert await leaderboard.top(store, ALL, 0, 10) == Absent()


async def test_only_its_builder_opens_a_board(store: Redis) -> None:
    await leaderboard.build(store, ALL, "one")
    stage = [BUILDING, STAGE]
    await leaderboard.STAGE(store, keys=stage, args=["one", 10_000, 1, 5])
    assert await leaderboard.OPEN(store, keys=[BOARD, *stage], args=["two", 1, 10_000]) == Lost()
    assert await leaderboard.OPEN(store, keys=[BOARD, *stage], args=["one", 1, 10_000]) == Opened()


async def test_a_dead_builder_is_followed_by_another(redis: Pipe) -> None:
    await leaderboard.build(redis, ALL, "dead")
    await leaderboard.STAGE(redis, keys=[BUILDING, STAGE], args=["dead", 20, 1, 5])
    await asyncio.sleep(0.05)
    assert await leaderboard.build(redis, ALL, "next") == Ours()
    assert await leaderboard.fill(redis, ALL, "dead", [Saving(1, 5)]) == Lost()
    assert await leaderboard.fill(redis, ALL, "next", [Saving(2, 6)]) == Opened()
    assert await lines(redis) == [(2, 6)]


async def test_everything_ends_and_writing_does_not_prolong_a_board(redis: Pipe) -> None:
    await leaderboard.build(redis, ALL, "one")
    await check_life(redis, BUILDING, "{rank}building:<board>:<currency>")
    await leaderboard.STAGE(redis, keys=[BUILDING, STAGE], args=["one", leaderboard.BUILD_MS, 1, 5])
    await check_life(redis, STAGE, "{rank}stage:<board>:<currency>")
    await leaderboard.fill(redis, ALL, "one", [Saving(1, 5)])
    await check_life(redis, BOARD, "{rank}board:<board>:<currency>")
    assert list(await everything(redis)) == [BOARD]
    await redis.command("PEXPIRE", BOARD, 5000)
    await leaderboard.score(redis, standing(1, 9))
    left_ms = await redis.command("PTTL", BOARD)
    assert isinstance(left_ms, int)
    assert 0 < left_ms <= 5000


async def test_a_crowd_of_writers_and_a_builder_leave_what_was_written_last(redis: Pipe) -> None:
    """One connection keeps their order: whatever the builder had read, each user has what was written last."""
    dice, truth = random.Random(1), dict.fromkeys(range(1, 21), 5)
    for _ in range(5):
        await redis.command("FLUSHALL")
        read = [Saving(user, saved) for user, saved in truth.items() if saved]
        building = asyncio.create_task(leaderboard.build(redis, ALL, "one"))
        await building
        calls: list[asyncio.Future[object]] = []
        for turn in range(60):
            if turn == 30:
                calls.append(asyncio.ensure_future(leaderboard.fill(redis, ALL, "one", read)))
            user = dice.randint(1, 20)
            truth[user] = dice.choice([0, dice.randint(1, 1000)])
            calls.append(asyncio.ensure_future(leaderboard.score(redis, standing(user, truth[user]))))
        await asyncio.gather(*calls)
        assert dict(await lines(redis)) == {user: saved for user, saved in truth.items() if saved}


async def test_looking_cannot_write(redis: Pipe) -> None:
    assert leaderboard.TOP.read_only
    await filled(redis, {1: 5})
    before = await everything(redis)
    await leaderboard.top(redis, ALL, 1, 10)
    await leaderboard.top(redis, WEEK, 1, 10)
    assert await everything(redis) == before


async def test_they_cost_what_they_state(redis: Pipe) -> None:
    place, building, stage = BOARD, BUILDING, STAGE
    build = leaderboard.build(redis, ALL, "one")
    assert await commands_run(redis, build) <= stated(leaderboard.BUILD).most()
    rows = [1, 5, 2, 6, 3, 7]
    staged = leaderboard.STAGE(redis, keys=[building, stage], args=["one", 10_000, *rows])
    assert await commands_run(redis, staged) == stated(leaderboard.STAGE).most(lines=3)
    noted = leaderboard.score(redis, standing(1, 9))
    assert await commands_run(redis, noted) <= stated(leaderboard.SCORE).most()
    opened = leaderboard.OPEN(redis, keys=[place, building, stage], args=["one", 3, 10_000])
    assert await commands_run(redis, opened) == stated(leaderboard.OPEN).most(lines=1)
    assert await commands_run(redis, leaderboard.score(redis, standing(1, 0))) <= stated(leaderboard.SCORE).most()
    assert await commands_run(redis, leaderboard.top(redis, ALL, 2, 10)) == stated(leaderboard.TOP).most()
