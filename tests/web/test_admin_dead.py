"""Dead letters over real HTTP: who may see and touch them, what a replay does, and what stays on record."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from app import errors
from app.infra.embedded import Servers
from app.infra.pipe import Pipe
from tests.web.test_admin import acting, call
from tests.web.test_shop import in_module, own_world, problem
from tests.world import Buyer, World

DEAD = (
    "INSERT INTO outbox (kind, key, payload, state, attempts, died_at, last_error)"
    " VALUES ($1, $2, '{\"order_id\": \"x\"}', 'dead', 15, now(), 'ValueError(1)') RETURNING id"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_world(servers: Servers, template: str) -> AsyncIterator[World]:
    async with own_world(servers, template, "admin_dead", 12) as opened:
        await opened.product()
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def admin(shared: World) -> Buyer:
    """An admin of a shop whose dead letters are the test's own."""
    await shared.pg.fetch("DELETE FROM changes", ())
    return await acting(shared, "admin")


async def letter(world: World, kind: str = "trial") -> int:
    return int(await world.scalar(DEAD, kind, str(uuid4())))


async def ids(admin: Buyer, query: str = "") -> list[int]:
    answer = await call(admin, "GET", f"dead{query}")
    assert answer.status_code == 200, answer.text
    return [one["id"] for one in answer.json()["letters"]]


@in_module
async def test_only_admins_may_look_or_act(shared: World, admin: Buyer) -> None:
    found = await letter(shared)
    others = {
        "buyer": await acting(shared, "buyer"),
        "seller": await acting(shared, "seller", shared.seller_id),
        "demoted": await acting(shared, "buyer", token="admin"),
        "demoted to seller": await acting(shared, "seller", shared.seller_id, token="admin"),
    }
    calls: list[tuple[str, str, Any]] = [
        ("GET", "dead", None), ("GET", f"dead/{found}", None), ("POST", "dead/replay", {"all": True}),
        ("DELETE", f"dead/{found}", None),
    ]  # fmt: skip
    for who in others.values():
        for method, path, body in calls:
            problem(await call(who, method, path, body), errors.Forbidden)
    nobody = Buyer(shared.http, "v1.1.admin.9.x", 1)
    for method, path, body in calls:
        problem(await call(nobody, method, path, body), errors.BadToken)
    assert await ids(admin) == [found]
    assert await shared.scalar("SELECT count(*) FROM changes WHERE noun = 'dead'") == 0


@in_module
async def test_letters_are_listed_by_kind_and_page(shared: World, admin: Buyer) -> None:
    made = [await letter(shared, kind) for kind in ("trial", "other", "trial")]
    assert await ids(admin) == made[::-1]
    assert await ids(admin, "?kind=trial") == [made[2], made[0]]
    assert await ids(admin, "?kind=third") == []
    page = (await call(admin, "GET", "dead?limit=2")).json()
    assert ([one["id"] for one in page["letters"]], page["next_before"]) == (made[:0:-1], made[1])
    assert "payload" not in page["letters"][0]
    page = (await call(admin, "GET", f"dead?limit=2&before={page['next_before']}")).json()
    assert ([one["id"] for one in page["letters"]], page["next_before"]) == (made[:1], None)


@in_module
async def test_one_letter_is_shown_whole(shared: World, admin: Buyer) -> None:
    found = await letter(shared)
    shown = (await call(admin, "GET", f"dead/{found}")).json()
    assert (shown["payload"], shown["attempts"], shown["last_error"]) == ({"order_id": "x"}, 15, "ValueError(1)")
    assert (shown["state"], shown["history"]) == ("dead", [])
    problem(await call(admin, "GET", "dead/999999999"), errors.NotFound)
    problem(await call(admin, "DELETE", "dead/999999999"), errors.NotFound)


@in_module
async def test_a_replay_is_rung_at_once_and_on_record(shared: World, admin: Buyer) -> None:
    made = [await letter(shared) for _ in range(3)]
    redis: Pipe = shared.shop.deps.redis
    await redis.command("FLUSHDB")
    body: dict[str, Any] = {"ids": made[:2], "dry_run": True}
    dry = (await call(admin, "POST", "dead/replay", body)).json()
    assert dry == {"count": 2, "ids": made[:2], "more": False, "dry_run": True}
    assert await ids(admin) == made[::-1]
    done = (await call(admin, "POST", "dead/replay", body | {"dry_run": False})).json()
    assert (done["count"], done["ids"]) == (2, made[:2])
    assert await ids(admin) == made[2:]
    bell = await redis.command("LRANGE", "{arq}bell", 0, -1)
    assert isinstance(bell, list)
    assert sorted(int(job_id.split(b"}")[1].split(b":")[0]) for job_id in bell) == made[:2]
    newest = (await call(admin, "GET", "changes?limit=1")).json()["changes"][0]
    assert (newest["noun"], newest["what"]["replayed"]) == ("dead", made[:2])
    assert newest["what"]["by"] == f"user {newest['user_id']}"


@in_module
async def test_all_of_a_kind_or_all_are_replayed(shared: World, admin: Buyer) -> None:
    made = [await letter(shared, kind) for kind in ("trial", "other", "trial")]
    assert (await call(admin, "POST", "dead/replay", {"kind": "trial"})).json()["ids"] == [made[0], made[2]]
    assert (await call(admin, "POST", "dead/replay", {"all": True})).json()["ids"] == [made[1]]
    assert (await call(admin, "POST", "dead/replay", {"all": True})).json()["count"] == 0


@in_module
@pytest.mark.parametrize(
    "body",
    [
        {}, {"dry_run": True}, {"ids": []}, {"all": False}, {"ids": [1], "all": True}, {"kind": "a", "ids": [1]},
        {"ids": ["1"]}, {"ids": [0]}, {"ids": [2**63]}, {"kind": ""}, {"kind": "a b"}, {"kind": "x\n"}, {"all": "true"},
        {"everything": True}, [], "all", {"ids": list(range(1, 1002))}, b"{", b"\xff",
    ],
)  # fmt: skip
async def test_a_replay_that_does_not_say_which_is_refused(shared: World, admin: Buyer, body: Any) -> None:
    found = await letter(shared)
    problem(await call(admin, "POST", "dead/replay", body), errors.Malformed)
    assert await ids(admin) == [found]


@in_module
@pytest.mark.parametrize(
    "query", ["kind=A", "kind=a%00", "before=0", "before=x", f"before={2**63}", "limit=0", "limit=201"]
)
async def test_a_list_of_nonsense_is_refused(shared: World, admin: Buyer, query: str) -> None:
    problem(await call(admin, "GET", f"dead?{query}"), errors.Malformed)


@in_module
async def test_what_is_dropped_is_kept_on_record(shared: World, admin: Buyer) -> None:
    found = await letter(shared)
    assert (await call(admin, "DELETE", f"dead/{found}")).status_code == 204
    problem(await call(admin, "DELETE", f"dead/{found}"), errors.NotFound)
    assert await ids(admin) == []
    shown = (await call(admin, "GET", f"dead/{found}")).json()
    assert (shown["state"], shown["payload"]) == ("dropped", {"order_id": "x"})
    assert shown["history"][0].partition(" dropped by ")[2].startswith("user ")
    newest = (await call(admin, "GET", "changes?limit=1")).json()["changes"][0]
    assert (newest["noun"], newest["what"]["dropped"]) == ("dead", [found])
    assert (await call(admin, "POST", "dead/replay", {"ids": [found]})).json()["count"] == 0
