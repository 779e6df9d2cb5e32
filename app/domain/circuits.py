"""Circuits: who fails is left alone for a while, by all processes together, so that nobody waits for a dead peer.

Redis counts (`lua/circuits`, whose rules `app/base/circuit.py` states); a closed circuit costs no round trip, because
this process believes for `BELIEVED_S` what it was told last and tells of failures only. While Redis is away each
process has circuits of its own, closed at first: it goes on calling.

What counts against a peer is no answer, a 5xx or 429, or an answer that is not in its protocol: ProviderDown, but for
ProviderRefused. A refusal is an answer.
"""

import math
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from time import monotonic, time_ns

import msgspec
import structlog

from app.base import keys
from app.base.circuit import Circuit, Closed, Counted, Left, Open, Opened, Probe, Rules, Stale, draw
from app.base.errands import Errands
from app.base.ids import new_id
from app.errors import ProviderDown, ProviderRefused, RedisDown
from app.infra.lua import Part, Redis, Script
from app.settings import BadSettings

log = structlog.get_logger(__name__)

# Beside the gateways, which have their own names.
TELEGRAM, WHATSAPP, MAIL, MODEL = "telegram", "whatsapp", "mail", "model"
BELIEVED_S = 1.0
LIFE_MS = 3_600_000
WORDS = ("closed", "open", "half_open")

_FIGURES = re.compile(r"([1-9][0-9]{0,2})/([1-9][0-9]{0,3})", re.ASCII)


class Listed(msgspec.Struct, frozen=True):
    """Four figures of each circuit."""

    states: tuple[int, ...]


class State(msgspec.Struct, frozen=True):
    """One circuit as people and metrics see it."""

    name: str
    state: str  # closed, open, half_open
    failures: int  # recent ones of a closed circuit; of another one, those that opened it and of its probes since
    opened_at: datetime | None
    retry_after_s: int | None


ADMIT: Script[Closed | Probe | Open] = Script("circuits/admit", Closed, Probe, Open)
FAIL: Script[Counted | Opened | Stale] = Script("circuits/fail", Counted, Opened, Stale)
HEAL: Script[Closed | Stale] = Script("circuits/heal", Closed, Stale)
LEAVE: Script[Left | Stale] = Script("circuits/leave", Left, Stale)
LIST: Script[Listed] = Script("circuits/list", Listed)

SCRIPTS = (ADMIT, FAIL, HEAL, LEAVE, LIST)


def rules(text: str) -> Rules:
    """`5/30`: five failures in 30 s. Raises: BadSettings."""
    found = _FIGURES.fullmatch(text)
    if found is None:
        raise BadSettings(f"TORG_CIRCUITS: {text!r} is not failures/seconds")
    return Rules(most=int(found[1]), window_ms=int(found[2]) * 1000)


# ---- the five calls


async def admit(
    redis: Redis, name: str, call: bytes, by: Rules, lease_ms: int, now_ms: int = 0
) -> Closed | Probe | Open:
    """Whether `call` may be made. `now_ms` is for tests; 0 is the server's clock. Raises: RedisDown."""
    return await ADMIT(redis, keys=[keys.circuit(name)], args=[call, lease_ms, by.most_ms, now_ms])


async def fail(
    redis: Redis, name: str, generation: int, call: bytes, by: Rules, *, good: int = 0, jitter: int, now_ms: int = 0
) -> Counted | Opened | Stale:
    """The call failed, after so many `good` ones; `call` is empty if it was no probe. Raises: RedisDown."""
    figures = [by.most, by.window_ms, by.first_ms, by.most_ms]
    args: list[Part] = [generation, call, good, *figures, jitter, LIFE_MS, now_ms]
    return await FAIL(redis, keys=[keys.circuit(name)], args=args)


async def heal(redis: Redis, name: str, generation: int, call: bytes, now_ms: int = 0) -> Closed | Stale:
    """The probe was answered. Raises: RedisDown."""
    return await HEAL(redis, keys=[keys.circuit(name)], args=[generation, call, LIFE_MS, now_ms])


async def leave(redis: Redis, name: str, call: bytes) -> Left | Stale:
    """The probe ended without telling anything. Raises: RedisDown."""
    return await LEAVE(redis, keys=[keys.circuit(name)], args=[call])


async def listed(redis: Redis, names: Sequence[str], by: Rules) -> list[State]:
    """The circuits of these names. Raises: RedisDown."""
    found = (await LIST(redis, keys=[keys.circuit(name) for name in names], args=[by.window_ms])).states
    return [_state(name, *found[4 * n : 4 * n + 4]) for n, name in enumerate(names)]


# ---- what one process believes


class Belief(msgspec.Struct, frozen=True):
    """What this process was told last, and by when it asks again."""

    told: Closed | Open
    until_s: float
    retry_s: float = 0.0  # of an open one: not before


class Pass(msgspec.Struct, frozen=True):
    """A call that was admitted, in which state and whether as the probe; `own`: by this process alone."""

    name: str
    generation: int
    probe: bytes = b""
    own: Circuit | None = None


class Circuits:
    """The circuits of one process's peers; a new name begins a new circuit.

    Units:  lease_ms, longer than any call takes: a probe that is not heard of for so long is given up.
    """

    def __init__(
        self, redis: Redis, by: Rules, *, names: Iterable[str] = (), lease_ms: int, errands: Errands | None = None
    ) -> None:
        self.redis, self.rules, self.lease_ms = redis, by, lease_ms
        self.names = {*names, TELEGRAM, WHATSAPP, MAIL, MODEL}
        self.errands = errands or Errands()
        self._beliefs: dict[str, Belief] = {}
        self._good: dict[str, int] = {}  # calls that went well since the last failure
        self._own: dict[str, Circuit] = {}

    @asynccontextmanager
    async def calling(self, name: str) -> AsyncIterator[None]:
        """The peer is called inside the block, and how that went is counted.

        Raises: ProviderDown at once, with `retry_after_s`, while its circuit is open.
        Cost:   one round trip a second while calls go well.
        """
        passed = await self._admit(name)
        try:
            yield
        except (ProviderDown, OSError) as error:  # TimeoutError is an OSError
            await (self._well(passed) if isinstance(error, ProviderRefused) else self._failed(passed, error))
            raise
        except Exception:  # whatever it is, the peer is not to blame
            await self._well(passed)
            raise
        except BaseException:  # cancelled: nobody knows how it would have gone
            if passed.probe:
                self.errands.send(self._left(passed))
            raise
        else:
            await self._well(passed)

    def alone(self, name: str) -> None:
        """For calls that count for nothing. Raises: ProviderDown while this process has been told to leave it alone."""
        belief, now_s = self._beliefs.get(name), monotonic()
        if belief and isinstance(belief.told, Open) and now_s < belief.retry_s:
            raise _closed_off(name, belief.retry_s - now_s)

    async def list(self) -> Sequence[State]:
        """Every circuit that this process knows of, as all processes see it; its own while Redis is away."""
        names = sorted(self.names)
        try:
            return await listed(self.redis, names, self.rules)
        except RedisDown:
            now_ms = _now_ms()
            return [_state(name, *self._alone(name).state(now_ms)) for name in names]

    async def _admit(self, name: str) -> Pass:
        self.names.add(name)
        belief, now_s = self._beliefs.get(name), monotonic()
        if belief is None or now_s >= belief.until_s:
            call = new_id().bytes
            try:
                told = await admit(self.redis, name, call, self.rules, self.lease_ms)
            except RedisDown:
                own = self._alone(name)
                return self._passed(name, own.admit(call, self.lease_ms, _now_ms()), call, own)
            if isinstance(told, Probe):
                return self._passed(name, told, call)
            belief = self._believe(name, told)
        if isinstance(belief.told, Open):
            raise _closed_off(name, belief.retry_s - now_s)
        return Pass(name, belief.told.generation)

    def _passed(self, name: str, told: Closed | Probe | Open, call: bytes, own: Circuit | None = None) -> Pass:
        if isinstance(told, Open):
            raise _closed_off(name, told.wait_ms / 1000)
        if isinstance(told, Probe):
            log.info("circuit half-open, one call tries", circuit=name, shared=own is None)
        return Pass(name, told.generation, call if isinstance(told, Probe) else b"", own)

    def _believe(self, name: str, told: Closed | Open) -> Belief:
        now_s = monotonic()
        wait_s = told.wait_ms / 1000 if isinstance(told, Open) else BELIEVED_S
        belief = Belief(told, now_s + min(wait_s, BELIEVED_S), now_s + wait_s)
        self._beliefs[name] = belief
        return belief

    async def _well(self, passed: Pass) -> None:
        self._good[passed.name] = self._good.get(passed.name, 0) + 1
        if not passed.probe:
            return
        try:
            done: Closed | Stale
            if passed.own:
                done = passed.own.heal(passed.generation, passed.probe, _now_ms())
            else:
                done = await heal(self.redis, passed.name, passed.generation, passed.probe)
        except RedisDown as error:
            log.warning("probe not told, its lease runs out", circuit=passed.name, error=str(error))
            return
        if isinstance(done, Closed):
            log.info("circuit closed", circuit=passed.name, shared=passed.own is None)
            if not passed.own:
                self._believe(passed.name, done)

    async def _failed(self, passed: Pass, error: Exception) -> None:
        name, good, jitter, own = passed.name, self._good.pop(passed.name, 0), draw(), passed.own
        try:
            told: Counted | Opened | Stale
            if own:
                told = own.fail(passed.generation, passed.probe, good, jitter, _now_ms())
            else:
                told = await fail(
                    self.redis, name, passed.generation, passed.probe, self.rules, good=good, jitter=jitter
                )
        except RedisDown:  # admitted by Redis, which has gone meanwhile
            own = self._alone(name)
            told = own.fail(own.generation, b"", good, jitter, _now_ms())
        if isinstance(told, Opened):
            log.warning("circuit open", circuit=name, wait_ms=told.wait_ms, shared=own is None, error=str(error)[:200])
            if not own:
                self._believe(name, Open(told.generation, told.wait_ms))
        elif isinstance(told, Stale):
            self._beliefs.pop(name, None)

    async def _left(self, passed: Pass) -> None:
        if passed.own:
            passed.own.leave(passed.probe)
            return
        try:
            await leave(self.redis, passed.name, passed.probe)
        except RedisDown as error:
            log.warning("probe not given up, its lease runs out", circuit=passed.name, error=str(error))

    def _alone(self, name: str) -> Circuit:
        return self._own.setdefault(name, Circuit(self.rules))


def _closed_off(name: str, wait_s: float) -> ProviderDown:
    return ProviderDown(
        f"{name} has failed too often and is left alone", retry_after_s=max(1, math.ceil(wait_s)), circuit=name
    )


def _state(name: str, state: int, failures: int, since_ms: int, wait_ms: int) -> State:
    opened_at = datetime.fromtimestamp(since_ms / 1000, UTC) if since_ms else None
    return State(name, WORDS[state], failures, opened_at, -(-wait_ms // 1000) if wait_ms else None)


def _now_ms() -> int:
    return time_ns() // 1_000_000
