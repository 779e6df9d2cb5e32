"""A small believable catalog: two sellers, every kind of goods, and enough stock for the next visitor."""

import secrets

import structlog

from app.domain import agents, catalog, conversations, customers, goods, units
from app.domain.catalog import NewProduct
from app.errors import Conflict, RedisDown
from app.infra.pipe import Pipe
from app.infra.secrets import Sealer
from app.infra.sql import Postgres
from app.settings import Settings

log = structlog.get_logger(__name__)

ENOUGH = 5  # units that a counted product has again after every seeding
SEEDER = units.Actor(None, {"by": "torg seed"})

QUIET_MS = 300  # that the bot waits for more words: a demo wants less than the eight seconds that suit people

KEYS_SELLER, BOOKS_SELLER = "Night Shift Software", "Paper Lantern Books"

PRODUCTS = (
    (KEYS_SELLER, NewProduct(
        seller_id=0, title="Lumen Editor, 1 year", category="Software keys", kind="unit", currency="RUB",
        description="A licence key for one person, valid for a year from activation. Delivered at once.",
        list_price_minor=149_000, discount_bp=1000, duration_days=365,
    )),
    (KEYS_SELLER, NewProduct(
        seller_id=0, title="Gift voucher 1000", category="Vouchers", kind="unit", currency="RUB",
        description="A code worth 1000 roubles in the shops of our partners. Delivered at once.",
        list_price_minor=100_000,
    )),
    (KEYS_SELLER, NewProduct(
        seller_id=0, title="Bot avatar, drawn for you", category="Made to order", kind="made", currency="RUB",
        description="Tell us about your bot after the purchase; an artist draws it within two days.",
        list_price_minor=250_000, lead_time_h=48,
    )),
    (BOOKS_SELLER, NewProduct(
        seller_id=0, title="The Quiet Queue (e-book)", category="E-books", kind="shared", currency="RUB",
        description="Twelve short stories about waiting. EPUB and PDF, yours for ever.",
        list_price_minor=39_000,
    )),
    (BOOKS_SELLER, NewProduct(
        seller_id=0, title="Concurrency for Shopkeepers", category="Books", kind="shipped", currency="RUB",
        description="Paperback, 312 pages. Why two people must not buy the last copy, and how they still try.",
        list_price_minor=119_000,
    )),
    (BOOKS_SELLER, NewProduct(
        seller_id=0, title="A Field Guide to Red Lanterns", category="Books", kind="shipped", currency="RUB",
        description="Hardcover, 96 colour plates.",
        list_price_minor=210_000, discount_bp=1500,
    )),
)  # fmt: skip

E_BOOK = "https://books.example/the-quiet-queue/download?licence=demo"


async def fill(settings: Settings) -> int:
    """The demo's catalog is there, and a running shop shows it; how many products that are.

    Raises: Conflict, as `seed`; PostgresDown.
    """
    pg = await Postgres.open(settings.database_url, pool_size=2, timeout_ms=settings.pg_timeout_ms)
    redis = Pipe(settings.redis_url, timeout_ms=settings.redis_timeout_ms)
    try:
        shelf = await seed(pg, Sealer(settings.goods_keys))
        try:
            await catalog.bump(redis)
        except RedisDown as error:
            log.warning("old pages may be shown for some minutes", error=str(error))
        return len(shelf)
    finally:
        await redis.aclose()
        await pg.close()


async def seed(pg: Postgres, sealer: Sealer) -> list[catalog.Product]:
    """The demo's catalog is there, and what it counts has at least `ENOUGH` units; returns the shelf.

    Raises: Conflict when the database is somebody's shop already: made-up keys must never stand beside real ones.
    """
    shelf = await _shelf(pg)
    if any(product.seller_name not in (KEYS_SELLER, BOOKS_SELLER) for product in shelf):
        raise Conflict("this database has a shop of its own: the demo's goods are not for it")
    if not shelf:
        await _add_products(pg, sealer)
        shelf = await _shelf(pg)
    for product in shelf:
        missing = ENOUGH - (product.units_left or 0)
        if product.kind in ("unit", "shipped") and missing > 0:
            await _shelve(pg, sealer, product, missing)
    return await _shelf(pg)


async def hasten(settings: Settings, admin: str) -> None:
    """The bot answers after `QUIET_MS`, as the first admin of the settings would set it. Raises: PostgresDown."""
    pg = await Postgres.open(settings.database_url, pool_size=1, timeout_ms=settings.pg_timeout_ms)
    try:
        user = await customers.enter(
            pg, telegram_id=min(settings.admin_ids()), name=admin, username=None, language="en", is_admin=True
        )
        ours = await conversations.register(pg, "telegram", settings.telegram_bot_token.partition(":")[0])
        (now,) = [channel for channel in await agents.instances(pg) if channel.id == ours.id]
        await agents.change(pg, user.id, now.id, now.version, {"quiet_ms": QUIET_MS})
    finally:
        await pg.close()


async def _add_products(pg: Postgres, sealer: Sealer) -> None:
    sellers = {name: await catalog.add_seller(pg, name) for name in (KEYS_SELLER, BOOKS_SELLER)}
    for seller, product in PRODUCTS:
        fields = {name: getattr(product, name) for name in NewProduct.__struct_fields__}
        product_id = await catalog.add_product(pg, NewProduct(**fields | {"seller_id": sellers[seller]}))
        if product.kind == "shared":
            await goods.share(pg, sealer, product_id, E_BOOK)


async def _shelf(pg: Postgres) -> list[catalog.Product]:
    return await catalog.page(pg, category="", after=0, size=100)


async def _shelve(pg: Postgres, sealer: Sealer, product: catalog.Product, number: int) -> None:
    keys = [units.Unit(line, _key()) for line in range(1, number + 1)]
    batch = units.seal(sealer, product.id, keys) if product.kind == "unit" else units.pieces(number, 0, None)
    done = await units.shelve(pg, SEEDER, product.id, batch, kind=product.kind, skip_duplicates=False, dry_run=False)
    assert done is not None
    assert done.word == "shelved"


def _key() -> str:
    text = secrets.token_hex(10).upper()
    return "-".join(text[i : i + 5] for i in range(0, 20, 5))
