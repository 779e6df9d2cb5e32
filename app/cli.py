"""`torg`: the commands of the people who run a shop."""

import asyncio
import gc
import os
import pwd
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NoReturn

import msgspec
import rich_click as click
import uvicorn
import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn, TransferSpeedColumn

from app import settings as settings_floor
from app.base.version import VERSION
from app.demo import processes
from app.demo.buyer import NotDelivered
from app.demo.run import demo as run_demo
from app.demo.seed import fill
from app.errors import Problem
from app.flows import stock_import
from app.gateways import registry
from app.infra import embedded, observe
from app.infra.migrate import BadMigration, migrate, pending
from app.infra.secrets import BadKeys
from app.settings import Settings
from app.shop import opened

GRACE_S = 10  # what open requests get after SIGTERM
MOST_SKIPPED = 20  # duplicates that an import lists when it was told to skip them

# What may go wrong on the way up and is the operator's to mend: one line each, no traceback.
FAILURES = (
    settings_floor.BadSettings, embedded.EmbeddedError, processes.ProcessFailed, NotDelivered, BadMigration, BadKeys,
    Problem,
)  # fmt: skip

lifeline = click.option("--lifeline", type=int, hidden=True, help="stop when this pipe's other end is gone")


@click.group(help="Torg: a self-hosted backend for shops that sell inside Telegram.")
@click.version_option(VERSION, prog_name="torg")
def cli() -> None:
    signal.signal(signal.SIGTERM, _terminate)


@cli.command()
@click.option("--once", is_flag=True, help="exit after the purchase; non-zero when the goods do not come within 30 s")
@click.option("--port", type=click.IntRange(1, 65535), help="port of the shop [default: 8000, else a free one]")
def demo(once: bool, port: int | None) -> None:
    """Start everything, buy something, and keep the shop open."""
    run_demo(os.environ, port=port, once=once, say=lambda line: print(line, flush=True))


@cli.command()
@lifeline
def web(lifeline: int | None) -> None:
    """Serve HTTP."""
    from app.main import create_app  # each process loads what it runs: together they take seconds

    with _backed(lifeline) as settings:
        app = create_app(settings)
        gc.collect()
        gc.freeze()  # what a process is made of is no garbage: looking through it held up every request for 70 ms
        uvicorn.run(
            app,
            host=settings.host,
            port=settings.port,
            loop="uvloop",
            http="httptools",
            ws="none",
            access_log=False,  # 37 us a request, and URLs with tokens in them (PROBE B5)
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE_S,
        )


@cli.command()
@lifeline
def worker(lifeline: int | None) -> None:
    """Do the jobs: settle, deliver, tell, expire."""
    from workers import main as worker_main

    with _backed(lifeline) as settings, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(worker_main.serve(settings))


@cli.command(name="migrate")
def migrate_command() -> None:
    """Bring the database up to this release."""
    with _servers(_settings(), redis=False) as settings:
        applied = asyncio.run(migrate(settings.database_url))
        print("\n".join(f"applied {name}" for name in applied) or "nothing to apply")


@cli.command()
def seed() -> None:
    """Fill the shelf with the demo's catalog."""
    with _servers(_settings()) as settings:
        print(f"{asyncio.run(fill(settings))} products on the shelf")


@cli.group()
def stock() -> None:
    """What is on the shelf."""


@stock.command(name="import")
@click.argument("file", type=click.File("rb"))
@click.option("--product", "product_id", type=click.IntRange(1, 2**63 - 1), required=True, help="whose units these are")
@click.option("--format", "form", type=click.Choice(stock_import.FORMATS), help="[default: csv for *.csv, else txt]")
@click.option("--batch", type=click.IntRange(1, stock_import.MAX_BATCH), default=500, show_default=True)
@click.option("--skip-duplicates", is_flag=True, help="leave out what is there already instead of refusing its batch")
@click.option("--dry-run", is_flag=True, help="judge the whole file, add nothing")
def stock_import_command(
    file: BinaryIO, product_id: int, form: str | None, batch: int, skip_duplicates: bool, dry_run: bool
) -> None:
    """Bring a file of secrets to the shelf, each batch whole or not at all.

    txt: a secret per line. csv: a header with `secret`, and `discount_bp` and `expires_at` if there are any.
    """
    ask = stock_import.Ask(
        product_id=product_id,
        format=form or ("csv" if file.name.lower().endswith(".csv") else "txt"),
        batch=batch,
        skip_duplicates=skip_duplicates,
        dry_run=dry_run,
        by=_operator(),
    )
    tale = _Tale(dry_run)

    async def bring(settings: Settings) -> None:
        async with opened(settings) as shop:
            async for step in stock_import.run(shop, file, ask):
                tale.tell(step)
                bar.update(task, completed=step.read_bytes)

    with _backed(None) as settings, _bar() as bar:
        observe.configure(settings)
        task = bar.add_task("import", total=os.fstat(file.fileno()).st_size or None)
        try:
            asyncio.run(bring(settings))
        finally:
            tale.end()
    if tale.refused:
        sys.exit(1)


class _Tale:
    """What an import says: lines and keyed hashes, never a secret."""

    def __init__(self, dry_run: bool) -> None:
        self.done = "would be" if dry_run else "are"
        self.lines = self.added = self.skipped = self.refused = 0

    def tell(self, step: stock_import.Step) -> None:
        if step.refused:
            self.refused += 1
            print(f"lines {step.first_line}-{step.last_line} {self.done} refused, nothing of them added:")
            for fault in step.faults:
                print(f"  line {fault.line}: {fault.reason}")
        else:
            self.lines, self.added = step.last_line, self.added + step.added
        for twice in step.duplicates:
            self.skipped += not step.refused
            if step.refused or self.skipped <= MOST_SKIPPED:
                print(f"  line {twice.line}: there already, {twice.fingerprint}")

    def end(self) -> None:
        upto = f"up to line {self.lines}: " if self.lines else ""
        print(f"{upto}{self.added} units {self.done} added, {self.skipped} duplicates left out", flush=True)
        if self.refused and self.done == "are":
            print("mend the refused lines and run the file again with --skip-duplicates", flush=True)


def _bar() -> Progress:
    """On a terminal; a log has no use for it."""
    console = Console(stderr=True)
    columns = (BarColumn(), TaskProgressColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _operator() -> str:
    """The name of the operating system's user; its number where it has none."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


@cli.command()
@click.argument("name", type=click.Choice(["telegram", *registry.known()]))
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), required=True)
@lifeline
def sandbox(name: str, host: str, port: int, lifeline: int | None) -> None:
    """Play an outside party on loopback, with the secrets of TORG_*."""
    from app.sandbox import serve as sandbox_serve

    _hold_on(lifeline)
    settings = _settings()
    secrets = {"token": settings.telegram_bot_token} if name == "telegram" else registry.secrets(settings, name)
    sandbox_serve.run(name, host, port, **secrets)


@cli.command()
def settings() -> None:
    """Print every setting with its meaning and default."""
    print(settings_floor.env_example() + registry.env_example(), end="")


def _settings() -> Settings:
    return settings_floor.load(os.environ)


@contextmanager
def _servers(settings: Settings, *, redis: bool = True) -> Iterator[Settings]:
    """Settings whose servers are there: those that they name, else the embedded ones."""
    own_postgres, own_redis = not settings.database_url, redis and not settings.redis_url
    if not own_postgres and not own_redis:
        yield settings  # nothing of ours runs here: no data directory either
        return
    with embedded.serve(Path(settings.data_dir), postgres=own_postgres, redis=own_redis) as servers:
        yield msgspec.structs.replace(
            settings,
            database_url=settings.database_url or servers.database_url,
            redis_url=settings.redis_url or servers.redis_url,
        )


@contextmanager
def _backed(lifeline: int | None) -> Iterator[Settings]:
    """The same, on a database that has every migration; the embedded one gets them now."""
    _hold_on(lifeline)
    given = _settings()
    with _servers(given) as settings:
        if given.database_url:
            behind = asyncio.run(pending(settings.database_url))
            if behind:
                raise BadMigration(f"the database lacks {', '.join(behind)}: run `torg migrate` first")
        else:
            asyncio.run(migrate(settings.database_url))
        yield settings


def _hold_on(lifeline: int | None) -> None:
    if lifeline is not None:
        processes.hold_on_to(lifeline)


def _terminate(_signal: int, _frame: object) -> NoReturn:
    # As an exception, so that every `with` above gets its turn.
    raise SystemExit(128 + signal.SIGTERM)


def main() -> None:
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except FAILURES as error:
        print(f"torg: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
