"""Sign in: Telegram's word about its user becomes a short session token."""

from datetime import UTC, datetime

import msgspec

from app.base import clock
from app.channels.telegram import initdata
from app.domain import customers, referrals
from app.errors import NotFound
from app.infra.secrets import Session
from app.shop import Shop


class SignedIn(msgspec.Struct, frozen=True):
    """The token and whom it stands for."""

    token: str
    expires_at: datetime
    user: customers.Customer


async def sign_in(shop: Shop, init_data: str) -> SignedIn:
    """The user is known to the shop and holds a token. Raises: BadInitData; NotFound when sign-in is not configured."""
    settings, tokens = shop.deps.settings, shop.deps.tokens
    if not settings.telegram_bot_token or tokens is None:
        raise NotFound("this shop has no sign-in: TORG_TELEGRAM_BOT_TOKEN or TORG_SESSION_SECRET is not set")
    now_s = clock.unix_s()
    user = initdata.verify(init_data, settings.telegram_bot_token, now_s=now_s, max_age_s=settings.init_data_max_age_s)
    customer = await customers.enter(
        shop.deps.pg,
        telegram_id=user.id,
        name=user.name,
        username=user.username and user.username[:64],
        language=user.language_code[:16] if len(user.language_code) >= 2 else "en",
        is_admin=user.id in settings.admin_ids(),
        referrer_id=referrals.user_of(initdata.start_param(init_data)),
    )
    expires_s = now_s + settings.session_ttl_s
    token = tokens.issue(Session(customer.id, customer.role, expires_s))
    return SignedIn(token, datetime.fromtimestamp(expires_s, UTC), customer)
