"""Consult: an answer to what a buyer asks, by a model with tools that are bound to that buyer, or by plain search.

The model answers within `model_timeout_ms` or not at all: no model, its circuit open, silence, a stream that breaks off
or nonsense, and the plain consultant answers from the catalog and live stock. What the model says is worth 0.9 when the
shop's tools told it something, 0.6 when it speaks from the prompt alone; the rules of plain answers are theirs.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import msgspec
import structlog

from app.channels import sayings
from app.channels.line import Offer
from app.domain.circuits import MODEL
from app.domain.conversations import Said
from app.errors import ProviderDown
from app.flows import tools
from app.flows.answer_plainly import Plain, answer_plainly
from app.flows.instruct import instruct
from app.infra.llm import Call, Message, Model
from app.shop import Shop

log = structlog.get_logger(__name__)

ROUNDS = 5  # in which tools may be used, before the model has to speak
MOST_CALLS = 8  # of one round
LONGEST = 4000  # characters of an answer; what is longer is no answer to a buyer

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


class Nonsense(Exception):
    """The model answered, and not in a way that could be told to a buyer."""


class Talk(msgspec.Struct):
    """What has come of one question so far."""

    messages: list[Message]
    text: str = ""  # that was shown
    offers: dict[int, Offer] = {}  # by product: the newest counts
    facts: bool = False
    hand_over: bool = False


async def consult(shop: Shop, question: Question, show: Show) -> Answer:
    """An answer, whatever is down but Postgres; `show` gets each new piece of its text as soon as it is there.

    What was shown is the answer's text, unless the model broke off: then nothing more is shown, and it is another one.

    Raises: PostgresDown.
    """
    talk = Talk([])
    if shop.deps.model is not None:
        try:
            return await _by_model(shop, shop.deps.model, question, show, talk)
        except (ProviderDown, Nonsense, TimeoutError) as error:
            log.warning(
                "the model gave no answer, plain search does", conversation_id=question.conversation_id,
                error=str(error) or "too late",
            )  # fmt: skip
    if talk.hand_over:  # that much was understood
        plain = Plain(sayings.human(question.language), 0.9, hand_over=True)
    else:
        plain = await answer_plainly(shop, question.user_id, question.language, question.text)
    if not talk.text:
        await show(plain.text)
    return Answer(plain.text, "search", plain.quality, plain.offers, plain.hand_over)


async def _by_model(shop: Shop, model: Model, question: Question, show: Show, talk: Talk) -> Answer:
    """The model's answer. Raises: ProviderDown, Nonsense, TimeoutError."""
    by_s = asyncio.get_running_loop().time() + shop.deps.settings.model_timeout_ms / 1000
    async with asyncio.timeout_at(by_s):
        talk.messages.append(Message("system", await instruct(shop, question.language)))
    talk.messages += [*_told(question.history), Message("user", question.text)]
    use = tools.bound(shop, question.user_id)
    for turn in range(ROUNDS + 1):
        may_call = turn < ROUNDS
        text, calls = await _listen(shop, model, talk, show, by_s, may_call=may_call)
        if not calls:
            break
        if not may_call:
            raise Nonsense("it goes on calling tools")
        async with asyncio.timeout_at(by_s):
            await _use(use, talk, text, calls, parallel=shop.deps.settings.parallel)
    if not talk.text.strip():
        raise Nonsense("it said nothing")
    return Answer(talk.text, "model", 0.9 if talk.facts else 0.6, list(talk.offers.values()), talk.hand_over)


async def _listen(
    shop: Shop, model: Model, talk: Talk, show: Show, by_s: float, *, may_call: bool
) -> tuple[str, list[Call]]:
    """What the model says and wants done; each piece is shown at once. Raises: ProviderDown, Nonsense."""
    said, calls = "", []
    async with shop.circuits.calling(MODEL):
        try:
            # Inside: who is too late has failed. Outside, the circuit would only see that somebody lost patience.
            async with (
                asyncio.timeout_at(by_s),
                aclosing(model.answer(talk.messages, tools.TOOLS, may_call=may_call)) as pieces,
            ):
                async for piece in pieces:
                    if isinstance(piece, Call):
                        calls.append(piece)
                        continue
                    new = f"\n\n{piece.text}" if talk.text and not said else piece.text
                    if len(talk.text) + len(new) > LONGEST:
                        break
                    said, talk.text = said + piece.text, talk.text + new
                    await show(new)
                else:
                    return said, calls
        except TimeoutError:
            raise ProviderDown("the model took too long") from None
    raise Nonsense("it does not stop talking")


async def _use(use: tools.Use, talk: Talk, text: str, calls: list[Call], *, parallel: bool) -> None:
    """The tools are used, side by side or in turn, and the model is told what they came to. Raises: PostgresDown."""
    calls = calls[:MOST_CALLS]
    done = await asyncio.gather(*(use(call) for call in calls)) if parallel else [await use(call) for call in calls]
    talk.messages.append(Message("assistant", text, calls))
    for call, result in zip(calls, done, strict=True):
        talk.messages.append(Message("tool", result.text(), call_id=call.id))
        talk.facts = talk.facts or result.fact
        talk.hand_over = talk.hand_over or result.hand_over
        if result.offer:
            talk.offers[result.offer.product_id] = result.offer


def _told(history: list[Said]) -> list[Message]:
    """What was said before, as the model knows it: a human of the shop spoke for it."""
    return [
        Message("user" if said.role == "user" else "assistant", said.text)
        for said in history
        if said.role in ("user", "assistant", "agent")
    ]
