"""The Mini App's line: a message is there once it is stored, so all that is sent is a hint to look."""

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import structlog

from app.channels.line import Offer, Unseen
from app.errors import RedisDown
from app.infra.messenger import Sent

log = structlog.get_logger(__name__)

Hint = Callable[[int], Awaitable[object]]


class AppLine:
    """As `app.channels.line.Line`; `hint` tells a user's open pages that there is something new in their chat."""

    def __init__(self, hint: Hint) -> None:
        self._hint = hint

    async def say(self, peer: str, language: str, text: str, offers: Sequence[Offer] = ()) -> Sent:
        try:
            await self._hint(int(peer))
        except RedisDown as error:
            log.warning("a page is not told of a message and sees it when it looks", user_id=peer, error=str(error))
        return Sent.DELIVERED

    def draft(self, peer: str, turn_id: UUID) -> Unseen:
        """Who asked by `POST /api/chat` reads a stream of their own."""
        return Unseen(self, peer)
