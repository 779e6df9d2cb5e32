"""WhatsApp's line: replies as texts of at most 4096 characters, offers as at most three buttons, inside the window.

Meta delivers free text only to who has written within the last 24 hours. The window is looked at before a send; a
process remembers until when it is open, because what a user writes only ever keeps it open for longer.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

import msgspec
import structlog

from app.base import clock, prose, tally
from app.base.money import Money
from app.channels.line import Offer, Unseen
from app.channels.whatsapp import texts
from app.errors import PostgresDown, ProviderDown
from app.infra.messenger import Sent
from app.infra.whatsapp import MAX_BODY, MAX_BUTTONS, MAX_TEXT, MAX_TITLE, Button

log = structlog.get_logger(__name__)

PAY = "pay:"  # before an offer's token, in a button's id
WINDOW = timedelta(hours=24)
MARGIN = timedelta(minutes=1)  # Meta's clock, and the way there
REMEMBERED = 10_000  # users
LONGEST_TITLE = 120


class Phone(Protocol):
    """What sends: `app.infra.whatsapp.WhatsApp`."""

    async def text(self, to: str, text: str) -> Sent: ...

    async def ask(self, to: str, text: str, buttons: Sequence[Button]) -> Sent: ...


class Part(msgspec.Struct, frozen=True):
    """One message of a reply."""

    text: str
    buttons: list[Button] = []


def open_until(heard_at: datetime | None) -> datetime | None:
    """Until when somebody who wrote then can be written to; None: not at all."""
    return heard_at + WINDOW - MARGIN if heard_at else None


def is_open(heard_at: datetime | None, now: datetime) -> bool:
    until = open_until(heard_at)
    return until is not None and now < until


class WhatsAppLine:
    """The shop's phone number as `app.channels.line.Line`.

    `heard` tells when a user last wrote; `reopened` is told when one can be written to, as far as this process knows
    for the first time in a day; `calling` counts how calls go.
    """

    def __init__(
        self,
        phone: Phone,
        *,
        heard: Callable[[str], Awaitable[datetime | None]],
        reopened: Callable[[str], object],
        calling: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        self.phone, self.heard, self.reopened, self.calling = phone, heard, reopened, calling
        self._until: dict[str, datetime] = {}

    async def say(self, peer: str, language: str, text: str, offers: Sequence[Offer] = ()) -> Sent:
        """The reply in one message, or several when it is long; REFUSED, and nothing sent, outside the window."""
        if not await self._open(peer):
            tally.WHATSAPP.add("window")
            log.warning("not sent: outside WhatsApp's window of 24 hours")
            return Sent.REFUSED
        sent, begun = Sent.REFUSED, False
        for part in written(language, text, offers):
            try:
                sent = await self._send(peer, part)
            except ProviderDown as error:
                error.unsure |= begun  # what came before it is there
                raise
            if sent is not Sent.DELIVERED:
                return sent
            begun = True
        return sent

    def draft(self, peer: str, turn_id: UUID) -> Unseen:
        return Unseen(self, peer)

    async def _open(self, peer: str) -> bool:
        now, until = clock.now(), self._until.get(peer)
        if until is None or now >= until:
            try:
                until = open_until(await self.heard(peer))
            except PostgresDown:  # nothing has left: the claim is given up
                raise ProviderDown("nobody can say whether the window is open") from None
            if until is None or now >= until:
                return False
            if len(self._until) >= REMEMBERED:
                self._until.clear()
            self._until[peer] = until
            self.reopened(peer)
        return True

    async def _send(self, peer: str, part: Part) -> Sent:
        asked = None
        async with self.calling():
            try:
                if part.buttons:
                    sent = await self.phone.ask(peer, part.text, part.buttons)
                else:
                    sent = await self.phone.text(peer, part.text)
            except ProviderDown as error:
                tally.WHATSAPP.add("failed" if error.retry_after_s is None else "paced")
                if error.retry_after_s is None:
                    raise
                asked = error  # it answered: nothing for the circuit
        if asked:
            raise asked
        tally.WHATSAPP.add(sent.name.lower())
        return sent


def written(language: str, text: str, offers: Sequence[Offer] = ()) -> list[Part]:
    """The reply as messages that WhatsApp takes: those with buttons are short, and come last."""
    shown, rest = offers[:MAX_BUTTONS], offers[MAX_BUTTONS:]
    if rest:
        text = "\n".join([text, "", texts.more(language), *(_line(one) for one in rest)])
    if not shown:
        return _parts(text)
    alone = len(shown) == 1
    numbered = "" if alone else "\n".join(f"{n}. {_line(one)}" for n, one in enumerate(shown, 1))
    buttons = [Button(PAY + one.token, _title(language, None if alone else n, one)) for n, one in enumerate(shown, 1)]
    whole = "\n\n".join(filter(None, (text.strip(), numbered))) or _line(shown[0])
    if len(whole) <= MAX_BODY:
        return [Part(whole, buttons)]
    body = "\n".join([texts.choose(language), numbered or _line(shown[0])])
    return [*_parts(text), Part(body, buttons)]


def _parts(text: str) -> list[Part]:
    return [Part(piece) for piece in prose.pieces(text, MAX_TEXT) if piece]


def _line(offer: Offer) -> str:
    amount = f"{offer.quantity} x " if offer.quantity > 1 else ""
    return f"{amount}{prose.one_line(offer.title, LONGEST_TITLE)}: {Money(offer.price_minor, offer.currency)}"


def _title(language: str, n: int | None, offer: Offer) -> str:
    """A button's words: its price is never cut in two, and no two are the same."""
    price = str(Money(offer.price_minor, offer.currency))
    tried = (texts.pay(language, price), price) if n is None else (texts.pay_one(language, n, price), f"{n}: {price}")
    return next((title for title in tried if len(title) <= MAX_TITLE), str(n) if n else texts.pay(language, "").strip())
