"""Converse: a batch of messages is stored, answered and told on, in the order of E2."""

from app.domain.buffers import Batch
from app.shop import Shop


async def converse(shop: Shop, batch: Batch) -> None:
    """Every message of the batch has had its answer, and none a second one. Raises: PostgresDown, RedisDown."""
    raise NotImplementedError
