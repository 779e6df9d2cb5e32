"""Rate limits: token buckets in Redis, several per request, all of them or none; exact on any number of processes.

A bucket holds `burst` tokens and gets `refill` back every `period_s`; who sleeps what a refusal says is admitted. All
buckets share one slot, so that one script can weigh a caller's and an address's together (decision 0009). When Redis
is out, each policy says whether this process admits by buckets of its own (reads) or nobody (money, login).
"""

import re
from collections.abc import Mapping, Sequence
from enum import Enum
from time import monotonic_ns

import msgspec

from app.base import keys
from app.errors import RedisDown
from app.infra.lua import Redis, Script
from app.settings import BadSettings

KEPT = 10_000  # buckets of one process; beyond that the oldest are forgotten, which is generous and bounded
MOST_PARTS = 2**50  # of one bucket: Lua counts exactly up to 2**53
LONGEST_S = 86_399  # from empty to full: the life that the key map gives a bucket

_FIGURE = r"([1-9][0-9]{0,8})"
_CHANGE = re.compile(rf"(\*|[a-z]+)={_FIGURE}(?::{_FIGURE})?/([1-9][0-9]{{0,4}})(?:/(open|closed))?", re.ASCII)


class Who(Enum):
    """Whose bucket a request draws from."""

    CALLER = "caller"  # the signed-in user; the address of whoever is not
    ADDRESS = "address"
    MAILBOX = "mailbox"  # the e-mail address that a confirmation would go to; weighed by its flow


class Without(Enum):
    """What happens while Redis does not answer."""

    OPEN = "open"  # this process's own buckets decide
    CLOSED = "closed"  # nobody is admitted


class Policy(msgspec.Struct, frozen=True):
    """`burst` tokens at once, `refill` more every `period_s`."""

    name: str
    burst: int
    refill: int
    period_s: int
    who: Who
    without_redis: Without
    shared: bool = True  # False: each process counts for itself and Redis is never asked

    @property
    def token(self) -> int:
        """The parts of one token, of which `refill` come back every ms: so everything is a whole number."""
        return self.period_s * 1000

    def window_s(self) -> int:
        """From empty to full, rounded up."""
        return -(-self.burst * self.period_s // self.refill)


# THE table. A handler names its policies; TORG_LIMITS changes their figures.
TABLE = (
    Policy(
        "address", 1200, 1200, 60, Who.ADDRESS, Without.OPEN
    ),  # what signs in, costs money or is staff's; many share one address
    Policy("search", 100, 100, 60, Who.CALLER, Without.OPEN),  # REQUIREMENTS F5
    Policy("browse", 300, 300, 60, Who.CALLER, Without.OPEN),  # one product, its reviews, one's own orders
    Policy("session", 60, 60, 60, Who.ADDRESS, Without.CLOSED),
    Policy("orders", 20, 20, 60, Who.CALLER, Without.CLOSED),  # whatever costs money
    # Staff at work: no round trip before the statement, which alone makes the whole answer.
    Policy("moves", 120, 120, 60, Who.CALLER, Without.OPEN, shared=False),
    Policy("reviews", 20, 20, 60, Who.CALLER, Without.OPEN),
    Policy("chat", 20, 20, 60, Who.CALLER, Without.OPEN),
    # A mail to somebody who may not have asked for it.
    Policy("email", 5, 5, 3600, Who.CALLER, Without.CLOSED),
    Policy("mailbox", 3, 3, 43_200, Who.MAILBOX, Without.CLOSED),
    Policy("admin", 600, 600, 60, Who.CALLER, Without.OPEN),
    # Never 429, and no round trip before the inbox: gateways come from few addresses and read 429 as "delivered".
    Policy("webhooks", 2000, 1000, 1, Who.ADDRESS, Without.OPEN, shared=False),
)


class Charge(msgspec.Struct, frozen=True):
    """So many tokens of one bucket: the policy's for this subject."""

    policy: Policy
    subject: str  # `user:7` or `address:192.0.2.1`; the two never meet
    tokens: int = 1


class Taken(msgspec.Struct, frozen=True):
    """What is missing from each bucket, in parts, now that the charges are taken."""

    missing: tuple[int, ...]


class Short(msgspec.Struct, frozen=True):
    """What is missing from each bucket, in parts; nothing was taken."""

    missing: tuple[int, ...]


class Admitted(msgspec.Struct, frozen=True):
    """Tokens left and ms until full of each bucket, in the order of the charges."""

    figures: tuple[int, ...]


class Refused(msgspec.Struct, frozen=True):
    """Nothing was taken; it would fit after `wait_ms`. Figures as in Admitted."""

    wait_ms: int
    figures: tuple[int, ...]


ADMIT: Script[Taken | Short] = Script("limits/admit", Taken, Short)

SCRIPTS = (ADMIT,)


def policies(changes: str, table: Sequence[Policy] = TABLE) -> Mapping[str, Policy]:
    """The table by name, with the figures of `changes`, `name=tokens/seconds` each; `*` changes all.

    `orders=5:20/60/open` is burst 5, refill 20 in 60 s, and open while Redis is out.

    Raises: BadSettings for a policy that does not exist, or figures that make no bucket.
    """
    found = {policy.name: policy for policy in table}
    for entry in changes.replace(",", " ").split():
        parts = _CHANGE.fullmatch(entry)
        if parts is None:
            raise BadSettings(f"TORG_LIMITS: {entry!r} is not name=tokens/seconds or name=burst:refill/seconds/open")
        if parts[1] != "*" and parts[1] not in found:
            raise BadSettings(f"TORG_LIMITS: no policy {parts[1]!r}; there are {', '.join(found)}")
        for name in list(found) if parts[1] == "*" else [parts[1]]:
            without = Without(parts[5]) if parts[5] else found[name].without_redis
            figures = {"burst": int(parts[2]), "refill": int(parts[3] or parts[2]), "period_s": int(parts[4])}
            found[name] = msgspec.structs.replace(found[name], **figures, without_redis=without)
    for policy in found.values():
        if policy.window_s() > LONGEST_S or policy.burst * policy.period_s * 1000 > MOST_PARTS:
            raise BadSettings(f"TORG_LIMITS: {policy.name} takes longer than a day to fill up")
    return found


class Buckets:
    """One process's own buckets: for policies that are not shared, and for open ones while Redis is out."""

    def __init__(self) -> None:
        self.missing: dict[str, tuple[int, int]] = {}  # parts missing, at which ms

    def admit(self, charges: Sequence[Charge], now_ms: int | None = None) -> Admitted | Refused:
        """As `limits/admit` decides, here alone."""
        now_ms = monotonic_ns() // 1_000_000 if now_ms is None else now_ms
        before, after = [], []
        for charge in charges:
            was, since_ms = self.missing.get(bucket(charge), (0, now_ms))
            before.append(max(0, was - max(0, now_ms - since_ms) * charge.policy.refill))
            after.append(before[-1] + charge.tokens * charge.policy.token)
        if any(spent > c.policy.burst * c.policy.token for c, spent in zip(charges, after, strict=True)):
            return _refused(charges, before)
        for charge, spent in zip(charges, after, strict=True):
            self._keep(bucket(charge), (spent, now_ms))
        return Admitted(_figures(charges, after))

    def _keep(self, name: str, value: tuple[int, int]) -> None:
        self.missing.pop(name, None)  # the order of the dict is the order of use
        if len(self.missing) >= KEPT:
            del self.missing[next(iter(self.missing))]
        self.missing[name] = value


class Limits(msgspec.Struct, frozen=True):
    """What one process limits by."""

    policies: Mapping[str, Policy]
    own: Buckets


def configured(changes: str) -> Limits:
    """The table with these changes, and empty buckets. Raises: BadSettings."""
    return Limits(policies(changes), Buckets())


async def admit(redis: Redis, charges: Sequence[Charge], *, now_ms: int = 0) -> Admitted | Refused:
    """Every charge is taken, or none. `now_ms` is for tests; 0 is the server's clock.

    Raises: RedisDown; ValueError for a charge that could never fit or costs nothing.
    """
    args = [now_ms]
    for charge in charges:
        policy = charge.policy
        if not 1 <= charge.tokens <= policy.burst:
            raise ValueError(f"{charge.tokens} tokens of a bucket of {policy.burst}")
        args += (charge.tokens * policy.token, policy.burst * policy.token, policy.refill)
    weighed = await ADMIT(redis, keys=[bucket(charge) for charge in charges], args=args)
    if isinstance(weighed, Taken):
        return Admitted(_figures(charges, weighed.missing))
    return _refused(charges, weighed.missing)


async def weigh(redis: Redis, own: Buckets, charges: Sequence[Charge]) -> Admitted | Refused:
    """Every charge is taken, or none, also while Redis is out.

    Raises: RedisDown when Redis is out and one of the policies is closed without it.
    """
    if not any(charge.policy.shared for charge in charges):
        return own.admit(charges)
    try:
        return await admit(redis, charges)
    except RedisDown:
        if any(charge.policy.without_redis is Without.CLOSED for charge in charges):
            raise
        return own.admit(charges)


def bucket(charge: Charge) -> str:
    """Its name. What a part is depends on the period, so a policy with other figures has other buckets."""
    policy = charge.policy
    return keys.limit(f"{policy.name}-{policy.refill}-{policy.period_s}", charge.subject)


def _refused(charges: Sequence[Charge], missing: Sequence[int]) -> Refused:
    """With the wait after which all of them fit."""
    waits_ms = [0]
    for charge, parts in zip(charges, missing, strict=True):
        policy = charge.policy
        waits_ms.append(-(((policy.burst - charge.tokens) * policy.token - parts) // policy.refill))
    return Refused(max(waits_ms), _figures(charges, missing))


def _figures(charges: Sequence[Charge], missing: Sequence[int]) -> tuple[int, ...]:
    found: list[int] = []
    for charge, parts in zip(charges, missing, strict=True):
        policy = charge.policy
        left = max(0, policy.burst * policy.token - parts) // policy.token  # a burst that was cut may leave debts
        found += (left, -(-parts // policy.refill))
    return tuple(found)
