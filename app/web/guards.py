"""Before a handler runs: who calls, and whether that caller may have one more request now."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from app.base import clock
from app.domain import limits
from app.domain.limits import Admitted, Charge, Policy, Refused, Who
from app.errors import BadToken, Busy, RedisDown, TooManyRequests
from app.infra.secrets import Session
from app.shop import Shop

Connection = ASGIConnection[Any, Any, Any, Any]

HEADERS = "limit_headers"  # where a request keeps what every answer to it must say


def signed_in(connection: Connection, shop: Shop) -> Session:
    """The caller's session. Raises: BadToken."""
    session = caller(connection, shop)
    if session is None:
        if "authorization" not in connection.headers:
            raise BadToken("send Authorization: Bearer with a token from POST /api/session")
        raise BadToken("the token is altered or expired; get a new one from POST /api/session")
    return session


def caller(connection: Connection, shop: Shop) -> Session | None:
    """The session that the request's bearer token proves, read once per request."""
    known: dict[str, Any] = connection.scope["state"]
    if "session" not in known:
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        tokens = shop.deps.tokens
        bearer = scheme.lower() == "bearer" and tokens is not None
        known["session"] = tokens.read(token.strip(), now_s=clock.unix_s()) if bearer and tokens else None
    session: Session | None = known["session"]
    return session


def address(connection: Connection) -> str:
    """The client's address, through trusted proxies."""
    peer = connection.client
    found: str = connection.app.state.proxies.client(
        peer.host if peer else None, connection.headers.getall("x-forwarded-for", [])
    )
    return found


async def admitted(connection: Connection, handler: BaseRouteHandler) -> None:
    """Every policy that the handler names has a token for this caller, and has given it.

    Raises: TooManyRequests; Busy where the caller must not be told 429; RedisDown where nobody is admitted unweighed.
    """
    names = handler.opt.get("limits", ())
    if not names:
        return
    shop: Shop = connection.app.state.shop
    policies = [shop.limits.policies[name] for name in names]
    charges = [Charge(policy, _subject(connection, shop, policy)) for policy in policies]
    try:
        weighed = await limits.weigh(shop.deps.redis, shop.limits.own, charges)
    except RedisDown:
        raise RedisDown("nobody is admitted here while Redis is out", retry_after_s=1) from None
    connection.scope["state"][HEADERS] = _headers(policies, weighed)
    if isinstance(weighed, Refused):
        _refuse(policies, weighed)


def _subject(connection: Connection, shop: Shop, policy: Policy) -> str:
    session = caller(connection, shop) if policy.who is Who.CALLER else None
    return f"user:{session.user_id}" if session else f"address:{address(connection)}"


def _refuse(policies: Sequence[Policy], refused: Refused) -> None:
    wait_s = -(-refused.wait_ms // 1000)
    if not any(policy.shared for policy in policies):
        raise Busy("too many callbacks from one address", retry_after_s=wait_s)
    empty = [policy.name for policy, left in zip(policies, refused.figures[::2], strict=True) if left < 1]
    raise TooManyRequests(f"wait {wait_s} s", retry_after_s=wait_s, policies=empty)


def _headers(policies: Sequence[Policy], weighed: Admitted | Refused) -> tuple[tuple[bytes, bytes], ...]:
    """RateLimit and RateLimit-Policy as structured fields: quota q per w seconds, r left, full again in t seconds."""
    left, full_ms = weighed.figures[::2], weighed.figures[1::2]
    now = ", ".join(
        f'"{policy.name}";r={n};t={-(-ms // 1000)}' for policy, n, ms in zip(policies, left, full_ms, strict=True)
    )
    return (b"ratelimit", now.encode()), (b"ratelimit-policy", _stated(tuple(policies)))


@lru_cache(maxsize=64)
def _stated(policies: tuple[Policy, ...]) -> bytes:
    return ", ".join(f'"{policy.name}";q={policy.burst};w={policy.window_s()}' for policy in policies).encode()
