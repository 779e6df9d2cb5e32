"""Tally: what this process counts about itself, and THE table of its metrics (docs/metrics.md: what to do about each).

Counting must cost less than what is counted: plain integers, 0.2 us a value, where a Histogram of prometheus_client
takes 2 us (decision 0019); that library prints what is counted here (app/infra/metrics.py). Label values come from our
code, our routes and our tables, never from a request: each one is a series for ever.
"""

from bisect import bisect_left
from collections.abc import Awaitable, Sequence
from itertools import product
from time import perf_counter
from typing import NamedTuple, TypeVar

T = TypeVar("T")

CLASSES = ("", "1xx", "2xx", "3xx", "4xx", "5xx")  # of HTTP statuses
UNKNOWN = "unknown"  # whatever nobody has a name for

METRICS: list["Metric"] = []  # in the order of this file


class Metric:
    """One metric; `labels` by name, with the values that they have from the start, where these are known."""

    kind = ""

    def __init__(self, name: str, meaning: str, **labels: Sequence[str]) -> None:
        self.name, self.meaning, self.labels = name, meaning, tuple(labels)
        self.known = list(product(*labels.values()))
        METRICS.append(self)

    def reading(self, value: float, *labels: str) -> "Reading":
        """What somebody else counts, at this moment."""
        return Reading(self, labels, value)


class Reading(NamedTuple):
    """One value of a metric that is read when somebody asks."""

    metric: Metric
    labels: tuple[str, ...]
    value: float


class Gauge(Metric):
    """Goes up and down; read when somebody asks."""

    kind = "gauge"


class Counter(Metric):
    """Only grows, from the start of the process."""

    kind = "counter"

    def __init__(self, name: str, meaning: str, **labels: Sequence[str]) -> None:
        super().__init__(name, meaning, **labels)
        self.values = dict.fromkeys(self.known, 0)

    def add(self, *labels: str, by: int = 1) -> None:
        self.values[labels] = self.values.get(labels, 0) + by


class Times:
    """How long one thing took each time. Who is called often keeps this object."""

    __slots__ = ("bounds_s", "counts", "failures", "labels", "sum_s")

    def __init__(self, bounds_s: Sequence[float], labels: tuple[str, ...], failures: Counter | None) -> None:
        self.bounds_s, self.labels, self.failures = bounds_s, labels, failures
        self.counts = [0] * (len(bounds_s) + 1)  # up to each bound and above the one before; the last above all
        self.sum_s = 0.0

    def observe(self, took_s: float) -> None:
        self.counts[bisect_left(self.bounds_s, took_s)] += 1
        self.sum_s += took_s

    async def timed(self, call: Awaitable[T]) -> T:
        """What the call gives; a failed one counts as a failure, and not as a time."""
        started = perf_counter()
        try:
            given = await call
        except Exception as error:
            if self.failures:
                self.failures.add(*self.labels, type(error).__name__)
            raise
        self.observe(perf_counter() - started)
        return given


class Histogram(Metric):
    """How long things took, in seconds: how many up to each bound."""

    kind = "histogram"

    def __init__(
        self,
        name: str,
        meaning: str,
        *bounds_s: float,
        failures: Counter | None = None,
        **labels: Sequence[str],
    ) -> None:
        super().__init__(name, meaning, **labels)
        self.bounds_s, self.failures = bounds_s, failures
        self.series = Series(self)

    def of(self, *labels: str) -> Times:
        return self.series[labels]


class Series(dict[tuple[str, ...], Times]):
    """A histogram's times by label values; those of new ones begin when they are asked for."""

    def __init__(self, histogram: Histogram) -> None:
        self.histogram = histogram

    def __missing__(self, labels: tuple[str, ...]) -> Times:
        made = self[labels] = Times(self.histogram.bounds_s, labels, self.histogram.failures)
        return made


# ---- every process

INFO = Gauge("torg_info", "1; which process of which release this is", process=(), version=())
SCRIPT_FAILURES = Counter("torg_script_failures_total", "calls of a Lua script that failed", script=(), error=())
SCRIPTS = Histogram(
    "torg_script_seconds", "Lua script, as its caller waits for it",
    0.0005, 0.001, 0.0025, 0.005, 0.025, 0.1, failures=SCRIPT_FAILURES, script=(),
)  # fmt: skip
STATEMENT_FAILURES = Counter(
    "torg_statement_failures_total", "SQL statements that failed", statement=(), error=()
)  # fmt: skip
STATEMENTS = Histogram(
    "torg_statement_seconds", "SQL statement, as its caller waits for it: with the wait for a connection",
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1, failures=STATEMENT_FAILURES, statement=(),
)  # fmt: skip
ERRANDS = Counter("torg_errands_total", "best-effort tasks", outcome=())
ERRANDS_RUNNING = Gauge("torg_errands_running", "best-effort tasks under way")

# ---- web processes

REQUESTS = Histogram(
    "torg_request_seconds", "HTTP request, to the head of its answer",
    0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, route=(), method=(), status=(),
)  # fmt: skip
WEBHOOK = Histogram(
    "torg_webhook_seconds", "stage of a gateway's callback: verify, then store or settle, then answer",
    0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1, gateway=(), stage=(),
)  # fmt: skip
CALLBACKS = Gauge("torg_callbacks", "gateways' callbacks being worked on")
STREAMS = Gauge("torg_event_streams", "open streams of events")
HEARD = Counter(
    "torg_chat_messages_total", "messages and buttons that chat channels brought: heard, or repeated",
    channel=(), outcome=(),
)  # fmt: skip

# ---- workers

JOBS = Counter(
    "torg_jobs_total", "attempts at jobs, by how they ended: done, retried, dead, returned", kind=(), outcome=()
)
JOB_SECONDS = Histogram("torg_job_seconds", "attempt at a job", 0.005, 0.01, 0.025, 0.1, 0.5, 1, 5, 30, kind=())
JOB_LAG = Histogram(
    "torg_job_lag_seconds", "from the moment when a job was due to its claim",
    0.005, 0.01, 0.025, 0.1, 0.5, 2, 10, 60, 600, kind=(),
)  # fmt: skip
RELAY_FOUND = Counter(
    "torg_relay_found_total", "overdue jobs that the relay found: their ring was lost, or a retry due"
)
SWEEPS = Counter("torg_sweeps_total", "sweeps: relay, expire, audit, poll and others", sweep=(), outcome=())
TELEGRAM = Counter(
    "torg_telegram_messages_total", "messages to Telegram, by how they ended",
    outcome=("delivered", "blocked", "refused", "paced", "failed"),
)  # fmt: skip
WHATSAPP = Counter(
    "torg_whatsapp_messages_total", "messages to WhatsApp, by how they ended",
    outcome=("delivered", "blocked", "refused", "window", "paced", "failed"),
)  # fmt: skip
TURNS = Counter(
    "torg_turns_total", "messages answered together, by what became of them and who answered",
    channel=(), state=(), by=(),
)  # fmt: skip
TURN_SECONDS = Histogram(
    "torg_turn_seconds", "from the first look at a turn to its decision, the model's time included",
    0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, by=(),
)  # fmt: skip
ESCALATIONS = Counter("torg_escalations_total", "conversations handed over to a human, by why", reason=())
REPLIES = Counter(
    "torg_replies_total", "replies by a chat channel, by how sending ended; held: surely not sent, and tried again;"
    " unsure: nobody knows, not tried again",
    outcome=("delivered", "blocked", "refused", "held", "unsure"),
)  # fmt: skip
DRIFT = Counter(
    "torg_stock_drift_units_total", "units by which the audit found stock counters off", direction=("over", "under")
)

BATCHES = Counter(
    "torg_chat_batches_total", "batches of messages, by how an attempt at them ended",
    outcome=("done", "failed", "returned"),
)  # fmt: skip
RUNS_LOST = Counter("torg_chat_runs_given_up_total", "parts of batches that stay unanswered: they failed each time")
BATCH_LAG = Histogram(
    "torg_chat_lag_seconds", "from the moment when a conversation was due to a worker's taking it",
    0.005, 0.01, 0.025, 0.1, 0.25, 0.5, 2, 10, 60,
)  # fmt: skip

# ---- what only Postgres and Redis know: the same in each web process

UP = Gauge("torg_up", "1 when this part answered the scrape in time", part=())
OUTBOX = Gauge("torg_outbox_rows", "jobs that are owed, running ones included", kind=())
OUTBOX_AGE = Gauge("torg_outbox_oldest_seconds", "since when the oldest job is due that nobody has", kind=())
DEAD = Gauge("torg_dead_letters", "dead letters", kind=())
UNDELIVERED = Gauge("torg_undelivered_orders", "paid orders whose delivery is still owed")
UNDELIVERED_AGE = Gauge("torg_undelivered_oldest_seconds", "since when the oldest of them is paid")
LAG = Gauge(
    "torg_order_lag_seconds", "reserved to paid, paid to delivered: orders of the last 5 minutes", step=(), quantile=()
)
LATELY = Gauge("torg_orders_lately", "orders of the last 5 minutes that took this step", step=())
TO_POLL = Gauge("torg_payments_to_poll", "open invoices that a gateway should be asked about by now")
TO_POLL_AGE = Gauge("torg_payments_to_poll_oldest_seconds", "since when the oldest of them should have been")
REVIEW = Gauge("torg_inbox_review", "gateways' events that need a human")
CIRCUIT = Gauge("torg_circuit", "1 for the state that this circuit is in", circuit=(), state=())
