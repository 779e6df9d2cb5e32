"""What benches share: servers of their own, and in the end a table on the screen and a JSON file in bench/results/."""

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
import uvloop

from app.infra import embedded
from app.infra.embedded import Servers

RESULTS = Path(__file__).parent / "results"


class Round(msgspec.Struct, frozen=True):
    """One variant's turn: how long each call took, and how long all of them together."""

    calls_ms: list[float]
    seconds: float


class Row(msgspec.Struct, frozen=True):
    """One variant; `correct` means that its effects add up exactly, without which its speed says nothing."""

    variant: str
    p50_ms: float
    p99_ms: float
    per_second: float
    correct: bool


class Report(msgspec.Struct, frozen=True):
    name: str
    commit: str
    cores: int | None
    rows: list[Row]


def run(name: str, compared: Callable[[Path, Servers], Awaitable[tuple[list[Row], list[str]]]]) -> None:
    """What was compared is published, with its lines below; SIGTERM ends it like Ctrl-C, and every process with it."""

    async def until_told(folder: Path, servers: Servers) -> tuple[list[Row], list[str]]:
        main_task = asyncio.current_task()
        assert main_task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, main_task.cancel)
        return await compared(folder, servers)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="t-") as folder, embedded.serve(Path(folder)) as servers:
        try:
            rows, lines = uvloop.run(until_told(Path(folder), servers))
        except asyncio.CancelledError:
            sys.exit(128 + signal.SIGTERM)
    publish(name, rows)
    print("\n".join(lines))


def row(variant: str, rounds: Sequence[Round], *, correct: bool) -> Row:
    """Medians over interleaved rounds: a noisy moment of the machine hits one round of each variant."""
    # For 2 calls or more; "inclusive" never leaves the range that was seen.
    percentiles = [statistics.quantiles(one.calls_ms, n=100, method="inclusive") for one in rounds]
    return Row(
        variant=variant,
        p50_ms=round(statistics.median(p[49] for p in percentiles), 3),
        p99_ms=round(statistics.median(p[98] for p in percentiles), 3),
        per_second=round(statistics.median(len(one.calls_ms) / one.seconds for one in rounds), 1),
        correct=correct,
    )


def publish(name: str, rows: Sequence[Row], results: Path = RESULTS) -> None:
    """The table is printed and `results/<name>.json` is written."""
    print(f"{name:<24}{'p50 ms':>10}{'p99 ms':>10}{'per second':>14}{'times':>8}  correct")
    slowest = min(one.per_second for one in rows)
    for one in rows:
        times = f"{one.per_second / slowest:.1f}"
        correct = "yes" if one.correct else "NO"
        print(f"{one.variant:<24}{one.p50_ms:>10.3f}{one.p99_ms:>10.3f}{one.per_second:>14,.0f}{times:>8}  {correct}")
    report = Report(name, _commit(), os.cpu_count(), list(rows))
    results.mkdir(exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(report), indent=2)
    (results / f"{name}.json").write_bytes(text + b"\n")


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    told = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return told.stdout.strip() or "unknown"
