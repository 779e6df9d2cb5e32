"""One process of a crowd on one page of the catalog: `python -m tests.flows.crowd DATABASE_URL REDIS_URL CALLERS`.

On each line of stdin its callers ask for the same page, which no copy of this process has; a line of stdout tells how
often Postgres was read for them and what they got. A program of its own, so that it loads no more than it runs.
"""

import asyncio
import sys
from typing import Any

from app.domain import catalog
from app.flows import browse
from app.infra import observe
from app.settings import Settings
from app.shop import opened

ASK = browse.Ask("", "", browse.START, 24)


def shown(page: browse.Page) -> bytes:
    return b"|".join(product.title.encode() for product in page.products)


async def crowd(settings: Settings, callers: int) -> None:
    loads = 0
    page = catalog.page

    async def counted(*args: Any, **named: Any) -> list[catalog.Product]:
        nonlocal loads
        loads += 1
        return await page(*args, **named)

    catalog.page = counted
    async with opened(settings) as shop:
        print("ready", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            loads = 0
            shop.copies.forget()
            bodies = await asyncio.gather(*(browse.browse(shop, ASK, shown) for _ in range(callers)))
            print(loads, b",".join(sorted(set(bodies))).decode(), flush=True)


if __name__ == "__main__":
    given = Settings(
        database_url=sys.argv[1],
        redis_url=sys.argv[2],
        redis_timeout_ms=20_000,
        pg_timeout_ms=60_000,
        log_level="error",
    )
    observe.configure(given)  # nothing but answers on stdout
    asyncio.run(crowd(given, int(sys.argv[3])))
