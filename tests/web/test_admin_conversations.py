"""Admin over real HTTP: conversations that agents read, answer in and hand back, and the channels' settings."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from app import errors
from app.domain import agents, conversations
from app.flows import consult
from app.infra.embedded import Servers
from app.infra.pipe import Pipe
from tests.flows.talking import Consultant, Writer, writer
from tests.web.test_admin import acting, call
from tests.web.test_shop import problem
from tests.world import Buyer, World


@pytest.fixture
async def world(pg_url: str, servers: Servers, redis: Pipe) -> AsyncIterator[World]:
    async with World.opened(pg_url, servers.redis_url, webhook_networks="127.0.0.0/8") as opened:
        yield opened


@pytest.fixture(autouse=True)
def consultant(monkeypatch: pytest.MonkeyPatch) -> Consultant:
    scripted = Consultant()
    monkeypatch.setattr(consult, "consult", scripted)
    return scripted


async def say(agent: Buyer, conversation_id: int, text: str, key: str = "") -> Any:
    headers = {"Idempotency-Key": key or str(uuid4())}
    return await call(agent, "POST", f"conversations/{conversation_id}/messages", {"text": text}, **headers)


async def escalated(world: World, peer: str) -> Writer:
    ann = await writer(world, peer)
    await ann.say("hello there")
    await ann.say("operator")
    return ann


async def test_agents_find_those_who_wait_the_latest_first(world: World) -> None:
    admin = await acting(world, "admin")
    ids = []
    for peer in ("1001", "1002", "1003", "1004"):
        ann = await writer(world, peer)
        await ann.say("hello there")
        ids.append((await ann.conversation())["id"])
    for n in (2, 0, 3):
        ann = await writer(world, f"100{n + 1}")
        ann.messages = 5
        await ann.say("operator")
    waiting = [ids[3], ids[0], ids[2]]
    everyone = (await call(admin, "GET", "conversations")).json()
    assert [one["id"] for one in everyone["conversations"]] == ids[::-1]
    assert everyone["next_cursor"] is None
    found, cursor = [], ""
    while cursor is not None:
        page = (await call(admin, "GET", f"conversations?escalated=true&limit=1&cursor={cursor}")).json()
        found += page["conversations"]
        cursor = page["next_cursor"]
    assert [one["id"] for one in found] == waiting
    assert {(one["escalation"], one["channel"], one["name"]) for one in found} == {("user_request", "telegram", "Ann")}
    assert found[0]["peer"] == "1004"
    first = (await call(admin, "GET", "conversations?limit=3")).json()
    rest = (await call(admin, "GET", f"conversations?limit=3&cursor={first['next_cursor']}")).json()
    assert [one["id"] for one in first["conversations"] + rest["conversations"]] == ids[::-1]


async def test_an_agent_reads_answers_and_hands_back(world: World) -> None:
    ann, admin = await escalated(world, "1001"), await acting(world, "admin")
    (waiting,) = (await call(admin, "GET", "conversations?escalated=true")).json()["conversations"]
    told = await say(admin, waiting["id"], "I am Olga, how can I help?")
    assert told.status_code == 202, told.text
    found, cursor = [], ""
    while cursor is not None:
        page = (await call(admin, "GET", f"conversations/{waiting['id']}?limit=2&cursor={cursor}")).json()
        found += page["messages"]
        cursor = page["next_cursor"]
    assert page["conversation"] == waiting
    assert [(one["role"], one["text"]) for one in found][::-1] == [
        ("user", "hello there"), ("assistant", "You asked: hello there"), ("user", "operator"),
        ("assistant", "I am handing this over to a human, who will answer here."),
        ("agent", "I am Olga, how can I help?"),
    ]  # fmt: skip
    me = (await admin.get("/api/me")).json()["user_id"]
    assert [one["user_id"] for one in found] == [me, None, None, None, None]
    assert found[0]["id"] == told.json()["message_id"]
    assert [one["sent_at"] is not None for one in found] == [False, True, False, True, False]
    back = await call(admin, "POST", f"conversations/{waiting['id']}/hand-back")
    assert back.status_code == 204
    problem(await call(admin, "POST", f"conversations/{waiting['id']}/hand-back"), errors.Conflict)
    await ann.say("so what now?")
    assert ann.street.texts()[-1] == "You asked: so what now?"
    (change,) = (await call(admin, "GET", "changes")).json()["changes"]
    assert (change["noun"], change["user_id"], change["channel_id"]) == ("conversation", me, ann.channel_id)


@pytest.mark.parametrize("redis_forgets", [False, True])
async def test_words_are_said_once_per_key(world: World, redis: Pipe, redis_forgets: bool) -> None:
    ann, admin = await escalated(world, "1001"), await acting(world, "admin")
    conversation_id = (await ann.conversation())["id"]
    first = await say(admin, conversation_id, "hello", "key-1")
    if redis_forgets:
        await redis.command("FLUSHALL")
    again = await say(admin, conversation_id, "hello", "key-1")
    assert (again.status_code, again.content) == (202, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    if redis_forgets:
        await redis.command("FLUSHALL")
    problem(await say(admin, conversation_id, "something else", "key-1"), errors.KeyReused)
    other = await acting(world, "admin")
    assert (await say(other, conversation_id, "hello", "key-1")).content != first.content
    assert await world.scalar("SELECT count(*) FROM outbox WHERE kind = 'speak'") == 2


async def test_the_same_words_at_the_same_moment_are_said_once(world: World) -> None:
    ann, _ = await escalated(world, "1001"), await acting(world, "admin")
    conversation_id, user_id = (await ann.conversation())["id"], await world.scalar("SELECT max(id) FROM users")
    said = [agents.say(world.pg, user_id, conversation_id, "key", "hello") for _ in range(8)]
    assert sorted(spoken.word for spoken in await asyncio.gather(*said)) == ["repeated"] * 7 + ["said"]


async def test_what_is_not_there_or_not_theirs(world: World) -> None:
    ann, admin = await escalated(world, "1001"), await acting(world, "admin")
    await world.product()
    conversation_id = (await ann.conversation())["id"]
    for path in ("conversations/999", "conversations/999/hand-back", "conversations/999/messages"):
        method = "GET" if path.endswith("999") else "POST"
        body = {"text": "hi"} if path.endswith("messages") else None
        problem(await call(admin, method, path, body, **{"Idempotency-Key": "k"}), errors.NotFound)
    problem(await say(admin, conversation_id, "  "), errors.Malformed)
    problem(await say(admin, conversation_id, "x" * 4001), errors.Malformed)
    problem(await say(admin, conversation_id, "a\0b"), errors.Malformed)
    problem(await call(admin, "POST", f"conversations/{conversation_id}/messages", {"text": "a"}), errors.Malformed)
    for cursor in ("x", "1_", "99999999999999999999", "_1", "1_1_1"):
        assert (await call(admin, "GET", f"conversations?escalated=true&cursor={cursor}")).status_code in (200, 400)
    fallen = await acting(world, "buyer", token="admin")
    seller = await acting(world, "seller", world.seller_id)
    for user in (fallen, seller, await acting(world, "buyer")):
        for method, path in (
            ("GET", "conversations"), ("GET", f"conversations/{conversation_id}"), ("GET", "channels"),
            ("POST", f"conversations/{conversation_id}/hand-back"),
        ):  # fmt: skip
            problem(await call(user, method, path), errors.Forbidden)
        problem(await say(user, conversation_id, "hi"), errors.Forbidden)
        problem(await call(user, "PATCH", "channels/1", {"most": 1, "version": 1}), errors.Forbidden)


# ---- channels


async def test_a_channel_is_set_up_and_the_change_is_on_record(world: World) -> None:
    admin = await acting(world, "admin")
    await world.product()
    hook = {"url": "http://127.0.0.1:9/hook", "seller_id": world.seller_id, "types": ["conversation.message"]}
    webhook = (await call(admin, "POST", "webhooks", hook)).json()
    (app,) = (await call(admin, "GET", "channels")).json()["channels"]
    assert (app["kind"], app["external_id"], app["quiet_ms"], app["most"], app["version"]) == ("app", "app", 8000, 5, 1)
    wanted = {
        "quiet_ms": 500, "most": 2, "active": False, "name": "Chat", "escalation_enabled": False,
        "escalation_threshold": 2, "escalation_keywords": ["boss", "the boss"], "endpoint_id": webhook["id"],
    }  # fmt: skip
    answer = await call(admin, "PATCH", f"channels/{app['id']}", wanted, If_Match='"1"')
    assert (answer.status_code, answer.json()) == (200, app | wanted | {"version": 2})
    assert answer.headers["etag"] == '"2"'
    stale = await call(admin, "PATCH", f"channels/{app['id']}", {"most": 3, "version": 1})
    assert problem(stale, errors.Conflict)["version"] == 2
    same = await call(admin, "PATCH", f"channels/{app['id']}", {"most": 2, "version": 2})
    assert (same.status_code, same.json()["version"]) == (200, 2)
    cleared = await call(admin, "PATCH", f"channels/{app['id']}", {"endpoint_id": None, "version": 2})
    assert (cleared.json()["endpoint_id"], cleared.json()["version"]) == (None, 3)
    changes = [one for one in (await call(admin, "GET", "changes")).json()["changes"] if one["noun"] == "channel"]
    assert [one["channel_id"] for one in changes] == [app["id"]] * 2
    assert changes[0]["what"] == {"endpoint_id": {"old": webhook["id"], "new": None}}
    assert changes[1]["what"]["most"] == {"old": 5, "new": 2}
    assert changes[1]["what"].keys() == wanted.keys()
    (known,) = await conversations.channels(world.pg)
    assert (known.active, known.quiet_ms, known.most) == (False, 500, 2)


@pytest.mark.parametrize(
    "edit",
    [
        {"most": 0}, {"most": 11}, {"quiet_ms": -1}, {"quiet_ms": 60_001}, {"escalation_threshold": 6}, {"kind": "app"},
        {"escalation_keywords": [" "]}, {"name": "x" * 101}, {"endpoint_id": "no"}, {"active": None}, {"most": "1"},
    ],
)  # fmt: skip
async def test_settings_out_of_bounds_are_refused(world: World, edit: dict[str, Any]) -> None:
    admin = await acting(world, "admin")
    problem(await call(admin, "PATCH", "channels/1", edit | {"version": 1}), errors.Malformed)


async def test_a_channel_or_webhook_that_is_not_there(world: World) -> None:
    admin = await acting(world, "admin")
    problem(await call(admin, "PATCH", "channels/99", {"most": 1, "version": 1}), errors.NotFound)
    lost = {"endpoint_id": str(uuid4()), "version": 1}
    problem(await call(admin, "PATCH", "channels/1", lost), errors.NotFound)
    problem(await call(admin, "PATCH", "channels/1", {"most": 1}), errors.Malformed)
