"""A line: how a reply reaches whoever wrote, whatever carries it (Telegram, WhatsApp; the Mini App reads a stream)."""

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

import msgspec

from app.infra.messenger import Sent


class Offer(msgspec.Struct, frozen=True):
    """Something that can be bought now, at this price; the token proves it to the checkout for a while."""

    product_id: int
    title: str
    quantity: int
    price_minor: int  # for all of them
    currency: str
    token: str  # URL-safe, at most 56 characters, so that it fits a button's data


class Draft(Protocol):
    """A reply that is being written, as its reader sees it grow, and at last the reply itself."""

    def show(self, text: str) -> None:
        """The reply so far; called whenever it grows, shown as often as the channel allows. Never waits or raises."""
        ...

    async def finish(self, language: str, text: str, offers: Sequence[Offer] = ()) -> Sent:
        """The reply, as `Line.say` says it, in the place of what was shown. Called again only when it was surely not
        sent. Raises: ProviderDown."""
        ...

    async def close(self) -> None:
        """Nothing more is shown; also after `finish`, and for a reply that is not to be sent. Never raises."""
        ...


class Unseen:
    """The draft of a line that shows nothing of a reply until it is whole."""

    def __init__(self, line: "Line", peer: str) -> None:
        self._line, self._peer = line, peer

    def show(self, text: str) -> None: ...

    async def finish(self, language: str, text: str, offers: Sequence[Offer] = ()) -> Sent:
        return await self._line.say(self._peer, language, text, offers)

    async def close(self) -> None: ...


class Line(Protocol):
    """One channel's way out. Sends are tried once: `ProviderDown.unsure` says whether one may have arrived."""

    async def say(self, peer: str, language: str, text: str, offers: Sequence[Offer] = ()) -> Sent:
        """The text in that chat, with a button for each offer. Raises: ProviderDown."""
        ...

    def draft(self, peer: str, turn_id: UUID) -> Draft:
        """Where this turn's reply is shown while it is written, and then said."""
        ...
