"""The doorbell: tells a worker that an outbox row is due. The only file on the sending side that names arq.

arq's own enqueue is three round trips and its workers poll; here it is one Lua call that also rings a list on
which workers wait (decision 0004). A ring may be lost or doubled: the outbox row is the job (DESIGN law 2).
"""

import time

import msgspec
from arq.constants import job_key_prefix
from arq.jobs import serialize_job

from app.base import keys
from app.infra.lua import Redis, Script

JOB = "run_job"  # the arq function that claims its outbox row and does what it says
MAIL = "drain_mail"  # the one that has the worker look for mails that are due, whichever row it was rung for
TALK = "look_at_talks"  # the one that has the worker look for conversations that are due; it was rung for no row

RECORD_MS = 3_600_000
BELL_MS = 60_000
HEAD_START_MS = 1000
NO_ROW = 0
WAKE_EVERY_MS = 100  # rings for conversations within so much time are one

# arq's records as msgpack: nothing in Redis is ever unpickled. arq's exceptions (a lost record) are kept as text.
serialize = msgspec.msgpack.Encoder(enc_hook=repr).encode
deserialize = msgspec.msgpack.decode


class Rung(msgspec.Struct, frozen=True):
    """The job stands in the queue."""


RING: Script[Rung] = Script("queue/ring", Rung)


class Queue:
    """Rings for outbox rows."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    async def ring(self, outbox_id: int, turn: int = 0, *, job: str = JOB) -> None:
        """A worker will try this row: at once when one waits, within a second when one polls. Again is nothing.

        Raises: RedisDown; then the relay rings again, or runs the row itself.
        """
        # A new id for every turn of the row (a try, a moment from which it is due), because arq blocks an id whose
        # worker died; the same for every ring of one turn, because a relay that rings each second must not fill the
        # queue.
        job_id = keys.arq_job_id(outbox_id, turn)
        record = serialize_job(job, (outbox_id,), {}, None, time.time_ns() // 1_000_000, serializer=serialize)
        await RING(
            self.redis,
            keys=[keys.ARQ_QUEUE, keys.ARQ_BELL, job_key_prefix + job_id],
            args=[job_id, record, RECORD_MS, HEAD_START_MS, BELL_MS],
        )

    async def wake(self) -> None:
        """A worker looks at the conversations that are due. Raises: RedisDown; then they look by themselves."""
        await self.ring(NO_ROW, time.time_ns() // (WAKE_EVERY_MS * 1_000_000), job=TALK)
