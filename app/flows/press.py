"""Press: what a WhatsApp user sends that is no words: a pay button becomes an order and its link, a picture an answer.

The order comes first, and is the same whoever takes the press up again (the offer's token is its key); then the one
reply is claimed, and sent. Dies in between: the claim tells the next worker that it may be on its way, and nothing is
said twice.
"""

import structlog
from msgspec import DecodeError, Struct
from msgspec.json import Decoder

from app.base import clock
from app.base.ending import to_the_end
from app.base.money import Money
from app.channels.line import Line
from app.channels.whatsapp import texts
from app.channels.whatsapp.line import PAY
from app.domain import conversations
from app.domain.buffers import Batch
from app.domain.conversations import Opened
from app.domain.orders import Order
from app.errors import BadOffer, Conflict, InProgress, NotFound, OutOfStock, Problem, ProviderDown, TooManyPending
from app.flows import checkout
from app.flows.call_human import has_one
from app.infra.messenger import Sent
from app.shop import Shop

log = structlog.get_logger(__name__)

# No answer is expected to these: a thumb, a number that has moved, what this release of Meta's cannot show.
SILENT = frozenset({"reaction", "system", "unsupported", "errors", "request_welcome", "ephemeral"})


class ButtonReply(Struct, frozen=True):
    id: str


class Interactive(Struct, frozen=True):
    button_reply: ButtonReply | None = None


class Message(Struct, frozen=True):
    """What a message that is no words may be."""

    type: str = ""
    interactive: Interactive | None = None


_message = Decoder(Message)


async def press(shop: Shop, batch: Batch) -> None:
    """The batch's one message is done, once, and answered at most once.

    Raises: PostgresDown; ProviderDown when nothing was sent, and the batch should come again.
    """
    line, heard = shop.lines.get("whatsapp"), batch.heard[0]
    told = {"name": heard.name, "username": heard.username, "language": heard.language}
    opened = await conversations.open(shop.deps.pg, batch.channel_id, batch.peer, at_s=heard.at_s, **told)
    if line is None or opened is None:
        log.warning("nobody answers here", channel_id=batch.channel_id, turn_id=str(batch.id))
        return
    text = await _answer(shop, opened, heard.raw)
    if not text or not await conversations.claim_send(shop.deps.pg, batch.id, opened.id):
        log.info("nothing to say, or said before", conversation_id=opened.id, turn_id=str(batch.id))
        return
    await to_the_end(_say(shop, line, batch, opened, text))


async def _say(shop: Shop, line: Line, batch: Batch, opened: Opened, text: str) -> None:
    """The claimed answer leaves, once at most. Raises: ProviderDown when it surely did not: the claim is given up."""
    facts = {"conversation_id": opened.id, "turn_id": str(batch.id)}
    try:
        sent = await line.say(batch.peer, opened.language, text)
    except ProviderDown as error:
        if error.unsure:  # a doubled answer is worse than a lost one (B2)
            log.warning("whether the answer arrived is unknown", error=str(error), **facts)
            return
        await conversations.release(shop.deps.pg, batch.id)
        raise
    if sent is Sent.DELIVERED:
        await conversations.mark_sent(shop.deps.pg, batch.id)
    else:
        log.warning("answer not sent", outcome=sent.name, **facts)


async def _answer(shop: Shop, opened: Opened, raw: str) -> str:
    """What is said to it; empty: nothing. Raises: PostgresDown."""
    try:
        message = _message.decode(raw)
    except DecodeError:
        message = Message()
    pressed = message.interactive and message.interactive.button_reply
    if pressed and pressed.id.startswith(PAY):
        return await _pay(shop, opened, pressed.id.removeprefix(PAY))
    if message.type in SILENT or await has_one(shop, opened):  # then it is not for the machine
        return ""
    return texts.said("only_words", opened.language)


async def _pay(shop: Shop, opened: Opened, token: str) -> str:
    """The order's link, or why there is none."""
    offered = shop.deps.offers and shop.deps.offers.read(token)
    names = [n for n, by in shop.gateways.items() if offered and offered.currency in by.traits.currencies]
    if offered and not names:
        log.warning("no gateway takes what was offered", currency=offered.currency)
        return texts.said("no_gateway", opened.language)
    word = "stale"
    for name in names:
        try:
            placed = await checkout.accept_offer(shop, opened.user_id, token, name)
        except ProviderDown as error:
            # The order stands, if there is one: another gateway may take it, and so does another press.
            log.warning("no link for a WhatsApp order", gateway=name, error=str(error), conversation_id=opened.id)
            word = "not_now"
        except Problem as refusal:
            return texts.said(_why(refusal), opened.language)
        else:
            return _link(placed.order, opened.language)
    return texts.said(word, opened.language)


def _link(order: Order, language: str) -> str:
    minutes = int((order.expires_at - clock.now()).total_seconds() // 60)
    open_ = order.status == "pending" and order.payment_status == "open" and order.payment_url
    total = str(Money(order.total_minor, order.currency))
    return texts.links(
        language, order.number, total, minutes, [order.payment_url] if open_ and order.payment_url else []
    )


def _why(refusal: Problem) -> str:
    """Raises: the refusal itself when it may not be one another time."""
    match refusal:
        case BadOffer() | NotFound():
            return "stale"
        case OutOfStock():
            return "sold_out"
        case TooManyPending():
            return "too_many"
        case Conflict() if not isinstance(
            refusal, InProgress
        ):  # the price has changed, the order is too old to be paid
            return "stale"
    raise refusal
