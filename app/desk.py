"""What an operator asks at the machine: units in, events again, are the sums right; and the servers behind it."""

import asyncio
import os
import pwd
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec
import rich_click as click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn, TransferSpeedColumn

from app import settings as settings_floor
from app.demo import processes
from app.domain import inbox as events
from app.domain import ledger as books
from app.flows import settle, stock_import
from app.infra import embedded, observe
from app.infra.migrate import BadMigration, migrate, pending
from app.settings import Settings
from app.shop import opened

MOST_SKIPPED = 20  # duplicates that an import lists when it was told to skip them


@click.group()
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
        by=operator(),
    )
    tale = _Tale(dry_run)

    async def bring(settings: Settings) -> None:
        async with opened(settings) as shop:
            async for step in stock_import.run(shop, file, ask):
                tale.tell(step)
                bar.update(task, completed=step.read_bytes)

    with at_the_desk() as settings, _bar() as bar:
        task = bar.add_task("import", total=os.fstat(file.fileno()).st_size or None)
        try:
            asyncio.run(bring(settings))
        finally:
            tale.end()
    if tale.refused:
        sys.exit(1)


@click.group()
def ledger() -> None:
    """Where the money is."""


@ledger.command(name="check")
def ledger_check() -> None:
    """Prove that every posting, balance, order and payment add up; non-zero when anything does not."""

    async def check(settings: Settings) -> list[books.Fault]:
        async with opened(settings) as shop:
            return await books.check(shop.deps.pg)

    with at_the_desk() as settings:
        faults = asyncio.run(check(settings))
    for fault in faults:
        print(f"{fault.rule}: {fault.subject}: expected {fault.expected}, found {fault.found}")
    print(f"{len(faults)} sums are wrong" if faults else "every sum is right", flush=True)
    if faults:
        sys.exit(1)


@click.group()
def inbox() -> None:
    """What gateways told, and what became of it."""


@inbox.command(name="list")
@click.option(
    "--state", type=click.Choice(["", "new", "settled", "ignored", "review"]), default="", help="[default: any]"
)
@click.option("--last", type=click.IntRange(1, 1000), default=20, show_default=True)
def inbox_list(state: str, last: int) -> None:
    """The newest events, with the state of their jobs; `--state review` waits for a human."""

    async def found(settings: Settings) -> list[events.Listed]:
        async with opened(settings) as shop:
            return await events.newest(shop.deps.pg, state, size=last)

    with at_the_desk() as settings:
        for e in asyncio.run(found(settings)):
            job = f"job {e.job_state}, {e.attempts} tries {e.last_error}" if e.job_state else "no job"
            facts = f"{e.outcome or '-'} order {e.order_id or '-'}"
            print(f"{e.id} {e.received_at:%Y-%m-%d %H:%M:%S} {e.provider} {e.event_key} {e.state} {facts} ({job})")


@inbox.command(name="resend")
@click.argument("event_id", type=click.IntRange(1, 2**63 - 1))
def inbox_resend(event_id: int) -> None:
    """Work on an event again, as if it had come now: what was booked before is not booked again."""

    async def again(settings: Settings) -> int | None:
        async with opened(settings) as shop:
            outbox_id = await events.resend(shop.deps.pg, event_id)
            if outbox_id is not None:
                await settle.ring(shop, outbox_id)
            return outbox_id

    with at_the_desk() as settings:
        outbox_id = asyncio.run(again(settings))
    if outbox_id is None:
        raise click.ClickException(f"event {event_id} is not here, or was settled when it came")
    print(f"event {event_id} will be worked on by the next free worker")


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


def operator() -> str:
    """The name of the operating system's user; its number where it has none."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def settings_of_environment() -> Settings:
    return settings_floor.load(os.environ)


@contextmanager
def servers_of(settings: Settings, *, redis: bool = True) -> Iterator[Settings]:
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
def at_the_desk() -> Iterator[Settings]:
    """The same for a command that has something to say itself: only what went wrong is logged beside it."""
    with backed(None) as settings:
        loud = settings.log_level in ("warning", "error")
        observe.configure(settings if loud else msgspec.structs.replace(settings, log_level="warning"))
        yield settings


@contextmanager
def backed(lifeline: int | None) -> Iterator[Settings]:
    """The same, on a database that has every migration; the embedded one gets them now."""
    hold_on(lifeline)
    given = settings_of_environment()
    with servers_of(given) as settings:
        if given.database_url:
            behind = asyncio.run(pending(settings.database_url))
            if behind:
                raise BadMigration(f"the database lacks {', '.join(behind)}: run `torg migrate` first")
        else:
            asyncio.run(migrate(settings.database_url))
        yield settings


def hold_on(lifeline: int | None) -> None:
    if lifeline is not None:
        processes.hold_on_to(lifeline)
