"""Consult: an answer to what a buyer asks, by a model with tools that are bound to that buyer, or by plain search."""

from collections.abc import Awaitable, Callable

import msgspec

from app.channels.line import Offer
from app.domain.conversations import Said
from app.shop import Shop

Show = Callable[[str], Awaitable[None]]


class Question(msgspec.Struct, frozen=True):
    """What is asked, by whom, after what was said before."""

    conversation_id: int
    user_id: int
    language: str  # as the channel has it: ru, pt-br
    text: str
    history: list[Said]  # the oldest first, without the question


class Answer(msgspec.Struct, frozen=True):
    """The whole reply. `quality`: how much it is worth, 0 to 1; below 0.4 it is weak."""

    text: str
    by: str  # model, search
    quality: float
    offers: list[Offer]
    hand_over: bool  # the buyer wants, or needs, a human


async def consult(shop: Shop, question: Question, show: Show) -> Answer:
    """An answer, whatever is down but Postgres; `show` gets each new piece of its text as soon as it is there.

    Raises: PostgresDown.
    """
    raise NotImplementedError
