"""A circuit: whether a peer is called. The rules of `lua/circuits`, for one process alone while Redis is away.

Closed: calls go through. Enough failures open it: nobody calls for a cool-down. Then one call, the probe, tries the
peer for everybody: answered, the circuit is closed; failed, it is open again, for longer.
"""

import random

import msgspec


class Rules(msgspec.Struct, frozen=True):
    """`most` failures within `window_ms` open a circuit, unless more than `most` calls went well between them."""

    most: int = 5
    window_ms: int = 30_000
    first_ms: int = 1000  # the shortest cool-down
    most_ms: int = 60_000  # the longest


class Closed(msgspec.Struct, frozen=True):
    """Call. The generation names the state: what a call of another one tells is too late to matter."""

    generation: int


class Probe(msgspec.Struct, frozen=True):
    """Call, and tell how it went: everybody else waits for that."""

    generation: int


class Open(msgspec.Struct, frozen=True):
    """Do not call for `wait_ms`."""

    generation: int
    wait_ms: int


class Counted(msgspec.Struct, frozen=True):
    """It is closed still, with so many failures within the window."""

    failures: int


class Opened(msgspec.Struct, frozen=True):
    """That was one failure too many, or the probe's: nobody calls for `wait_ms`."""

    generation: int
    wait_ms: int


class Left(msgspec.Struct, frozen=True):
    """The next call is the probe."""


class Stale(msgspec.Struct, frozen=True):
    """What the call began in is over: nothing changed."""


def draw() -> int:
    """The jitter, in 1/1000: Lua's own dice fall the same way in every script."""
    return random.randrange(1001)  # noqa: S311  (spreads load, guards nothing)


class Circuit:
    """One peer's, in memory; a moment is any clock's, in ms, as long as it is always the same clock's."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.generation = 0
        self.failures: list[tuple[int, int]] = []  # its moment, and what went well before it
        self.until_ms: int | None = None  # None: closed
        self.since_ms = self.failed = self.trips = 0
        self.probe, self.lapses_ms = b"", 0

    def admit(self, name: bytes, lease_ms: int, now_ms: int) -> Closed | Probe | Open:
        """As `circuits/admit`."""
        if self.until_ms is None:
            return Closed(self.generation)
        wait_ms = (self.lapses_ms if self.probe else self.until_ms) - now_ms
        if 0 < wait_ms <= max(self.rules.most_ms, lease_ms):
            return Open(self.generation, min(wait_ms, 1000) if self.probe else wait_ms)
        self.probe, self.lapses_ms = name, now_ms + lease_ms
        return Probe(self.generation)

    def fail(self, generation: int, name: bytes, good: int, jitter: int, now_ms: int) -> Counted | Opened | Stale:
        """As `circuits/fail`."""
        rules = self.rules
        if generation != self.generation or (self.until_ms is not None and (name != self.probe or not name)):
            return Stale()
        if self.until_ms is None:
            self.failures = [*self.failures, (now_ms, min(good, 999_999))][-rules.most :]
            recent = [went_well for at_ms, went_well in self.failures if now_ms - at_ms <= rules.window_ms]
            if len(recent) < rules.most or sum(recent[1:]) > rules.most:
                return Counted(len(recent))
            self.trips, self.failed, self.since_ms = 0, rules.most - 1, max(now_ms, generation + 1)
        self.trips, self.failed = self.trips + 1, self.failed + 1
        ceiling_ms = min(rules.most_ms, rules.first_ms * 2**self.trips)
        wait_ms = rules.first_ms + (ceiling_ms - rules.first_ms) * jitter // 1000
        self.generation, self.until_ms = max(now_ms, generation + 1), now_ms + wait_ms
        self.probe, self.failures = b"", []
        return Opened(self.generation, wait_ms)

    def heal(self, generation: int, name: bytes, now_ms: int) -> Closed | Stale:
        """As `circuits/heal`."""
        if generation != self.generation or not name or name != self.probe:
            return Stale()
        self.generation, self.until_ms, self.probe = max(now_ms, generation + 1), None, b""
        self.since_ms = self.failed = 0
        return Closed(self.generation)

    def leave(self, name: bytes) -> Left | Stale:
        """As `circuits/leave`."""
        if not name or name != self.probe:
            return Stale()
        self.probe = b""
        return Left()

    def state(self, now_ms: int) -> tuple[int, int, int, int]:
        """As `circuits/list` tells it."""
        recent = sum(now_ms - at_ms <= self.rules.window_ms for at_ms, _ in self.failures)
        if self.until_ms is None:
            return 0, recent, 0, 0
        wait_ms = max(0, (self.lapses_ms if self.probe else self.until_ms) - now_ms)
        return 2 if self.probe or not wait_ms else 1, self.failed, self.since_ms, wait_ms
