"""Who had which outbox row when: a trigger of the test's own writes down every step, and orphans are told from it.

Each worker's connections carry its name, so that a claim belongs to a process, whose death is known to the millisecond.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from chaos.fleet import Life

WITNESS = (
    """
CREATE TABLE chaos_steps (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, outbox_id bigint NOT NULL, kind text NOT NULL,
    what text NOT NULL, worker text NOT NULL, at timestamptz NOT NULL)""",
    """
CREATE FUNCTION chaos_witness() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.state = OLD.state AND NEW.attempt_id IS NOT DISTINCT FROM OLD.attempt_id THEN
        RETURN NULL;  -- a lease that is renewed
    END IF;
    INSERT INTO chaos_steps (outbox_id, kind, what, worker, at)
    VALUES (NEW.id, NEW.kind, CASE WHEN NEW.state <> 'owed' THEN NEW.state WHEN NEW.attempt_id IS NULL THEN 'free'
            ELSE 'claimed' END, current_setting('application_name'), clock_timestamp());
    RETURN NULL;
END $$""",
    "CREATE TRIGGER chaos_witness AFTER INSERT OR UPDATE ON outbox FOR EACH ROW EXECUTE FUNCTION chaos_witness()",
)
STEPS = """
SELECT s.outbox_id, s.kind, s.what, s.worker, extract(epoch FROM s.at)::float8 AS at_s FROM chaos_steps s
 ORDER BY s.outbox_id, s.id"""


class Step(msgspec.Struct, frozen=True):
    outbox_id: int
    kind: str
    what: str  # free, claimed, done, dead
    worker: str
    at_s: float


class Orphan(msgspec.Struct, frozen=True):
    """A row whose worker was killed with it, until another attempt had it."""

    kind: str
    worker: str
    since_s: float
    until_s: float

    @property
    def wait_s(self) -> float:
        return self.until_s - self.since_s


class Told(msgspec.Struct, frozen=True):
    orphans: list[Orphan]
    overtaken: int  # rows that another attempt took while their worker lived: it was frozen, or cut off from Postgres
    starts_ms: list[float]  # from the moment at which a settle job was owed (and rung for) to its first claim


def told(rows: Iterable[Sequence[Any]], lives: Mapping[str, Life]) -> Told:
    """What the steps of all rows come to."""
    steps = [Step(*row) for row in rows]
    orphans: list[Orphan] = []
    overtaken, starts_ms = 0, []
    seen = set[int]()
    for before, after in pairwise(steps):
        if before.outbox_id != after.outbox_id or after.what != "claimed":
            continue
        if before.what == "claimed":
            killed_s = lives[before.worker].killed_s
            if killed_s is not None and killed_s < after.at_s:
                # A claim may commit a moment after its sender's death.
                orphans.append(Orphan(after.kind, before.worker, max(killed_s, before.at_s), after.at_s))
            else:
                overtaken += 1
        elif before.what == "free" and before.kind == "settle" and before.outbox_id not in seen:
            starts_ms.append((after.at_s - before.at_s) * 1000)
        seen.add(before.outbox_id)
    return Told(orphans, overtaken, starts_ms)
