"""What was promised, beside what the storm has left."""

import statistics
from collections import Counter
from collections.abc import Sequence

import msgspec

from app.base import clock, keys
from app.domain import leaderboard, ledger
from chaos import claims, sales
from chaos.claims import Orphan, Told
from chaos.sales import JOBS, LEVELS, Sale
from chaos.scene import BOARDS, CURRENCY, Scene
from chaos.weather import Outage

ORPHANS_S = 5.0

ONCE = """
SELECT count(*) FROM orders o WHERE o.id = ANY ($1) AND o.status = 'delivered'
   AND (SELECT array_agg(e.to_status ORDER BY e.id) FROM order_events e WHERE e.order_id = o.id)
       = ARRAY['pending', 'paid', 'delivered']
   AND (SELECT array_agg(p.status) FROM payments p WHERE p.order_id = o.id) = ARRAY['paid']
   AND (SELECT array_agg(i.state || ' ' || i.outcome) FROM inbox i WHERE i.order_id = o.id) = ARRAY['settled paid']
   AND (SELECT array_agg(p.reason ORDER BY p.reason) FROM postings p WHERE p.order_id = o.id)
       = ARRAY['bonus', 'bonus', 'bonus', 'sale']
   AND (SELECT array_agg(b.level ORDER BY b.level) FROM referral_bonuses b WHERE b.order_id = o.id) = $2::int[]
   AND (SELECT array_agg(i.state || ' ' || s.state) FROM order_items i JOIN stock_items s ON s.id = i.stock_item_id
         WHERE i.order_id = o.id) = ARRAY['delivered sold']"""
EVENTS = """
SELECT e.id, o.user_id, ARRAY(SELECT s.user_id FROM staff s WHERE s.seller_id = o.seller_id) AS staff
  FROM order_events e JOIN orders o ON o.id = e.order_id WHERE e.from_status <> e.to_status"""
BUYERS = "SELECT o.number, u.telegram_id FROM orders o JOIN users u ON u.id = o.user_id"
ROWS = "SELECT kind, state, count(*) AS rows FROM outbox GROUP BY kind, state"


class Promise(msgspec.Struct, frozen=True):
    kept: bool
    text: str

    def __str__(self) -> str:
        return f"{'kept  ' if self.kept else 'MISSED'}  {self.text}"


class Verdict(msgspec.Struct, frozen=True):
    facts: list[str]
    effects: list[Promise]  # nothing lost, nothing twice
    orphans: Promise
    defects: Promise

    def kept(self) -> bool:
        return all(promise.kept for promise in (*self.effects, self.orphans, self.defects))

    def lines(self) -> list[str]:
        return [*self.facts, *map(str, (*self.effects, self.orphans, self.defects))]


async def given(scene: Scene, sold: Sequence[Sale], seconds: int, calm_s: float, defects: Sequence[str]) -> Verdict:
    """The storm is over, and nothing is owed any more (or PATIENCE_S has passed)."""
    told = claims.told(await scene.rows(claims.STEPS), scene.fleet.lives)
    effects = [
        await _jobs(scene, len(sold), calm_s),
        await _orders(scene, sold),
        await _books(scene),
        await _boards(scene),
        await _events(scene),
        await _messages(scene, len(sold)),
    ]
    orphans = _orphans(told.orphans, scene.weather.outages)
    return Verdict(
        _facts(scene, told, seconds, len(sold)), effects, orphans, _defects([*defects, *scene.fleet.errors()])
    )


def _facts(scene: Scene, told: Told, seconds: int, orders: int) -> list[str]:
    counts = ", ".join(f"{count} times {what}" for what, count in sorted(scene.weather.counts.items()))
    starts = statistics.quantiles(told.starts_ms, n=100)
    ended = Counter(scene.fleet.ended_by_themselves)
    return [
        f"{orders} orders paid within {seconds} s, {len(scene.fleet.alive)} workers ({len(scene.fleet.lives)} lives)",
        f"storm: {counts}",
        f"workers that ended by themselves, by exit code: {dict(ended) or 'none'}",
        f"jobs whose lease another attempt took over while their worker lived (frozen, cut off): {told.overtaken}",
        f"commit to start of a job that was rung for: p50 {starts[49]:.1f} ms, p99 {starts[98]:.0f} ms",
    ]


async def _jobs(scene: Scene, orders: int, calm_s: float) -> Promise:
    found = Counter[str]()
    done = Counter[str]()
    for row in await scene.rows(ROWS):
        found[row["kind"]] += row["rows"]
        done[row["kind"]] += row["rows"] if row["state"] == "done" else 0
    wanted = {kind: each * orders for kind, each in JOBS.items()}
    kept = found == done and {kind: done[kind] for kind in wanted} == wanted
    return Promise(
        kept, f"no job lost, none dead: {done.total()} of {found.total()} done, the last {calm_s:.1f} s after the storm"
    )


async def _orders(scene: Scene, sold: Sequence[Sale]) -> Promise:
    ((right,),) = await scene.rows(ONCE, [sale.order_id for sale in sold], list(range(1, LEVELS + 1)))
    text = "delivered, booked and rewarded once, each of its effects: "
    return Promise(right == len(sold), f"{text}{right} of {len(sold)} orders")


async def _books(scene: Scene) -> Promise:
    faults = await ledger.check(scene.pg)
    return Promise(not faults, f"the ledger adds up: {len(faults)} faults")


async def _boards(scene: Scene) -> Promise:
    """Each buyer's savings stand on every board as Postgres has them."""
    wrong = seen = 0
    for period in BOARDS:
        board = leaderboard.which(period, CURRENCY, clock.now())
        flat = await scene.ear.redis.zrange(keys.rank_board(board.board, CURRENCY), 0, -1, withscores=True)
        counted = {int(user): int(score) for user, score in flat if int(user)}
        savings = {one.user_id: one.saved_minor for one in await leaderboard.savings(scene.pg, board)}
        seen += len(counted)
        wrong += sum(savings.get(user) != counted.get(user) for user in savings.keys() | counted.keys())
    return Promise(not wrong and seen > 0, f"the leaderboard counts each sale once: {seen} lines, {wrong} wrong")


async def _events(scene: Scene) -> Promise:
    expected = [
        (user_id, f"order:{row['id']}")
        for row in await scene.rows(EVENTS)
        for user_id in {row["user_id"], *row["staff"]}
    ]
    missing = len(scene.ear.missing(expected))
    repeats, excused = scene.ear.repeats(scene.weather.losses_s)
    text = f"{len(expected)} realtime events once: {missing} missing, {repeats} twice"
    more = f" ({excused} more, between which Redis had forgotten the first)" if excused else ""
    return Promise(not missing and not repeats, text + more)


async def _messages(scene: Scene, orders: int) -> Promise:
    """Telegram is told at least once; every text names its order, and each order has one text for each of three."""
    texts = Counter(dict.fromkeys((sales.ADMIN, sales.SELLER), 0))
    for chat, _ in scene.sent:
        texts[chat] += 1
    buyers = Counter(row["telegram_id"] for row in await scene.rows(BUYERS))
    missing = sum((buyers - texts).values()) + sum(max(0, orders - texts[one]) for one in (sales.ADMIN, sales.SELLER))
    doubles = sum(count - 1 for count in scene.sent.values())
    rate = doubles / max(1, len(scene.sent))
    return Promise(
        not missing, f"Telegram told at least once: {missing} of {3 * orders} missing; {doubles} twice ({rate:.2%})"
    )


def _defects(lines: Sequence[str]) -> Promise:
    shown = "".join(f"\n        {line[:250]}" for line in lines[:5])
    return Promise(not lines, f"nothing in the logs looks like a defect: {len(lines)} lines{shown}")


def _orphans(orphans: Sequence[Orphan], outages: Sequence[Outage]) -> Promise:
    """Rows that could not be taken, because Postgres was away, are counted apart."""
    away = [outage for outage in outages if outage.server == "postgres"]
    apart = [one for one in orphans if any(one.since_s < o.until_s and o.since_s < one.until_s for o in away)]
    waits = sorted(one.wait_s for one in orphans if one not in apart)
    if len(waits) < 2:
        return Promise(False, f"orphans back within {ORPHANS_S:.0f} s: only {len(waits)} seen")
    p50, p99 = (statistics.quantiles(waits, n=100, method="inclusive")[n] for n in (49, 98))
    late = sum(wait > ORPHANS_S for wait in waits)
    text = f"p50 {p50:.2f} s, p99 {p99:.2f} s, most {waits[-1]:.2f} s, {late} later"
    more = f"; {len(apart)} more while Postgres was away, most {max((one.wait_s for one in apart), default=0):.2f} s"
    return Promise(not late, f"orphans back within {ORPHANS_S:.0f} s: {len(waits)} rows, {text}{more if apart else ''}")
