"""Webhooks of sellers over real HTTP: who may, what is entered, what is shown once, and what is on record."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from app import errors
from app.base import clock
from app.domain import endpoints
from app.infra.embedded import Servers
from tests.infra.rawserver import Raw, listening
from tests.web.test_admin import acting, call, other_seller
from tests.web.test_shop import in_module, own_world, problem
from tests.world import Buyer, World, order_id_of

URL = "https://shop.example/hooks/secret-path"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_world(servers: Servers, template: str) -> AsyncIterator[World]:
    async with own_world(servers, template, "webhooks", 11) as opened:
        await opened.product()
        yield opened


async def seller_of(world: World) -> Buyer:
    """The only person of a new seller."""
    return await acting(world, "seller", await other_seller(world))


async def made(user: Buyer, **fields: Any) -> dict[str, Any]:
    answer = await call(user, "POST", "webhooks", {"url": URL} | fields)
    assert answer.status_code == 201, answer.text
    webhook: dict[str, Any] = answer.json()
    return webhook


async def owed(world: World, user: Buyer, webhook: dict[str, Any], number: int) -> None:
    """Calls for so many events of one order."""
    product = await world.product(kind="made")
    order_id = order_id_of((await (await world.buyer(77)).order((product, 1))).json())
    await world.pg.fetch("UPDATE orders SET seller_id = $2 WHERE id = $1", (order_id, webhook["seller_id"]))
    for event in range(number):
        assert await endpoints.owe(world.pg, order_id, 500 + event, "order.paid", clock.now())


# ---- a webhook's life


@in_module
async def test_a_webhook_is_entered_changed_and_deleted_and_its_secret_is_shown_once(shared: World) -> None:
    seller = await seller_of(shared)
    answer = await call(
        seller, "POST", "webhooks", {"url": URL, "types": ["order.paid", "order.expired", "order.paid"]}
    )
    webhook = answer.json()
    path = f"webhooks/{webhook['id']}"
    assert (answer.status_code, answer.headers["etag"]) == (201, '"1"')
    assert answer.headers["location"] == f"/api/admin/{path}"
    assert answer.headers["cache-control"] == "no-store"
    secret = webhook.pop("secret")
    assert secret.startswith("whsec_")
    assert (webhook["url"], webhook["types"], webhook["enabled"]) == (URL, ["order.paid", "order.expired"], True)
    assert (await call(seller, "GET", path)).json() == webhook
    assert (await call(seller, "GET", "webhooks")).json() == {"webhooks": [webhook], "next_cursor": None}
    changed = await call(seller, "PATCH", path, {"types": [], "url": "https://b.example/"}, If_Match='"1"')
    assert (changed.status_code, changed.json()["types"], changed.json()["version"]) == (200, [], 2)
    off = await call(seller, "PATCH", path, {"enabled": False, "version": 2})
    assert (off.json()["enabled"], off.json()["disabled_why"], "secret" in off.json()) == (False, "staff", False)
    rotated = await call(seller, "POST", f"{path}/secret")
    assert rotated.status_code == 201
    assert rotated.json()["secret"] not in (secret, None)
    assert rotated.json()["former_secret_until"] > rotated.json()["created_at"]
    assert (await call(seller, "DELETE", path)).status_code == 204
    for method, more in (("GET", ""), ("DELETE", ""), ("POST", "/secret"), ("POST", "/test"), ("GET", "/deliveries")):
        problem(await call(seller, method, path + more), errors.NotFound)


@in_module
async def test_every_change_is_on_record_and_no_secret_is(shared: World) -> None:
    seller = await seller_of(shared)
    webhook = await made(seller)
    path = f"webhooks/{webhook['id']}"
    await call(seller, "PATCH", path, {"types": ["order.paid"], "version": 1})
    await call(seller, "PATCH", path, {"types": ["order.paid"], "version": 2})  # nothing new
    rotated = (await call(seller, "POST", f"{path}/secret")).json()
    await call(seller, "DELETE", path)
    trail = (await call(seller, "GET", "changes")).json()["changes"]
    assert [change["what"] for change in trail] == [
        {"url": {"old": URL, "new": None}}, {"secret": {"old": None, "new": "rotated"}},
        {"types": {"old": [], "new": ["order.paid"]}},
        {"url": {"old": None, "new": URL}, "types": {"old": None, "new": []},
         "seller_id": {"old": None, "new": webhook["seller_id"]}},
    ]  # fmt: skip
    assert {(change["noun"], change["webhook_id"]) for change in trail} == {("webhook", webhook["id"])}
    admin = await acting(shared, "admin")
    assert trail == (await call(admin, "GET", "changes?limit=4")).json()["changes"]
    assert (await call(await seller_of(shared), "GET", "changes")).json()["changes"] == []
    rows = await shared.pg.fetch("SELECT e::text AS row FROM endpoints e UNION ALL SELECT c::text FROM changes c", ())
    kept = "".join(row["row"] for row in rows)
    assert webhook["secret"] not in kept
    assert rotated["secret"].encode().hex() not in kept


@in_module
async def test_whoever_has_seen_an_old_version_changes_nothing(shared: World) -> None:
    seller = await seller_of(shared)
    webhook = await made(seller)
    path = f"webhooks/{webhook['id']}"
    await call(seller, "PATCH", path, {"enabled": False, "version": 1})
    stale = problem(await call(seller, "PATCH", path, {"enabled": True, "version": 1}), errors.Conflict)
    assert stale["version"] == 2
    problem(await call(seller, "PATCH", path, {"enabled": True}), errors.Malformed)


# ---- who may


@in_module
async def test_strangers_find_nothing_and_buyers_may_nothing(shared: World) -> None:
    webhook = await made(await seller_of(shared))
    path = f"webhooks/{webhook['id']}"
    calls: list[tuple[str, str, Any]] = [
        ("GET", "", None), ("PATCH", "", {"enabled": False, "version": 1}), ("DELETE", "", None), ("POST", "/secret",
    None),
        ("POST", "/test", None), ("GET", "/deliveries", None), ("POST", "/replay", {"event_id": "evt_1"}),
    ]  # fmt: skip
    stranger, demoted = await seller_of(shared), await acting(shared, "buyer", token="admin")
    for method, more, body in calls:
        problem(await call(stranger, method, path + more, body), errors.NotFound)
        problem(await call(demoted, method, path + more, body), errors.Forbidden)
        problem(await call(await shared.buyer(3), method, path + more, body), errors.Forbidden)
        answer = await shared.http.request(method, f"/api/admin/{path}{more}", json=body)
        problem(answer, errors.BadToken)
    for user in (demoted, await shared.buyer(3)):
        problem(await call(user, "GET", "webhooks"), errors.Forbidden)
        problem(await call(user, "POST", "webhooks", {"url": URL}), errors.Forbidden)
    admin = await acting(shared, "admin")
    assert (await call(admin, "GET", path)).json()["url"] == URL
    assert (await call(admin, "GET", path)).json()["version"] == 1


@in_module
async def test_an_admin_says_whose_it_is_and_a_seller_enters_its_own(shared: World) -> None:
    admin, seller = await acting(shared, "admin"), await seller_of(shared)
    problem(await call(admin, "POST", "webhooks", {"url": URL}), errors.Malformed)
    problem(await call(admin, "POST", "webhooks", {"url": URL, "seller_id": 10**9}), errors.NotFound)
    assert (await made(admin, seller_id=shared.seller_id))["seller_id"] == shared.seller_id
    problem(await call(seller, "POST", "webhooks", {"url": URL, "seller_id": shared.seller_id}), errors.NotFound)


@in_module
async def test_pages_and_the_limit(shared: World) -> None:
    seller = await seller_of(shared)
    ids = [(await made(seller))["id"] for _ in range(endpoints.MOST)]
    refused = problem(await call(seller, "POST", "webhooks", {"url": URL}), errors.Conflict)
    assert refused["limit"] == endpoints.MOST
    found, cursor = list[str](), ""
    while cursor is not None:
        page = (await call(seller, "GET", f"webhooks?limit=4&cursor={cursor}")).json()
        found += [webhook["id"] for webhook in page["webhooks"]]
        cursor = page["next_cursor"]
    assert found == ids
    await call(seller, "DELETE", f"webhooks/{ids[0]}")
    await made(seller)


# ---- what is refused


@in_module
@pytest.mark.parametrize(
    "url",
    ["http://shop.example/", "https://127.0.0.1/", "https://127.1/", "https://2130706433/", "https://0x7f000001/",
     "https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://169.254.169.254/", "https://10.0.0.1:8443/",
     "https://a@shop.example/", "https://shop.example:22/", "https://shop.example/#x", "ftp://shop.example/",
    "shop.example",
     "https://магазин.рф/", "https://shop.example/a\r\nb", "https://shop.example/\0", "",
    f"https://a.b/{'a' * 2048}", 7, None,
     ["https://shop.example/"]],
    ids=lambda url: repr(url)[:40],
)  # fmt: skip
async def test_an_address_that_is_not_for_strangers_is_refused(shared: World, url: Any) -> None:
    seller = await acting(shared, "seller", shared.seller_id)
    problem(await call(seller, "POST", "webhooks", {"url": url}), errors.Malformed)


@in_module
@pytest.mark.parametrize(
    "fields",
    [{"types": ["order.created"]}, {"types": "order.paid"}, {"types": [1]}, {"types": None},
    {"types": ["webhook.test"]},
     {"types": ["order.paid"] * 51}, {"secret": "whsec_x"}, {"seller_id": "1"}, {"seller_id": 0}, {"seller_id": 2**63},
     {"enabled": True}],
    ids=str,
)  # fmt: skip
async def test_a_webhook_is_what_its_schema_says(shared: World, fields: dict[str, Any]) -> None:
    seller = await acting(shared, "seller", shared.seller_id)
    problem(await call(seller, "POST", "webhooks", {"url": URL} | fields), errors.Malformed)


@in_module
@pytest.mark.parametrize(
    "wish",
    [{}, {"event_id": "evt_1", "since": "2026-01-01T00:00:00Z"}, {"since": "2026-01-01T00:00:00"},
    {"since": "yesterday"},
     {"since": "1000-01-01T00:00:00Z"}, {"since": 1}, {"event_id": ""}, {"event_id": "evt_1:x"}, {"event_id": "evt\n"},
     {"event_id": "a" * 81}, {"event_id": 1}, {"all": True}, [], b"", b"{"],
    ids=str,
)  # fmt: skip
async def test_a_replay_says_which(shared: World, wish: Any) -> None:
    seller = await seller_of(shared)
    webhook = await made(seller)
    problem(await call(seller, "POST", f"webhooks/{webhook['id']}/replay", wish), errors.Malformed)


@in_module
@pytest.mark.parametrize(
    "name", ["1", "x", "%00", "..", "02F955C0-54A2-4B0C-8752-75ED9FABB99B", "0" * 500, "%F0%9F%99%82"]
)
async def test_an_id_that_is_none_is_not_found(shared: World, name: str) -> None:
    admin = await acting(shared, "admin")
    for method, more in (("GET", "/deliveries"), ("POST", "/test"), ("DELETE", "")):
        answer = await call(admin, method, f"webhooks/{name}{more}")
        assert answer.status_code in (404, 405), answer.text
    problem(await call(admin, "GET", f"webhooks?cursor={name}"), errors.Malformed)


# ---- what it was sent


@in_module
async def test_deliveries_come_in_pages_and_a_replay_owes_them_again(shared: World) -> None:
    seller = await seller_of(shared)
    webhook = await made(seller)
    path = f"webhooks/{webhook['id']}"
    await owed(shared, seller, webhook, 5)
    await shared.pg.fetch("UPDATE outbox SET state = 'dead', died_at = now(), attempts = 10 WHERE kind = 'hook'", ())
    first = (await call(seller, "GET", f"{path}/deliveries?limit=3")).json()
    assert [one["event_id"] for one in first["deliveries"]] == ["evt_504", "evt_503", "evt_502"]
    rest = (await call(seller, "GET", f"{path}/deliveries?limit=3&cursor={first['next_cursor']}")).json()
    assert ([one["event_id"] for one in rest["deliveries"]], rest["next_cursor"]) == (["evt_501", "evt_500"], None)
    assert {(one["state"], one["attempts"]) for one in rest["deliveries"]} == {("dead", 10)}
    again = await call(seller, "POST", f"{path}/replay", {"event_id": "evt_503"})
    assert (again.status_code, again.json()) == (202, {"replayed": 1})
    assert (await call(seller, "POST", f"{path}/replay", {"since": "2020-01-01T00:00:00+03:00"})).json() == {
        "replayed": 5
    }
    problem(await call(seller, "POST", f"{path}/replay", {"event_id": "evt_77"}), errors.NotFound)
    await call(seller, "PATCH", path, {"enabled": False, "version": 1})
    for more, body in (("test", None), ("replay", {"event_id": "evt_503"})):
        assert problem(await call(seller, "POST", f"{path}/{more}", body), errors.Conflict)["why"] == "staff"
    await shared.pg.fetch("DELETE FROM outbox WHERE kind = 'hook'", ())


@in_module
async def test_a_test_event_is_sent(servers: Servers, template: str) -> None:
    async with (
        listening(Raw()) as raw,
        own_world(servers, template, "webhook_test", 12, webhook_networks="127.0.0.0/8") as world,
    ):
        await world.product()
        seller = await acting(world, "seller", world.seller_id)
        webhook = await made(seller, url=f"http://127.0.0.1:{raw.port}/", types=["order.paid"])
        answer = await call(seller, "POST", f"webhooks/{webhook['id']}/test")
        assert answer.status_code == 202
        await world.drain()
        body = msgspec.json.decode(raw.requests[0].partition(b"\r\n\r\n")[2])
        assert (body["type"], body["data"]) == ("webhook.test", {"webhook_id": webhook["id"]})
        (one,) = (await call(seller, "GET", f"webhooks/{webhook['id']}/deliveries")).json()["deliveries"]
        assert (one["event_id"], one["state"], one["event"]["type"]) == (
            answer.json()["event_id"],
            "done",
            "webhook.test",
        )


@in_module
async def test_without_goods_keys_there_are_no_webhooks(servers: Servers, template: str) -> None:
    async with own_world(servers, template, "webhook_keys", 13, goods_keys="") as world:
        admin = await acting(world, "admin")
        answer = await call(admin, "POST", "webhooks", {"url": URL, "seller_id": 1})
        assert "TORG_GOODS_KEYS" in problem(answer, errors.NotFound)["detail"]
