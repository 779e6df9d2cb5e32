"""Refresh: after a change of the shelf has been committed, nobody is shown what was before it.

The row is written by the statement that changes the shelf; whoever made the change does not wait for a worker.
"""

import structlog

from app.base.ids import new_id
from app.base.lease import Lease
from app.domain import catalog, outbox
from app.errors import PostgresDown, RedisDown
from app.shop import Shop

log = structlog.get_logger(__name__)


async def refresh(shop: Shop, lease: Lease, job: outbox.Job) -> None:
    """The change is seen everywhere soon, and the row is closed.

    Raises: RedisDown: the job runs again later.
    """
    await catalog.bump(shop.deps.redis)
    await outbox.finish(shop.deps.pg, lease)


async def at_once(shop: Shop, outbox_id: int | None) -> None:
    """The same right after the commit, without a failure: what cannot be done now the row's job does.

    Everybody sees the change within the bound of docs/catalog.md; this process has already forgotten its own copies.
    """
    try:
        await catalog.bump(shop.deps.redis)
    except RedisDown as error:
        log.warning("old pages may be shown until the job has run", outbox_id=outbox_id, error=str(error))
        return
    finally:
        shop.copies.forget()
    if outbox_id is not None:
        shop.errands.send(_close(shop, outbox_id))


async def _close(shop: Shop, outbox_id: int) -> None:
    """The row is done, unless a worker has it already; then it bumps once more than needed."""
    lease = Lease(outbox_id, new_id(), shop.deps.settings.lease_s)
    try:
        if await outbox.claim(shop.deps.pg, lease):
            await outbox.finish(shop.deps.pg, lease)
    except PostgresDown as error:
        log.warning("the job will run once more", outbox_id=outbox_id, error=str(error))
