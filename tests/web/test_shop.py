"""The shop's front over real HTTP: sign-in, catalog, health, the page. Also what the other tests of the web share."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from uuid import uuid4

import asyncpg
import httpx
import pytest
import pytest_asyncio

from app import errors
from app.base import clock
from app.infra.embedded import Servers
from app.infra.secrets import Session, Tokens
from app.sandbox.initdata import sign_init_data
from tests.world import BOT_TOKEN, World

NO_REDIS = "unix:///nowhere/redis.sock"
ANN = {"id": 5001, "first_name": "Ann"}

# The contract, spelt out: a status or a name that changes breaks clients.
PROBLEMS: dict[type[errors.Problem], tuple[int, str, str]] = {
    errors.Malformed: (400, "malformed", "Malformed request"),
    errors.BadInitData: (401, "bad-init-data", "Bad initData"),
    errors.BadSignature: (401, "bad-signature", "Bad signature"), errors.BadToken: (401, "bad-token", "Bad token"),
    errors.Forbidden: (403, "forbidden", "Forbidden"), errors.NotFound: (404, "not-found", "Not found"),
    errors.MethodNotAllowed: (405, "method-not-allowed", "Method not allowed"),
    errors.Conflict: (409, "conflict", "Conflict"), errors.Duplicates: (409, "duplicates", "Added before"),
    errors.OutOfStock: (409, "out-of-stock", "Out of stock"),
    errors.InProgress: (409, "in-progress", "Already in progress"),
    errors.TwoSellers: (409, "two-sellers", "One seller per order"),
    errors.TooManyPending: (409, "too-many-pending", "Too many unpaid orders"),
    errors.PromoRefused: (409, "promo-refused", "Promo code refused"),
    errors.TooLarge: (413, "too-large", "Body too large"),
    errors.UnsupportedMedia: (415, "unsupported-media", "Unsupported media type"),
    errors.KeyReused: (422, "key-reused", "Idempotency-Key reused"),
    errors.TooManyRequests: (429, "too-many-requests", "Too many requests"), errors.Busy: (503, "busy", "Busy"),
    errors.RedisDown: (503, "redis-down", "Redis unavailable"),
    errors.PostgresDown: (503, "postgres-down", "Postgres unavailable"),
    errors.ProviderDown: (503, "provider-down", "Provider unavailable"),
}  # fmt: skip

in_module = pytest.mark.asyncio(loop_scope="module")


@asynccontextmanager
async def own_world(servers: Servers, template: str, name: str, redis_db: int, **changes: Any) -> AsyncIterator[World]:
    """A world for all tests of a module, on databases of its own: others use the same ids."""
    admin = await asyncpg.connect(servers.database_url)
    try:
        await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        url = servers.database_url.replace("/torg?", f"/{name}?")
        async with World.opened(url, servers.redis_url.replace("db=0", f"db={redis_db}"), **changes) as opened:
            await opened.shop.deps.redis.command("FLUSHDB")
            yield opened
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()


def problem(answer: httpx.Response, kind: type[errors.Problem]) -> dict[str, Any]:
    """The answer's body, which is exactly this problem: `title` the type's, `detail` this occurrence's (RFC 9457)."""
    status, name, title = PROBLEMS[kind]
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    told: dict[str, Any] = answer.json()
    assert (told["type"], told["title"], told["status"]) == (f"/problems/{name}", title, status)
    assert told["detail"] not in ("", title)
    return told


class Door:
    """A way to Postgres over TCP that can be shut, or let in and not answer."""

    def __init__(self, pg_url: str) -> None:
        parts = urlsplit(pg_url)
        self.socket = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
        self.database = parts.path
        self.writers: set[asyncio.StreamWriter] = set()
        self.answers = asyncio.Event()
        self.answers.set()
        self.port = 0

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[str]:
        """The URL that leads through it."""
        await self.open()
        yield f"postgresql://torg@127.0.0.1:{self.port}{self.database}?sslmode=disable"
        self.shut()

    async def open(self) -> None:
        self.server = await asyncio.start_server(self._come, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    def shut(self) -> None:
        """Nobody gets in, and who is in is thrown out."""
        self.server.close()
        for writer in self.writers:
            writer.transport.abort()

    async def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inside, inside_writer = await asyncio.open_unix_connection(self.socket)
        self.writers |= {writer, inside_writer}
        await asyncio.gather(self._carry(reader, inside_writer), self._carry(inside, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self.answers.wait()
                writer.write(data)
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_world(servers: Servers, template: str) -> AsyncIterator[World]:
    async with own_world(servers, template, "shop", 1, admins="5002") as opened:
        yield opened


async def enter(world: World, init_data: str) -> httpx.Response:
    return await world.http.post("/api/session", json={"init_data": init_data})


def unhashed() -> str:
    return signed().partition("&hash=")[0]


def signed(user: dict[str, Any] = ANN, *, token: str = BOT_TOKEN, age_s: int = 0, **extra: str) -> str:
    return sign_init_data(token, user, auth_date=clock.unix_s() - age_s, **extra)


# Sign-in.

# Signed when the test runs: initData lives an hour, a run of all tests may too.
VOUCHED = {
    "plain": (lambda: signed(), "Ann"),
    "not ASCII": (lambda: signed({"id": 5003, "first_name": "Анна", "last_name": "🙂"}), "Анна 🙂"),
    "NUL": (lambda: signed({"id": 5004, "first_name": "N\0UL"}), "NUL"),
    "a long name": (lambda: signed({"id": 5005, "first_name": "x" * 300}), "x" * 200),
    "nearly an hour old": (lambda: signed(age_s=3590), "Ann"),
    "our clock is slow": (lambda: signed(age_s=-50), "Ann"),
    "a blank field": (lambda: signed(start_param=""), "Ann"),
    "with a proof for third parties": (lambda: signed(signature="AA-_", query_id="AA"), "Ann"),
}


@in_module
@pytest.mark.parametrize(("init_data", "name"), VOUCHED.values(), ids=VOUCHED)
async def test_whom_telegram_vouches_for_is_signed_in(shared: World, init_data: Callable[[], str], name: str) -> None:
    answer = await enter(shared, init_data())
    assert answer.status_code == 200, answer.text
    entered = answer.json()
    assert (entered["user"]["name"], entered["user"]["role"]) == (name, "buyer")
    me = await shared.http.get("/api/me", headers={"Authorization": f"bearer {entered['token']}"})
    assert (me.status_code, me.json()["user_id"]) == (200, entered["user"]["id"])


FORGED = {
    "expired": lambda: signed(age_s=3601),
    "from the future": lambda: signed(age_s=-70),
    "a key repeated": lambda: signed() + "&auth_date=1",
    "the hash repeated": lambda: signed() + "&hash=" + "0" * 64,
    "a field added": lambda: signed() + "&start_param=x",
    "a blank field added": lambda: signed() + "&start_param=",
    "a blank field lost": lambda: signed(start_param="").replace("start_param=&", ""),
    "the user changed": lambda: signed().replace("5001", "5002"),
    "another bot's": lambda: signed(token="7342037359:AAHI25ES9xCOMPokpYoz-p8XVrZUdygo2J4"),
    "no hash": lambda: unhashed(),
    "a blank hash": lambda: unhashed() + "&hash=",
    "half a hash": lambda: signed()[:-32],
    "an upper-case hash": lambda: (text := signed())[:-64] + text[-64:].upper(),
    "a hash that is not ASCII": lambda: unhashed() + "&hash=%D0%B0",
    "a bot": lambda: signed({"id": 5006, "first_name": "Bot", "is_bot": True}),
    "id 0": lambda: signed(ANN | {"id": 0}),
    "id of 53 bits": lambda: signed(ANN | {"id": 2**52}),
    "id as text": lambda: signed(ANN | {"id": "5001"}),
    "no user": lambda: signed({}),
    "NUL in the username": lambda: signed(ANN | {"username": "a\0"}),
    "no query string": lambda: "hello",
    "bad UTF-8 in an escape": lambda: signed() + "&a=%FF",
    "65 fields": lambda: sign_init_data(BOT_TOKEN, ANN, auth_date=clock.unix_s(), **{f"f{n}": "" for n in range(62)}),
    "too long in bytes": lambda: signed(start_param="я" * 4500).replace(quote("я"), "я"),
}


@in_module
@pytest.mark.parametrize("init_data", FORGED.values(), ids=FORGED)
async def test_init_data_that_proves_nothing_is_refused(shared: World, init_data: Callable[[], str]) -> None:
    users = await shared.scalar("SELECT count(*) FROM users")
    problem(await enter(shared, init_data()), errors.BadInitData)
    assert await shared.scalar("SELECT count(*) FROM users") == users


@in_module
@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"null", b"{", b'{"init_data":null}', b'{"init_data":1}', b'{"init_data":""}', b"[" * 100_000,
     b'{"init_data":"x","admin":true}', b'{"init_data":"\xff"}', b'{"init_data":"\\ud800"}',
     b'{"init_data":"' + b"x" * 8193 + b'"}'],
    ids=lambda body: repr(body[:32]),
)  # fmt: skip
async def test_a_sign_in_that_does_not_decode_is_malformed(shared: World, body: bytes) -> None:
    answer = await shared.http.post("/api/session", content=body, headers={"Content-Type": "application/json"})
    problem(answer, errors.Malformed)


@in_module
async def test_the_settings_name_the_admins(shared: World) -> None:
    assert (await enter(shared, signed({"id": 5002, "first_name": "Oleg"}))).json()["user"]["role"] == "admin"


@in_module
async def test_a_user_keeps_the_id_and_takes_the_new_name(shared: World) -> None:
    one = (await enter(shared, signed({"id": 5007, "first_name": "Old"}))).json()["user"]
    other = (await enter(shared, signed({"id": 5007, "first_name": "New"}))).json()["user"]
    assert (one["id"], one["name"], other["name"]) == (other["id"], "Old", "New")


async def test_without_a_session_secret_there_is_no_sign_in(pg_url: str, servers: Servers) -> None:
    async with World.opened(pg_url, servers.redis_url, session_secret="") as world:
        problem(await enter(world, signed()), errors.NotFound)
        problem(await world.http.get("/api/me", headers={"Authorization": "Bearer v1.1.admin.9.x"}), errors.BadToken)


# Tokens.


@in_module
@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: {},
        lambda _: {"Authorization": ""},
        lambda _: {"Authorization": "Bearer"},
        lambda _: {"Authorization": "Bearer ...."},
        lambda token: {"Authorization": token},
        lambda token: {"Authorization": f"Basic {token}"},
        lambda token: {"Authorization": f"Bearer {token}x"},
        lambda token: {"Authorization": f"Bearer {token[:-1]}"},
        lambda token: {"Authorization": f"Bearer {token.replace('buyer', 'admin')}"},
        lambda token: {"Authorization": f"Bearer {token} {token}".encode()},
        lambda token: {"Authorization": f"Bearer {token}é".encode()},
        lambda _: {"Authorization": f"Bearer {issue('another secret', 60)}"},
        lambda _: {"Authorization": f"Bearer {issue('session-secret-of-the-tests-0123456789', -1)}"},
    ],
    ids=["none", "empty", "no token", "dots", "no scheme", "another scheme", "longer", "shorter",
         "another role", "two", "not ASCII", "another secret", "expired"],
)  # fmt: skip
async def test_a_token_that_proves_nothing_is_refused(shared: World, spoil: Any) -> None:
    token = (await enter(shared, signed())).json()["token"]
    for path in ("/api/me", "/api/orders", f"/api/orders/{uuid4()}", f"/api/orders/{uuid4()}/goods"):
        problem(await shared.http.get(path, headers=spoil(token)), errors.BadToken)


def issue(secret: str, ttl_s: int) -> str:
    return Tokens(secret).issue(Session(1, "buyer", clock.unix_s() + ttl_s))


# The catalog.


async def shelf(world: World, **query: Any) -> dict[str, Any]:
    answer = await world.http.get("/api/catalog", params=query)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


@in_module
async def test_the_shelf_is_read_page_by_page(shared: World) -> None:
    category = f"Pages {uuid4()}"
    ids = [await shared.product(category=category, title=f"Page {n}") for n in range(5)]
    pages, cursor = [], "0"
    while cursor is not None:
        page = await shelf(shared, category=category, limit=2, cursor=cursor)
        pages.append([product["id"] for product in page["products"]])
        cursor = page["next_cursor"]
    assert pages == [ids[:2], ids[2:4], ids[4:]]
    whole = await shelf(shared, category=category, limit=5)
    assert ([product["id"] for product in whole["products"]], whole["next_cursor"]) == (ids, None)
    assert category in whole["categories"]


@in_module
async def test_a_search_finds_what_has_every_word_in_title_or_description_in_any_case(shared: World) -> None:
    word = f"w{uuid4().hex}"
    title = await shared.product(title=f"Ключ {word} 100%_")
    text = await shared.product(description=f"for {word.upper()}")
    for query, found in {
        word.upper(): [title, text], f"ключ {word}": [title], f"{word} 100%_": [title], f"{word[:9]}%": [title, text],
        f"{word}' OR 1=1 --": [], f"{word} 1000": [],
    }.items():  # fmt: skip
        assert [product["id"] for product in (await shelf(shared, query=query))["products"]] == found, query


@in_module
async def test_a_product_shows_the_price_and_what_is_left(shared: World) -> None:
    product = await shared.product("KEY-A", "KEY-B", title="Editor", price_minor=149_000, discount_bp=1000)
    told = (await shared.http.get(f"/api/products/{product}")).json()
    assert (told["list_price_minor"], told["price_minor"], told["discount_percent"], told["left"]) == (
        149_000, 134_100, 10.0, 2,
    )  # fmt: skip
    assert "KEY-A" not in str(told)
    made = await shared.product(kind="made")
    assert (await shared.http.get(f"/api/products/{made}")).json()["left"] is None


@in_module
async def test_a_product_off_the_shelf_is_not_found(shared: World) -> None:
    product = await shared.product()
    await shared.pg.fetch("UPDATE products SET active = false WHERE id = $1", (product,))
    for path in (product, 2**63 - 1, "abc", "1.5", "1e3"):
        problem(await shared.http.get(f"/api/products/{path}"), errors.NotFound)


@in_module
@pytest.mark.parametrize(
    "path",
    [*(f"/api/catalog?{query}" for query in (
        "limit=0", "limit=101", "limit=-1", "limit=abc", "limit=1.5", "limit=", "cursor=", "cursor=abc",
        "cursor=-1", "cursor=1e3", "cursor=%C2%B2", "cursor=9999999999999999999", "cursor=" + "9" * 30,
        "query=%00", "category=%00", "query=" + "x" * 101, "category=" + "x" * 61)),
     "/api/products/0", "/api/products/-1", f"/api/products/{2**63}", f"/api/products/{'9' * 30}"],
    ids=lambda path: path.rpartition("/api/")[2][:32],
)  # fmt: skip
async def test_a_bad_query_is_malformed(shared: World, path: str) -> None:
    problem(await shared.http.get(path), errors.Malformed)


# Health, the page, and what every answer has.


async def test_health_with_everything_here(world: World) -> None:
    assert (await world.http.get("/health/live")).json() == {"status": "live"}
    ready = await world.http.get("/health/ready")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "postgres": True, "redis": True})


async def test_without_redis_the_shop_is_ready(pg_url: str) -> None:
    async with World.opened(pg_url, NO_REDIS) as world:
        assert (await world.http.get("/health/live")).status_code == 200
        ready = await world.http.get("/health/ready")
        assert (ready.status_code, ready.json()) == (200, {"status": "ready", "postgres": True, "redis": False})


async def test_without_postgres_the_shop_lives_and_is_not_ready(pg_url: str, servers: Servers) -> None:
    door = Door(pg_url)
    async with door.opened() as url, World.opened(url, servers.redis_url) as world:
        door.shut()
        assert (await world.http.get("/health/live")).status_code == 200
        ready = await world.http.get("/health/ready")
        assert (ready.status_code, ready.json()) == (503, {"status": "not ready", "postgres": False, "redis": True})
        problem(await world.http.get("/api/catalog"), errors.PostgresDown)
        await door.open()
        assert (await world.http.get("/health/ready")).status_code == 200


@in_module
async def test_the_page_lets_nothing_else_in(shared: World) -> None:
    page = await shared.http.get("/")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert (page.headers["x-content-type-options"], page.headers["referrer-policy"]) == ("nosniff", "no-referrer")
    again = await shared.http.get("/", headers={"If-None-Match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@in_module
@pytest.mark.parametrize("path", ["/nowhere", "/api", "/api/webhook/", "/..%2f..%2fetc/passwd", "/.env", "/index.htm"])
async def test_an_unknown_path_is_a_problem(shared: World, path: str) -> None:
    problem(await shared.http.get(path), errors.NotFound)


@in_module
async def test_a_sane_request_id_is_echoed_and_another_replaced(shared: World) -> None:
    async def told(given: bytes) -> str:
        return str((await shared.http.get("/health/live", headers={b"X-Request-ID": given})).headers["x-request-id"])

    for sane in (b"a", b"A.b-c_9", b"x" * 64):
        assert await told(sane) == sane.decode()
    bad = (b"", b"x" * 65, b"a b", b'a"b', b"a,b", "é".encode(), b"{}")
    replaced = [await told(given) for given in bad]
    assert all(len(one) == 16 and one.isalnum() for one in replaced)
    assert len(set(replaced)) == len(bad)


@in_module
async def test_the_schema_names_the_surface(shared: World) -> None:
    assert (await shared.http.get("/schema")).status_code == 200
    paths = (await shared.http.get("/schema/openapi.json")).json()["paths"]
    assert {"/api/session", "/api/catalog", "/api/orders", "/api/webhook/payment/{provider}"} <= paths.keys()
