"""Confirm: an address gets a buyer's news once its owner has said so by a link that was sent there, and nothing before.

One statement takes the address down and owes the mail with the link; one takes the link's word. The link asks with a
page and a button, because programs that guard mailboxes open every link that they find.
"""

import hashlib
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from app.base import clock, mailbox
from app.domain import email, limits
from app.errors import Malformed, NotFound, TooManyRequests
from app.flows import mail
from app.infra.sql import Postgres
from app.shop import Shop

log = structlog.get_logger(__name__)

NOBODY = email.Addresses(None, None)

Answer = Callable[[Postgres, int, str], Awaitable[email.Reader | None]]


class Heard(msgspec.Struct, frozen=True):
    """What a link says, and in which language to answer; `good` while it may be, or has been, confirmed."""

    good: bool
    address: str
    language: str


FORGED = Heard(False, "", "en")


async def known(shop: Shop, user_id: int) -> email.Addresses:
    """Where this user's news go by mail."""
    return await email.get(shop.deps.pg, user_id)


async def ask(shop: Shop, user_id: int, text: str) -> email.Addresses:
    """The address waits for its owner's word, and has a mail that asks for it; nothing is new if it was given before.

    Raises: Malformed; NotFound when e-mail is off; TooManyRequests when the user asked, or the address was written
    to, too often; RedisDown when nobody can tell.
    """
    mail.on(shop)
    try:
        address = mailbox.parse(text)
    except mailbox.BadMailbox as error:
        raise Malformed(f"email: {error}") from None
    if (await known(shop, user_id)).email != address:
        await _weigh(shop, user_id, address)
    asked = await email.ask(shop.deps.pg, user_id, address, clock.unix_s() + mail.LINK_LIFE_S)
    if asked is None:
        raise NotFound("no such user")
    if asked.outbox_id is not None:
        await mail.ring(shop, asked.outbox_id)
    return email.Addresses(asked.email, asked.email_asked)


async def forget(shop: Shop, user_id: int) -> email.Addresses:
    """No mail any more; links that are under way are good for nothing."""
    await email.forget(shop.deps.pg, user_id)
    return NOBODY


async def look(shop: Shop, token: str) -> Heard:
    """What the link asks; nothing changes."""
    return await _heard(shop, token, email.asking)


async def confirm(shop: Shop, token: str) -> Heard:
    """News go to the link's address from now on, if it is good; again is nothing."""
    heard = await _heard(shop, token, email.confirm)
    if heard.good:
        log.info("e-mail address confirmed")
    return heard


async def _heard(shop: Shop, token: str, answer: Answer) -> Heard:
    confirmations = shop.deps.confirmations
    told = confirmations.read(token) if confirmations else None
    if told is None:
        return FORGED
    fresh = told.expires_s > clock.unix_s()
    reader = await (answer if fresh else email.asking)(shop.deps.pg, told.user_id, told.address)
    return Heard(fresh and reader.good, told.address, reader.language) if reader else FORGED


async def _weigh(shop: Shop, user_id: int, address: str) -> None:
    """Here, not before the handler: to forget an address is always possible. Raises: TooManyRequests, RedisDown."""
    # Not the address itself: Redis keeps keys in its logs and dumps.
    subject = hashlib.sha256(address.lower().encode()).hexdigest()[:32]
    whose = {"email": f"user:{user_id}", "mailbox": f"mailbox:{subject}"}
    charges = [limits.Charge(shop.limits.policies[name], subject) for name, subject in whose.items()]
    weighed = await limits.weigh(shop.deps.redis, shop.limits.own, charges)
    if isinstance(weighed, limits.Refused):
        wait_s = -(-weighed.wait_ms // 1000)
        empty = [name for name, left in zip(whose, weighed.figures[::2], strict=True) if left < 1]
        raise TooManyRequests("enough links were sent", retry_after_s=wait_s, policies=empty)
