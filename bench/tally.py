"""What counting costs: one value, and a settled callback with all that is counted about it, against one without.

Signed callbacks go straight into the app of `torg web`, 64 at a time, in this process, with Postgres and Redis beside
it; the figure is this process's CPU time for each, in alternate rounds, so that a busy machine hits both. `uncounted`
is the same code with what counts replaced by what returns at once.
"""

import asyncio
import statistics
import tempfile
import timeit
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time
from typing import Any
from unittest.mock import patch

import prometheus_client
import uvloop
from litestar import Litestar

from app import settings as settings_floor
from app.base.tally import CLASSES, Counter, Histogram, Times
from app.demo import environment
from app.infra import embedded
from app.infra.embedded import Servers
from app.infra.migrate import migrate
from app.infra.sql import Postgres
from app.main import create_app
from bench import report
from bench.report import Round
from bench.settle import TOKEN, Bench, Sale, callback

ROUNDS = 25
CALLS = 512
CALLERS = 64
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="t-") as folder, embedded.serve(Path(folder)) as servers:
        lines = uvloop.run(compared(Path(folder), servers))
    print("\n".join([*values(), *lines]))


def values() -> list[str]:
    """One value, ours and the library's."""
    ours = Times(BOUNDS, (), None)
    theirs = prometheus_client.Histogram("bench", "bench", registry=None, buckets=BOUNDS)
    counter = Counter("bench_total", "bench", route=(), method=(), status=())
    histogram = Histogram("bench_seconds", "bench", *BOUNDS, route=(), method=())
    calls: dict[str, Any] = {
        "Times.observe": lambda: ours.observe(0.003),
        "Histogram.series[] and observe": lambda: histogram.series["/api/orders", "POST"].observe(0.003),
        "Counter.add": lambda: counter.add("/api/orders", "POST", "2xx"),
        "perf_counter": perf_counter,
        "prometheus_client's Histogram.observe": lambda: theirs.observe(0.003),
    }
    found = [f"{name}: {min(timeit.repeat(call, number=100_000)) * 10:.2f} us" for name, call in calls.items()]
    return [*found, f"all that one callback counts: {uvloop.run(of_callback()):.2f} us"]


async def of_callback(times: int = 50_000) -> float:
    """What RequestId, Hook, `settle.accept` and a statement of its own do for one callback, less the bare calls."""
    requests = Histogram("requests_seconds", "bench", *BOUNDS, route=(), method=(), status=())
    histogram = Histogram("callback_seconds", "bench", *BOUNDS, gateway=(), stage=())
    scope = {"path_template": "/api/webhook/payment/{provider}", "method": "POST"}
    statement = Times(BOUNDS, (), None)

    async def bare() -> None:
        pass

    async def counted() -> None:
        started = perf_counter()
        verified = perf_counter()
        histogram.series["cryptopay", "verify"].observe(perf_counter() - verified)
        await histogram.series["cryptopay", "settle"].timed(bare())
        await statement.timed(bare())
        stored = perf_counter()
        route = scope["path_template"], scope["method"], CLASSES[200 // 100]
        requests.series[route].observe(perf_counter() - started)
        histogram.series["cryptopay", "answer"].observe(perf_counter() - stored)

    async def uncounted() -> None:
        await bare()
        await bare()

    async def loop_us(call: Callable[[], Awaitable[None]]) -> float:
        start = perf_counter()
        for _ in range(times):
            await call()
        return (perf_counter() - start) * 1e6 / times

    return min([await loop_us(counted) for _ in range(7)]) - min([await loop_us(uncounted) for _ in range(7)])


async def compared(folder: Path, servers: Servers) -> list[str]:
    await migrate(servers.database_url)
    environ = environment.secrets_of(folder) | {
        "TORG_DATABASE_URL": servers.database_url,
        "TORG_REDIS_URL": servers.redis_url,
        "TORG_CRYPTOPAY_TOKEN": TOKEN,
        "TORG_LIMITS": "webhooks=1000000/1",
        "TORG_LOG_LEVEL": "warning",
        "TORG_REDIS_TIMEOUT_MS": "1000",
    }
    app = create_app(settings_floor.load(environ))
    pg = await Postgres.open(servers.database_url, pool_size=2, timeout_ms=60_000)
    bench = Bench(pg, folder, servers, {})
    await bench.furnish()
    cpu_us: dict[str, list[float]] = {"counted": [], "uncounted": []}
    rounds: dict[str, list[Round]] = {"counted": [], "uncounted": []}
    paid = True
    async with app.lifespan():
        for number in range(ROUNDS + 1):
            for name in sorted(cpu_us, reverse=bool(number % 2)):
                sales = await bench.sell(CALLS)
                with uncounted(name == "uncounted"):
                    cpu_s, one = await called(app, sales)
                paid &= await bench.paid(sales)
                if number:  # the first is warm-up
                    cpu_us[name].append(cpu_s * 1e6 / CALLS)
                    rounds[name].append(one)
    await pg.close()
    report.publish("tally", [report.row(name, each, correct=paid) for name, each in rounds.items()])
    most, least = (min(cpu_us[name]) for name in ("counted", "uncounted"))
    differ = statistics.median(a - b for a, b in zip(cpu_us["counted"], cpu_us["uncounted"], strict=True))
    told = f"{most:.0f} us counted, {least:.0f} us uncounted (the best rounds); median of pairs {differ:+.1f} us"
    return [f"CPU of a callback in this process: {told}"]


@contextmanager
def uncounted(really: bool) -> Iterator[None]:
    if not really:
        yield
        return
    with (
        patch.object(Times, "observe", lambda self, took_s: None),
        patch.object(Times, "timed", lambda self, call: call),
        patch.object(Counter, "add", lambda self, *labels, by=1: None),
    ):
        yield


async def called(app: Litestar, sales: Sequence[Sale]) -> tuple[float, Round]:
    """Every callback is answered with 200; the CPU time that took, and the time."""
    waiting = iter([callback(sale) for sale in sales])
    calls_ms: list[float] = []

    async def caller() -> None:
        for body, headers in waiting:
            start = perf_counter()
            assert await answered(app, body, headers) == 200
            calls_ms.append((perf_counter() - start) * 1000)

    start, cpu_start = perf_counter(), process_time()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return process_time() - cpu_start, Round(calls_ms, perf_counter() - start)


async def answered(app: Any, body: bytes, headers: dict[str, str]) -> int:
    path = "/api/webhook/payment/cryptopay"
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": raw,
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {}, "extensions": {},
    }  # fmt: skip
    statuses = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(scope, receive, send)
    return int(statuses[0])


if __name__ == "__main__":
    main()
