"""One cached page of the catalog over HTTP: `torg web` beside a bare Litestar route that returns the same bytes.

All are served processes on uvicorn with uvloop and httptools, 64 connections each, in turns. `torg` is `torg web` as it
is: it weighs every request in Redis, names it in its log and its answer, and looks for its copy; `bare` does nothing
but return a constant. `unlimited` is torg with the rate limit taken off this route. `correct`: every answer was a 200
with exactly the bytes of the page.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections import deque
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import uvicorn
import uvloop
from litestar import Litestar, MediaType, Response, get

from app import settings as settings_floor
from app.demo import environment, processes
from app.demo.seed import fill
from app.infra import embedded
from app.infra.embedded import Servers
from app.infra.migrate import migrate
from app.main import create_app
from app.web import shop
from bench import crowd, report

PATH = "/api/catalog?query=&category=&limit=24"
CALLS, ROUNDS = 60, 9
PATIENCE_S = 60
PROMISED = 0.6  # of bare's calls per second


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="t-") as folder, embedded.serve(Path(folder)) as servers:
        rows = compared(Path(folder), servers)
    report.publish("catalog", rows)
    per_second = {row.variant: row.per_second for row in rows}
    share = per_second["torg"] / per_second["bare"]
    print(f"torg serves {share:.0%} of bare (promised: {PROMISED:.0%}): {'kept' if share >= PROMISED else 'MISSED'}")


def compared(folder: Path, servers: Servers) -> list[report.Row]:
    given = environment.secrets_of(folder) | {
        "TORG_DATABASE_URL": servers.database_url, "TORG_REDIS_URL": servers.redis_url, "TORG_LOG_LEVEL": "warning",
        "TORG_LIMITS": "*=1000000/1",  # weighed as ever, and never refused
    }  # fmt: skip
    asyncio.run(filled(given))
    ours = {name: value for name, value in os.environ.items() if not name.startswith("TORG_")} | given
    ports = [environment.free_port() for _ in range(3)]
    torg = f"http://127.0.0.1:{ports[0]}"
    with processes.running(folder / "log", ours | {"TORG_PORT": str(ports[0]), "TORG_PUBLIC_URL": torg}) as start:
        start("web", "web").wait_ready(f"{torg}/health/ready", PATIENCE_S)
        with urlopen(torg + PATH, timeout=PATIENCE_S) as answer:
            page: bytes = answer.read()
        (folder / "page.json").write_bytes(page)
        doors = {"torg": Door(torg, page)}
        for name, port in zip(("unlimited", "bare"), ports[1:], strict=True):
            url = f"http://127.0.0.1:{port}"
            started(start, name, port, folder / "page.json").wait_ready(url + PATH, PATIENCE_S)
            doors[name] = Door(url, page)
        return uvloop.run(measured(doors))


async def filled(given: dict[str, str]) -> None:
    settings = settings_floor.load(given)
    await migrate(settings.database_url)
    await fill(settings)


async def measured(doors: "dict[str, Door]") -> list[report.Row]:
    rounds = await crowd.in_turns({name: door.ask for name, door in doors.items()}, ROUNDS, CALLS)
    return [report.row(name, rounds[name], correct=not door.wrong) for name, door in doors.items()]


class Door:
    """A served page: connections stay open, each carries one request at a time."""

    def __init__(self, url: str, page: bytes) -> None:
        self.to, self.page, self.wrong = urlsplit(url), page, 0
        self.idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()
        self.request = f"GET {PATH} HTTP/1.1\r\nHost: {self.to.netloc}\r\n\r\n".encode()

    async def ask(self, _name: str) -> None:
        link = self.idle.popleft() if self.idle else await asyncio.open_connection(self.to.hostname, self.to.port)
        reader, writer = link
        writer.write(self.request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        body = await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))
        self.wrong += not head.startswith(b"http/1.1 200") or body != self.page
        self.idle.append(link)


def started(start: processes.Start, name: str, port: int, page: Path) -> processes.Child:
    """One of this file's own servers."""
    log = start.log_dir / f"{name}.log"
    command = [sys.executable, "-m", "bench.catalog", name, str(start.lifeline), str(port), str(page)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=start.environ, stdout=out, stderr=out, pass_fds=[start.lifeline])
    start.children.append(processes.Child(name, process, log))
    return start.children[-1]


def serve(name: str, lifeline: int, port: int, page: Path) -> None:
    processes.hold_on_to(lifeline)
    uvicorn.run(
        unlimited() if name == "unlimited" else bare(page.read_bytes()), port=port, loop="uvloop", http="httptools",
        ws="none", access_log=False, log_config=None, server_header=False, proxy_headers=False,
    )  # fmt: skip


def unlimited() -> Litestar:
    """The whole service; only this route is not weighed."""
    shop.list_products.opt.pop("limits")
    return create_app(settings_floor.load(os.environ))


def bare(body: bytes) -> Litestar:
    @get("/api/catalog")
    async def constant() -> Response[bytes]:
        return Response(body, media_type=MediaType.JSON)

    return Litestar([constant], openapi_config=None, logging_config=None)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
