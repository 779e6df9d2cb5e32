"""Before a handler runs: who calls, and whether that caller may have one more request now."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from litestar.connection import ASGIConnection
from litestar.types import ASGIApp, Receive, Scope, Send

from app.base import clock
from app.domain import limits
from app.domain.limits import Admitted, Charge, Policy, Refused, Who
from app.errors import BadToken, Busy, Problem, RedisDown, TooManyRequests
from app.infra.secrets import Session
from app.shop import Shop
from app.web.problems import respond
from app.web.requests import HEADERS, JsonRequest

Connection = ASGIConnection[Any, Any, Any, Any]


def signed_in(connection: Connection, shop: Shop) -> Session:
    """The caller's session. Raises: BadToken."""
    session = caller(connection.scope, shop)
    if session is None:
        if "authorization" not in connection.headers:
            raise BadToken("send Authorization: Bearer with a token from POST /api/session")
        raise BadToken("the token is altered or expired; get a new one from POST /api/session")
    return session


def caller(scope: Scope, shop: Shop) -> Session | None:
    """The session that the request's bearer token proves, read once per request."""
    known: dict[str, Any] = scope["state"]
    if "session" not in known:
        scheme, _, token = b"".join(_values(scope, b"authorization")[:1]).decode("latin-1").partition(" ")
        tokens = shop.deps.tokens
        bearer = scheme.lower() == "bearer" and tokens is not None
        known["session"] = tokens.read(token.strip(), now_s=clock.unix_s()) if bearer and tokens else None
    session: Session | None = known["session"]
    return session


def address(scope: Scope) -> str:
    """The client's address, through trusted proxies, read once per request."""
    known: dict[str, Any] = scope["state"]
    if "address" not in known:
        peer = scope["client"]
        forwarded = [value.decode("latin-1") for value in _values(scope, b"x-forwarded-for")]
        known["address"] = scope["litestar_app"].state.proxies.client(peer[0] if peer else None, forwarded)
    found: str = known["address"]
    return found


class Limited:
    """ASGI middleware: every policy that the handler names has a token for this caller, and has given it.

    Not a guard of Litestar's, which copies the handler for each request and takes longer than the limiter itself.
    Refused with TooManyRequests; Busy where the caller must not be told 429; RedisDown where nobody is admitted
    unweighed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        names = scope["route_handler"].opt.get("limits", ())
        if names:
            try:
                await _admitted(scope, names)
            except Problem as problem:
                request = JsonRequest(scope, receive, send)
                response = respond(request, problem).to_asgi_response(app=None, request=request)
                await response(scope, receive, send)
                return
        await self.app(scope, receive, send)


async def _admitted(scope: Scope, names: Sequence[str]) -> None:
    shop: Shop = scope["litestar_app"].state.shop
    policies = [shop.limits.policies[name] for name in names]
    charges = [Charge(policy, _subject(scope, shop, policy)) for policy in policies]
    try:
        weighed = await limits.weigh(shop.deps.redis, shop.limits.own, charges)
    except RedisDown:
        raise RedisDown("nobody is admitted here while Redis is out", retry_after_s=1) from None
    scope["state"][HEADERS] = _headers(policies, weighed)
    if isinstance(weighed, Refused):
        _refuse(policies, weighed)


def _subject(scope: Scope, shop: Shop, policy: Policy) -> str:
    session = caller(scope, shop) if policy.who is Who.CALLER else None
    return f"user:{session.user_id}" if session else f"address:{address(scope)}"


def _values(scope: Scope, name: bytes) -> list[bytes]:
    """The values of one header; `connection.headers` would parse them all, which takes longer than the rest here."""
    return [value for known, value in scope["headers"] if known == name]


def _refuse(policies: Sequence[Policy], refused: Refused) -> None:
    wait_s = -(-refused.wait_ms // 1000)
    if not any(policy.shared for policy in policies):
        raise Busy("too many callbacks from one address", retry_after_s=wait_s)
    empty = [policy.name for policy, left in zip(policies, refused.figures[::2], strict=True) if left < 1]
    raise TooManyRequests(f"wait {wait_s} s", retry_after_s=wait_s, policies=empty)


def _headers(policies: Sequence[Policy], weighed: Admitted | Refused) -> tuple[tuple[bytes, bytes], ...]:
    """RateLimit and RateLimit-Policy as structured fields: quota q per w seconds, r left, full again in t seconds."""
    figures = weighed.figures
    now = ", ".join(
        [f'"{policy.name}";r={figures[2 * i]};t={-(-figures[2 * i + 1] // 1000)}' for i, policy in enumerate(policies)]
    )
    return (b"ratelimit", now.encode()), (b"ratelimit-policy", _stated(tuple(policies)))


@lru_cache(maxsize=64)
def _stated(policies: tuple[Policy, ...]) -> bytes:
    return ", ".join(f'"{policy.name}";q={policy.burst};w={policy.window_s()}' for policy in policies).encode()
