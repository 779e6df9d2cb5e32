"""A model's words on their way to the Mini App: `POST /api/chat`, and a bare pipe in the same framework.

The model's endpoint is in this process. It streams OpenAI's chunks, `PIECES` of them in `PIECE_S` each, and what every
piece says is the moment at which it left; the client, in this process too, knows how long it was under way. `torg` is
the real `torg web`: it signs in, weighs, claims the message, reads and stores the conversation, and tells the model of
seven tools; `bare` is `plainchat.py`, which passes on. One chat at a time, then `CHATS` of them (`x16`). A call is one
piece, and `per second` is pieces; the line below tells what passes before the first. `correct`: every piece came, once
and in its order, and the stream ended with `done`.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from time import perf_counter, perf_counter_ns
from typing import Any
from uuid import uuid4

import httpx
import msgspec

from app.base import clock
from app.demo import environment, processes
from app.infra.embedded import Servers
from app.infra.migrate import migrate
from app.infra.secrets import Session, Tokens
from app.infra.sql import Postgres
from app.sandbox.serve import running
from bench import baseline, report
from bench.report import Round, Row

PIECES, PIECE_S = 25, 0.02
ROUNDS = 5
CHATS = 16
PATIENCE_S = 60
USERS = "INSERT INTO users (telegram_id, name) SELECT n, 'Ann' FROM generate_series(1, $1) n RETURNING id"


class Endpoint:
    """A model that says when it says it."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(PIECES):
            await send(
                {"type": "http.response.body", "body": chunk({"content": f"{perf_counter_ns()} "}), "more_body": True}
            )
            await asyncio.sleep(PIECE_S)
        await send({"type": "http.response.body", "body": chunk({}, "stop") + b"data: [DONE]\n\n"})


def chunk(delta: dict[str, str], reason: str | None = None) -> bytes:
    told = {
        "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
    }  # fmt: skip
    return b"data: " + json.dumps(told).encode() + b"\n\n"


class Heard(msgspec.Struct):
    """What came of one chat: how long each piece was under way, and how long the first was waited for."""

    pieces_ms: list[float]
    first_ms: float
    correct: bool


def main() -> None:
    report.run("chat", compared)


async def compared(folder: Path, servers: Servers) -> tuple[list[Row], list[str]]:
    await migrate(servers.database_url)
    environ = environment.secrets_of(folder) | {
        "TORG_DATA_DIR": str(folder), "TORG_DATABASE_URL": servers.database_url, "TORG_REDIS_URL": servers.redis_url,
        "TORG_LIMITS": "*=1000000/1", "TORG_MODEL_KEY": "key", "TORG_MODEL_NAME": "m",
    }  # fmt: skip
    turns: dict[str, list[Round]] = {}
    heard: dict[str, list[Heard]] = {}
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        environ["TORG_MODEL_URL"] = f"{await enter(running(Endpoint()))}/v1"
        urls = await enter(served(folder / "log", environ))
        http = await enter(httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False))
        tokens = await sessions(servers.database_url, Tokens(environ["TORG_SESSION_SECRET"]))
        for number in range(ROUNDS + 1):
            for name, url in urls.items():
                for crowd in (1, CHATS):
                    started = perf_counter()
                    chats = await asyncio.gather(*(said(http, url, next(tokens)) for _ in range(crowd)))
                    pieces = [ms for chat in chats for ms in chat.pieces_ms]
                    label = name if crowd == 1 else f"{name} x{crowd}"
                    heard.setdefault(label, []).extend(chats)
                    if number:  # the first is warm-up
                        turns.setdefault(label, []).append(Round(pieces, perf_counter() - started))
    rows = [report.row(label, done, correct=all(one.correct for one in heard[label])) for label, done in turns.items()]
    return rows, verdict(rows, {label: median(one.first_ms for one in chats) for label, chats in heard.items()})


async def sessions(database_url: str, tokens: Tokens) -> Iterator[str]:
    """So many buyers as there are chats: each says one thing, which nobody has said before."""
    pg = await Postgres.open(database_url, pool_size=1, timeout_ms=10_000)
    rows = await pg.fetch(USERS, (2 * (ROUNDS + 1) * (CHATS + 1),))
    await pg.close()
    ends_s = clock.unix_s() + 3600
    return iter([tokens.issue(Session(row["id"], "buyer", ends_s)) for row in rows])


async def said(http: httpx.AsyncClient, url: str, token: str) -> Heard:
    """One chat, read to its end."""
    body = {"id": str(uuid4()), "text": "What have you got today?", "language": "en"}
    started, left_ns, came_ns, rest, ended = perf_counter_ns(), list[int](), list[int](), b"", False
    headers = {"Authorization": f"Bearer {token}"}
    async with http.stream("POST", f"{url}/api/chat", json=body, headers=headers) as answer:
        async for data in answer.aiter_raw():
            now_ns = perf_counter_ns()
            *events, rest = (rest + data).split(b"\n\n")
            for event in events:
                if event.startswith(b"event: chunk\ndata: "):
                    words = msgspec.json.decode(event.removeprefix(b"event: chunk\ndata: "))["text"].split()
                    left_ns += map(int, words)
                    came_ns += [now_ns] * len(words)
                ended = ended or event.startswith(b"event: done\n")
    pieces_ms = [(came - left) / 1e6 for left, came in zip(left_ns, came_ns, strict=True)]
    correct = ended and not rest and len(left_ns) == PIECES and left_ns == sorted(set(left_ns))
    return Heard(pieces_ms, (came_ns[0] - started) / 1e6 if came_ns else 0.0, correct)


@asynccontextmanager
async def served(log_dir: Path, environ: dict[str, str]) -> AsyncIterator[dict[str, str]]:
    """Where each variant is served, while its process runs."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("TORG_")} | environ
    ports = environment.free_port(), environment.free_port()
    urls = {name: f"http://127.0.0.1:{port}" for name, port in zip(("torg", "bare"), ports, strict=True)}
    block = processes.running(log_dir, ours | {"TORG_PORT": str(ports[0]), "TORG_PUBLIC_URL": urls["torg"]})
    start = block.__enter__()
    try:
        web, bare = start("web", "web"), baseline.start(start, ports[1], "plainchat")
        for child, url in ((web, urls["torg"]), (bare, urls["bare"])):
            await asyncio.to_thread(child.wait_ready, f"{url}/health/ready", PATIENCE_S)
        yield urls
    finally:
        await asyncio.to_thread(block.__exit__, None, None, None)


def verdict(rows: Sequence[Row], first_ms: dict[str, float]) -> list[str]:
    by_name = {row.variant: row for row in rows}
    lines = []
    for crowd, how in (("", "one chat at a time"), (f" x{CHATS}", f"{CHATS} at a time")):
        torg, bare = by_name[f"torg{crowd}"], by_name[f"bare{crowd}"]
        lines += [
            f"{how}: a piece is with the client {torg.p50_ms:.1f} ms after it left the model, {bare.p50_ms:.1f} "
            f"through the bare pipe ({torg.p50_ms / bare.p50_ms:.1f} times)",
            f"  the first comes {first_ms[torg.variant]:.0f} ms after the question, {first_ms[bare.variant]:.0f} "
            "through the pipe, from a model that does not think",
        ]
    return lines
