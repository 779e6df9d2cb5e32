"""Converse: a batch of messages is stored, answered and told on, in the order of E2.

Open the conversation → five reads at once → the answer, while the messages are being stored → one statement that
decides the turn: reply, offers that hold, claim for sending, webhook and alert owed → send. It is decided once, and
sent once at most: whoever finds the reply claimed sends nothing, a doubled answer being worse than a lost one (B2),
and the reply is in the history. Dies before the decision: the same turn comes again and is answered. Dies after it:
nothing more is said.
"""

import asyncio
import time
from uuid import UUID

import msgspec
import structlog

from app.base import clock, tally
from app.base.ending import to_the_end
from app.base.together import Read, together
from app.channels import sayings, team
from app.channels.line import Draft, Offer
from app.domain import agents, conversations, escalation, talks
from app.domain.buffers import Batch, Heard
from app.domain.conversations import Opened, Said
from app.domain.talks import Decision, Judged, Known
from app.errors import NotFound, ProviderDown
from app.flows import consult
from app.flows.consult import Show
from app.flows.settle import ring
from app.infra.messenger import Sent
from app.shop import Shop

log = structlog.get_logger(__name__)

_offers = msgspec.json.Decoder(list[Offer])

UNREAD = talks.Escalation()  # nobody could say whether a human has the conversation


class Turn(msgspec.Struct, frozen=True):
    """What is answered together. Its id is the same again when it is taken up again: it has one answer."""

    id: UUID
    heard: list[Heard]  # words only, in the order in which they came


class Reply(msgspec.Struct, frozen=True):
    """What became of a turn. Only who is told `mine` may send it, and then says `conversations.mark_sent`."""

    state: str  # answered, escalated, silent (a human has it), duplicate
    text: str  # empty: there is nothing to say
    offers: list[Offer]  # those that hold at this moment
    by: str  # model, search, texts; empty when nothing is said
    mine: bool  # False: another call has shown it, or may have


class Seen(msgspec.Struct, frozen=True):
    """What was read before a turn is answered."""

    known: Known
    history: list[Said]
    settings: talks.Settings
    escalation: talks.Escalation
    interactions: talks.Interactions


async def converse(shop: Shop, batch: Batch) -> None:
    """Every message of the batch has had its answer, and none a second one.

    `batch.id` names the turn: who cuts a batch into runs gives each run an id of its own, the same again every time.
    Raises: PostgresDown; ProviderDown when nothing was sent, and the batch should come again.
    """
    heard = [clean for one in batch.heard if (clean := _clean(one)).text.strip()]
    if not heard:
        return
    name, username, language = (
        next((value for one in reversed(heard) if (value := getattr(one, field))), "")
        for field in ("name", "username", "language")
    )
    pg = shop.deps.pg
    opened = await conversations.open(
        pg, batch.channel_id, batch.peer, name=name, username=username, language=language,
        at_s=max(one.at_s for one in heard),
    )  # fmt: skip
    if opened is None:
        log.warning("nobody is answered here: the channel is switched off", channel_id=batch.channel_id)
        return
    line = shop.lines.get(opened.kind)
    if line is None:
        raise NotFound(f"nothing can be said by {opened.kind}: its settings are missing")
    draft = line.draft(opened.peer, batch.id)
    try:
        reply = await talk(shop, opened, Turn(batch.id, heard), _growing(draft))
        if reply.mine and reply.text:
            await to_the_end(_send(shop, draft, opened, batch.id, reply))
    finally:
        await draft.close()


async def talk(shop: Shop, opened: Opened, turn: Turn, show: Show) -> Reply:
    """The turn is decided, once; `show` gets each new piece of the consultant's words while they are being written.

    Raises: PostgresDown, also when nobody can say whether this was heard before: nothing was answered.
    """
    started = time.monotonic()
    turn = Turn(turn.id, [_clean(one) for one in turn.heard])
    seen, reply = await _read(shop, opened, turn), None
    while reply is None and seen.known.state in (None, "open"):
        reply = await _answer(shop, opened, turn, seen, show)
        if reply is None:  # somebody else has decided it, or handed the conversation back, meanwhile
            seen = await _read(shop, opened, turn)
    reply = reply or await _again(shop, turn, seen.known)
    tally.TURNS.add(opened.kind, reply.state, reply.by)
    tally.TURN_SECONDS.of(reply.by).observe(time.monotonic() - started)
    log.info("turn", conversation_id=opened.id, turn_id=str(turn.id), state=reply.state, by=reply.by, mine=reply.mine)
    return reply


def _known(shop: Shop, opened: Opened, turn: Turn) -> Read[Known]:
    ids = [one.external_id for one in turn.heard if one.external_id]
    return Read("duplicates", lambda: shop.reads.known.do((turn.id, opened.id, ids)))


async def _read(shop: Shop, opened: Opened, turn: Turn) -> Seen:
    """What E2 wants known; without the first, who could say what was answered? So it fails closed."""
    reads = shop.reads
    known, history, settings, escalated, interactions = await together(
        _known(shop, opened, turn),
        Read("history", lambda: reads.history.do((turn.id, opened.id)), talks.History([], [], [])),
        Read("settings", lambda: reads.settings.do(opened.channel_id), talks.Settings()),
        Read("escalation", lambda: reads.escalation.do(opened.id), UNREAD),
        Read("interactions", lambda: reads.interactions.do((turn.id, opened.id)), talks.Interactions()),
        parallel=shop.deps.settings.parallel,
    )
    lines = [Said(*line) for line in zip(history.roles, history.texts, history.ats, strict=True)]
    return Seen(known, conversations.budgeted(lines), settings, escalated, interactions)


async def _answer(shop: Shop, opened: Opened, turn: Turn, seen: Seen, show: Show) -> Reply | None:
    """The turn's first answer; None when another call was first."""
    judged = talks.judge(turn.heard, seen.known)
    question = "\n".join(one.text for one in judged.new or judged.fresh)
    why = None if seen.escalation.at or not judged.fresh else _reason(seen, question)
    if not judged.new and not why:
        await conversations.repeated(shop.deps.pg, turn.id, opened.id, question)
        return Reply("duplicate", "", [], "", mine=True)
    decision = await _decision(shop, opened, turn, seen, (judged, question, why), show)
    if decision is None:
        await talks.drop(shop.deps.pg, turn.id)
        return Reply("duplicate", "", [], "", mine=True)
    closed = await talks.close(shop.deps.pg, turn.id, opened.id, decision)
    if closed is None:
        return None
    for outbox_id in closed.owed:
        shop.errands.send(ring(shop, outbox_id))
    if closed.state == "escalated":
        tally.ESCALATIONS.add(decision.reason)
    return Reply(closed.state, closed.answer, _offers.decode(closed.offers), closed.by, mine=True)


def _reason(seen: Seen, question: str) -> escalation.Reason | None:
    rules = escalation.Rules(seen.settings.enabled, seen.settings.threshold, seen.settings.keywords)
    return escalation.reason(rules, escalation.Talk(question, seen.interactions.questions, seen.interactions.qualities))


async def _decision(
    shop: Shop, opened: Opened, turn: Turn, seen: Seen, asked: tuple[Judged, str, escalation.Reason | None], show: Show
) -> Decision | None:
    """What should become of the turn, whose messages are stored by then; None: they are all another's by now."""
    (judged, question, why), review, pg = asked, team.review(opened.language), shop.deps.pg
    store = Read("store", lambda: talks.store(pg, turn.id, opened.id, question, judged.new))
    if seen.escalation.at or why:
        (stored,) = await together(store)
        if judged.new and not stored and await _is_anothers(shop, opened, turn):
            return None
        if seen.escalation.at:
            return Decision("silent", "", "texts", review)
        return Decision("escalated", sayings.human(opened.language), "texts", review, str(why))
    ask = consult.Question(opened.id, opened.user_id, opened.language, question, seen.history)
    seen_by = _unseen if seen.escalation is UNREAD else show  # the statement that decides knows
    answered = Read("answer", lambda: consult.consult(shop, ask, seen_by))
    stored, answer = await together(store, answered, parallel=shop.deps.settings.parallel)
    if not stored and await _is_anothers(shop, opened, turn):
        return None
    human = answer.hand_over and seen.settings.enabled
    text = answer.text if human or not answer.hand_over else sayings.nobody(opened.language)  # it promises one
    return Decision(
        "escalated" if human else "answered", text.replace("\0", ""), answer.by, review,
        "user_request" if human else "", answer.quality, msgspec.json.encode(answer.offers).decode(),
        team.gone(opened.language),
    )  # fmt: skip


async def _is_anothers(shop: Shop, opened: Opened, turn: Turn) -> bool:
    """Whether another turn, which did not know of this one either, has the messages: it answers them."""
    (known,) = await together(_known(shop, opened, turn))
    return not talks.judge(turn.heard, known).fresh


async def _again(shop: Shop, turn: Turn, known: Known) -> Reply:
    """What was decided before, and whether this call may say it: only if nobody else has, or may have."""
    claimed = await conversations.claim_reply(shop.deps.pg, turn.id)
    if claimed:
        offers = [one for one in _offers.decode(claimed.offers) if not _has_ended(shop, one)]
        return Reply(claimed.state, claimed.answer, offers, claimed.by, mine=True)
    if known.answer and not known.sent:
        tally.REPLIES.add("unsure")
        log.warning("not sent again: nobody knows whether it was", turn_id=str(turn.id))
    return Reply(known.state or "open", known.answer, [], known.by, mine=False)


def _has_ended(shop: Shop, offer: Offer) -> bool:
    offered = shop.deps.offers and shop.deps.offers.read(offer.token)
    return bool(offered and offered.expires_s <= clock.unix_s())


async def _send(shop: Shop, draft: Draft, opened: Opened, turn_id: UUID, reply: Reply) -> None:
    """The claimed reply leaves, once at most. Raises: ProviderDown when it surely did not: the claim is given up."""
    try:
        sent = await draft.finish(opened.language, reply.text, reply.offers)
    except ProviderDown as error:
        if not error.unsure:
            await asyncio.shield(conversations.release(shop.deps.pg, turn_id))
            tally.REPLIES.add("held")
            raise
        tally.REPLIES.add("unsure")
        log.warning("nobody knows whether it was sent", turn_id=str(turn_id), error=str(error))
        return
    tally.REPLIES.add(sent.name.lower())
    if sent is Sent.DELIVERED:
        shop.errands.send(conversations.mark_sent(shop.deps.pg, turn_id))
    else:
        log.warning("not sent", turn_id=str(turn_id), outcome=sent.name)


def _growing(draft: Draft) -> Show:
    """Shows the whole text so far, whenever a piece is added."""
    pieces: list[str] = []

    async def show(piece: str) -> None:
        pieces.append(piece)
        draft.show("".join(pieces))

    return show


async def _unseen(piece: str) -> None:
    """Nothing is shown before it is decided."""


def _clean(heard: Heard) -> Heard:
    """Without what Postgres text cannot hold."""
    return msgspec.structs.replace(
        heard, text=heard.text.replace("\0", ""), name=heard.name.replace("\0", ""),
        username=heard.username.replace("\0", ""), external_id=heard.external_id.replace("\0", "")[:200],
    )  # fmt: skip


async def hand_back(shop: Shop, user_id: int, conversation_id: int) -> bool:
    """The machine answers there again, on record; False when no human had it, or this user is no admin."""
    handed = await agents.hand_back(shop.deps.pg, user_id, conversation_id)
    if handed:
        log.info("handed back", conversation_id=conversation_id, user_id=user_id)
    return handed
