"""The lease under which one attempt works on one outbox row, and which fences every effect it writes."""

from uuid import UUID

import msgspec


class Lease(msgspec.Struct, frozen=True):
    """Attempt `attempt_id` may finish row `outbox_id`; without a sign of life it ends after `lease_s`."""

    outbox_id: int
    attempt_id: UUID
    lease_s: int
