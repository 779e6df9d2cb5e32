"""The kinds of jobs: what each does, how long one attempt may take, and how it is tried again.

A new kind is one line here and one handler in a flow, which reads its payload with `job.read` (docs/jobs.md).
"""

from collections.abc import Awaitable, Callable

import msgspec

from app.base.lease import Lease
from app.domain import outbox
from app.flows import attend, broadcast, call_home, deliver, move, notify, rank, refresh, refund, reward, settle
from app.shop import Shop

# What a handler hands on: a row that its statement made for this attempt, or the closed row when order is kept.
After = outbox.Owed | outbox.Closed | None
Handler = Callable[[Shop, Lease, outbox.Job], Awaitable[After]]


class Kind(msgspec.Struct, frozen=True):
    """One kind of job, with its policy."""

    run: Handler
    timeout_s: int = 0  # longest run of one attempt; 0: TORG_JOB_TIMEOUT_S
    waits: outbox.Growing | outbox.Ladder = outbox.GROWING
    max_attempts: int = outbox.MAX_ATTEMPTS
    patient: bool = True  # an outage of others (Unavailable) never buries a row, however often it is met


# `email` is none of them: its rows are drained in batches (workers/post.py).
KINDS: dict[str, Kind] = {
    "settle": Kind(settle.settle),
    "deliver": Kind(deliver.deliver),
    "tell": Kind(notify.tell),
    "alert": Kind(notify.alert),
    "supply": Kind(notify.supply),
    "announce": Kind(move.announce),
    "inform": Kind(notify.inform),
    "repay": Kind(refund.repay),
    "refund": Kind(refund.call),
    "follow": Kind(refund.follow),
    "refresh": Kind(refresh.refresh),
    "reward": Kind(reward.reward),
    "clawback": Kind(reward.claw_back),
    "cashback": Kind(reward.cash_back),
    "rank": Kind(rank.rank),
    "escalate": Kind(attend.escalate),
    "speak": Kind(attend.speak),
    "broadcast": Kind(broadcast.send, waits=outbox.Growing(first_s=1.0, most_s=30.0)),
    "hook": Kind(  # nobody but its owner is to blame for an endpoint that is away: in the end it is given up
        call_home.call,
        timeout_s=call_home.TIMEOUT_S,
        waits=outbox.Ladder(call_home.WAITS_S),
        max_attempts=call_home.TRIES,
        patient=False,
    ),
}
