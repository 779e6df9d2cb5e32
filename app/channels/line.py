"""A line: how a reply reaches whoever wrote, whatever carries it (Telegram, WhatsApp; the Mini App reads a stream)."""

from collections.abc import Sequence
from typing import Protocol

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
    """A reply that is being written, as its reader sees it grow. Nothing here raises: the finished reply counts."""

    async def show(self, text: str) -> None:
        """The reply so far; called as often as it grows, shown as often as the channel allows."""
        ...

    async def close(self) -> None: ...


class Line(Protocol):
    """One channel's way out. Sends are tried once: whether an unanswered one arrived cannot be known."""

    async def say(self, peer: str, language: str, text: str, offers: Sequence[Offer] = ()) -> Sent:
        """The text in that chat, with a button for each offer. Raises: ProviderDown."""
        ...

    def draft(self, peer: str) -> Draft: ...
