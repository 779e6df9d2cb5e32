"""What admins may ask the bot for. For everybody else these commands and buttons are not there."""

import sys

from aiogram import F, Router
from aiogram.filters import Command, CommandObject
from aiogram.types import CallbackQuery, Message

from app.base import prose
from app.base.ids import derived_id
from app.base.money import Money
from app.bot.visit import Reply, Visit, label
from app.domain import dead, figures
from app.errors import Conflict
from app.flows import broadcast, converse, replay
from app.infra.messenger import Button

SCARCE, SCARCE_SHOWN = 5, 20  # units left; products
LETTERS = 5  # dead ones, shown
CRY, AGAIN = "cry:", "again:"


async def is_admin(event: Message | CallbackQuery, visit: Visit) -> bool:
    return visit.is_admin


def router() -> Router:
    made = Router(name="admins")
    made.message.filter(is_admin)
    made.callback_query.filter(is_admin)
    made.message.register(show_stats, Command("stats", ignore_case=True, ignore_mention=True))
    made.message.register(show_stock, Command("stock", ignore_case=True, ignore_mention=True))
    made.message.register(draft_broadcast, Command("broadcast", ignore_case=True, ignore_mention=True))
    made.message.register(list_dead, Command("dead", ignore_case=True, ignore_mention=True))
    made.message.register(hand_back, Command("handback", ignore_case=True, ignore_mention=True))
    made.callback_query.register(approve_broadcast, F.data.startswith(CRY))
    made.callback_query.register(replay_dead, F.data.startswith(AGAIN))
    return made


async def show_stats(message: Message, visit: Visit) -> Reply:
    pg = visit.shop.deps.pg
    lines = [
        visit.words(
            "stats",
            currency=one.currency,
            today_orders=one.today_orders,
            today=Money(one.today_minor, one.currency),
            week_orders=one.week_orders,
            week=Money(one.week_minor, one.currency),
        )
        for one in await figures.sales(pg)
    ]
    talks = await figures.talks(pg)
    said = visit.words("stats_talks", active=talks.active, escalated=talks.escalated)
    return Reply("\n".join([*(lines or [visit.words("stats_none")]), said]))


async def show_stock(message: Message, visit: Visit) -> Reply:
    found = await figures.scarce(visit.shop.deps.pg, most=SCARCE, size=SCARCE_SHOWN)
    if not found:
        return visit.say("stock_none", most=SCARCE)
    lines = [
        visit.words("stock_line", units=one.units, title=prose.one_line(one.title, 100), product_id=one.product_id)
        for one in found
    ]
    return Reply("\n".join([visit.words("stock_head"), *lines]))


async def draft_broadcast(message: Message, visit: Visit, command: CommandObject) -> Reply:
    """The message as everybody will see it: what is approved is this very text, as Telegram keeps it."""
    text = (command.args or "").strip()
    if not text:
        return visit.say("broadcast_usage")
    choices = ("broadcast_all", "all"), ("broadcast_buyers", "buyers"), ("broadcast_cancel", "none")
    return Reply(text, [[Button(label(visit.words(key)), data=CRY + whom)] for key, whom in choices])


async def approve_broadcast(query: CallbackQuery, visit: Visit) -> Reply:
    """The draft is one broadcast, or none: what was pressed first counts, and later presses are told of it."""
    audience, drafted = (query.data or "").removeprefix(CRY), query.message
    if audience not in ("all", "buyers", "none") or not isinstance(drafted, Message) or not drafted.text:
        return visit.say("pressed_old")
    draft = derived_id(b"broadcast", visit.opened.peer.encode(), str(drafted.message_id).encode())
    try:
        become = await broadcast.approve(visit.shop, visit.opened.user_id, draft, drafted.text, audience)
    except Conflict:
        return visit.say("broadcast_twice")
    if become.state == "cancelled" and not become.sent:
        return visit.say("broadcast_cancelled", instead=True)
    return visit.say("broadcast_over" if become.state in ("done", "cancelled") else "broadcast_started", id=become.id)


async def list_dead(message: Message, visit: Visit) -> Reply:
    pg = visit.shop.deps.pg
    count = sum(one.value for one in await figures.read(pg) if one.figure == "dead")
    letters = await dead.newest(pg, "", before=sys.maxsize, size=LETTERS)
    if not letters:
        return visit.say("dead_none")
    lines = [
        visit.words(
            "dead_line", id=one.id, kind=one.kind, died=f"{one.died_at:%Y-%m-%d %H:%M}",
            error=prose.one_line(one.last_error, 200),
        )
        for one in letters
    ]  # fmt: skip
    rows = [[Button(label(visit.words("dead_replay", id=one.id)), data=f"{AGAIN}{one.id}")] for one in letters]
    return Reply("\n".join([visit.words("dead_head", count=count), *lines]), rows)


async def replay_dead(query: CallbackQuery, visit: Visit) -> Reply:
    number = _number((query.data or "").removeprefix(AGAIN))
    by = dead.By(visit.opened.user_id, visit.name)
    done = await replay.replay(visit.shop, [number], "", by, dry_run=False) if number else []
    return visit.say("dead_replayed" if done else "dead_gone", id=number)


async def hand_back(message: Message, visit: Visit, command: CommandObject) -> Reply:
    number = _number(command.args or "")
    if not number:
        return visit.say("handback_usage")
    done = await converse.hand_back(visit.shop, visit.opened.user_id, number)
    return visit.say("handback_done" if done else "handback_none", id=number)


def _number(text: str) -> int:
    """A row's number; 0: it is none."""
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0
    return number if number <= sys.maxsize else 0
