"""`torg dead`: jobs that no attempt could do, looked at, replayed or dropped by an operator at the machine."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

import rich_click as click

from app.desk import at_the_desk, operator
from app.domain import dead as letters
from app.flows.replay import replay
from app.shop import Shop, opened

T = TypeVar("T")

MAX_ID = 2**63 - 1

Id = click.IntRange(1, MAX_ID)
kind_option = click.option("--kind", default="", help="only this kind of job, as `torg dead list` shows it")


@click.group()
def dead() -> None:
    """Jobs that no attempt could do."""


@dead.command(name="list")
@kind_option
@click.option("--since", type=click.DateTime(), help="dead since then or later, UTC: 2026-01-31 or 2026-01-31T14:05:00")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
def dead_list(kind: str, since: datetime | None, limit: int) -> None:
    """The newest dead letters, with their last error."""
    moment = since.replace(tzinfo=UTC) if since else letters.EVER
    found = _ask(lambda shop: letters.newest(shop.deps.pg, kind, since=moment, before=MAX_ID, size=limit + 1))
    for one in found[:limit]:
        print(f"{one.id} {one.died_at:%Y-%m-%d %H:%M:%S} {one.kind} {one.key} {one.attempts} tries {one.last_error}")
    more = f" (and more: --limit {2 * limit})" if len(found) > limit else ""
    print(f"{min(len(found), limit)} dead letters{more}", flush=True)


@dead.command(name="show")
@click.argument("outbox_id", type=Id, metavar="ID")
def dead_show(outbox_id: int) -> None:
    """All that is known of one dead letter; its payload may hold what a customer has told us."""
    one = _ask(lambda shop: letters.get(shop.deps.pg, outbox_id))
    if one is None:
        raise click.ClickException(f"{outbox_id} is no dead letter")
    print(f"job       {one.id} {one.kind} {one.key}" + (f" of {one.aggregate}" if one.aggregate else ""))
    print(f"state     {one.state}, owed {one.created_at:%Y-%m-%d %H:%M:%S}, dead {one.died_at:%Y-%m-%d %H:%M:%S} UTC")
    print(f"attempts  {one.attempts}")
    print(f"error     {one.last_error}")
    print(f"payload   {one.payload}")
    for line in one.history.splitlines():
        print(f"history   {line}")


@dead.command(name="replay")
@click.argument("ids", type=Id, nargs=-1, metavar="[ID]...")
@kind_option
@click.option("--all", "everything", is_flag=True, help="every dead letter")
@click.option("--dry-run", is_flag=True, help="say which, change nothing")
def dead_replay(ids: tuple[int, ...], kind: str, everything: bool, dry_run: bool) -> None:
    """Have dead letters tried again as if nothing had been tried: some by id, all of a kind, or all."""
    if sum((bool(ids), bool(kind), everything)) != 1:
        raise click.UsageError("say which: ids, --kind or --all")
    by = letters.By(0, operator())
    chosen = _ask(lambda shop: replay(shop, ids or None, kind, by, dry_run=dry_run))
    for missing in sorted(set(ids) - set(chosen)):
        print(f"{missing} is no dead letter")
    more = ", and there may be more: run it again" if len(chosen) == letters.MOST else ""
    print(f"{len(chosen)} dead letters {'would be' if dry_run else 'are'} owed again{more}", flush=True)
    if chosen and dry_run:
        print(" ".join(map(str, chosen)), flush=True)
    if ids and len(chosen) < len(set(ids)):
        sys.exit(1)


@dead.command(name="drop")
@click.argument("outbox_id", type=Id, metavar="ID")
def dead_drop(outbox_id: int) -> None:
    """Decide that a dead letter is never done; its row and its story stay."""
    by = letters.By(0, operator())
    if _ask(lambda shop: letters.drop(shop.deps.pg, outbox_id, by)) is None:
        raise click.ClickException(f"{outbox_id} is no dead letter")
    print(f"{outbox_id} is dropped")


def _ask(question: Callable[[Shop], Awaitable[T]]) -> T:
    async def answer() -> T:
        async with opened(settings) as shop:
            return await question(shop)

    with at_the_desk() as settings:
        return asyncio.run(answer())
