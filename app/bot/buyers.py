"""What every user may ask the bot for: a welcome, orders and their goods, a language, a human."""

import sys

import msgspec
from aiogram import F, Router
from aiogram.filters import Command
from aiogram.types import CallbackQuery, Message

from app.base import prose
from app.base.ids import derived_id, parse_id
from app.base.money import Money
from app.bot import buying, texts
from app.bot.visit import Reply, Visit, label
from app.channels import sayings
from app.channels.telegram.texts import MAX_LENGTH
from app.domain import customers, goods, orders
from app.domain.orders import Order
from app.flows.call_human import call_human, has_one
from app.infra.messenger import Button

SHOWN = 5  # orders
GOODS, SPEAK = "goods:", "speak:"
OFFER = "o_"  # before an offer's token, in a start parameter
HANDED = frozenset({"delivered", "completed", "partially_delivered", "paid", "preorder"})  # may have goods to open


def router() -> Router:
    made = Router(name="buyers")
    made.message.register(start, Command("start", ignore_case=True, ignore_mention=True))
    made.message.register(list_orders, Command("orders", ignore_case=True, ignore_mention=True))
    made.message.register(ask_language, Command("language", ignore_case=True, ignore_mention=True))
    made.message.register(support, Command("support", ignore_case=True, ignore_mention=True))
    made.message.register(tell_help, Command("help", ignore_case=True, ignore_mention=True))
    made.callback_query.register(send_goods, F.data.startswith(GOODS))
    made.callback_query.register(choose_language, F.data.startswith(SPEAK))
    return made


def rest() -> Router:
    """Whatever nobody else has answered."""
    made = Router(name="rest")
    made.message.register(unknown, F.text.startswith("/"))
    made.message.register(no_words, F.photo | F.sticker | F.voice | F.video | F.video_note | F.audio | F.document)
    made.message.register(no_words, F.animation | F.location | F.venue | F.contact | F.poll | F.dice | F.story)
    made.callback_query.register(too_old)
    return made


def start_parameter(event: Message | CallbackQuery) -> str:
    """What the link behind /start carried; empty when this is none."""
    words = event.text.split() if isinstance(event, Message) and event.text else []
    is_start = len(words) == 2 and words[0].lower().partition("@")[0] == "/start"
    return words[1] if is_start else ""


async def start(message: Message, visit: Visit) -> Reply:
    parameter = start_parameter(message)
    if parameter.startswith(OFFER):
        return await buying.show(visit, parameter.removeprefix(OFFER))
    name = prose.one_line(visit.name)
    return visit.say("start", name=f", {name}" if name else "", buttons=[[visit.shop_button()]])


async def list_orders(message: Message, visit: Visit) -> Reply:
    """The last orders; those that have goods, or can be paid, with a button."""
    found = await orders.newest(visit.shop.deps.pg, visit.opened.user_id, before=sys.maxsize, size=SHOWN)
    told = [(one.number, one.status, str(Money(one.total_minor, one.currency))) for one in found]
    rows = [[button] for one in found if (button := _button(visit, one))]
    return Reply(sayings.orders(visit.language, told), rows)


def _button(visit: Visit, order: Order) -> Button | None:
    if order.status in HANDED:
        return Button(label(visit.words("goods_again", number=order.number)), data=f"{GOODS}{order.id}")
    if order.status == "pending" and order.payment_status == "open" and order.payment_url:
        amount = Money(order.payment_minor or order.total_minor, order.currency)
        return Button(label(visit.words("pay_order", number=order.number, amount=amount)), url=order.payment_url)
    return None


async def send_goods(query: CallbackQuery, visit: Visit) -> Reply:
    """The goods of one's own order once more."""
    deps, user_id = visit.shop.deps, visit.opened.user_id
    order_id = parse_id((query.data or "").removeprefix(GOODS))
    order = await orders.get(deps.pg, order_id, user_id) if order_id else None
    if order is None or order_id is None:
        return visit.say("no_order")
    opened = await goods.read(deps.pg, deps.sealer, order_id, user_id) if deps.sealer else None
    if not opened or not opened[0]:
        return visit.say("goods_none", number=order.number)
    head = visit.words("goods_head", number=order.number)
    text = "\n\n".join([head, *(f"{prose.one_line(good.title, 200)}\n{good.content}" for good in opened[0])])
    if prose.units(text) > MAX_LENGTH:  # a key cut in two is none
        return visit.say("goods_in_app", number=order.number, buttons=[[visit.shop_button()]])
    return Reply(text)


async def ask_language(message: Message, visit: Visit) -> Reply:
    choices = [[Button(name, data=f"{SPEAK}{code}")] for code, name in texts.NAMES.items()]
    return visit.say("choose_language", buttons=choices)


async def choose_language(query: CallbackQuery, visit: Visit) -> Reply:
    code = (query.data or "").removeprefix(SPEAK)
    if code not in texts.NAMES:
        return visit.say("pressed_old")
    await customers.choose_language(visit.shop.deps.pg, visit.opened.user_id, code)
    return Reply(texts.say(code, "language_chosen"), instead=True)


async def support(message: Message, visit: Visit) -> Reply | None:
    """A human has the conversation from now on."""
    heard = msgspec.structs.replace(visit.heard, text="/support", raw="")
    said = await call_human(visit.shop, visit.opened, visit.turn_id, heard, visit.words("support"))
    return Reply(said, claimed=True) if said else None


async def tell_help(message: Message, visit: Visit) -> Reply:
    more = visit.words("help_admin") if visit.is_admin else ""
    return Reply(visit.words("help") + more, [[visit.shop_button()]])


async def unknown(message: Message, visit: Visit) -> Reply:
    return visit.say("unknown")


async def no_words(message: Message, visit: Visit) -> Reply | None:
    """One answer, also to an album, which comes as a message for each of its pictures."""
    if await has_one(visit.shop, visit.opened):
        return None  # it is not for the machine
    album = (message.media_group_id or "").encode()
    claim = derived_id(b"album", visit.opened.peer.encode(), album) if album else None
    return Reply(visit.words("only_words"), claim=claim)


async def too_old(query: CallbackQuery, visit: Visit) -> Reply:
    return visit.say("pressed_old")
