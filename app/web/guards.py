"""Who calls: the session behind a bearer token."""

from app.base import clock
from app.errors import BadToken
from app.infra.secrets import Session
from app.shop import Shop
from app.web.handler import Req


def signed_in(request: Req, shop: Shop) -> Session:
    """The caller's session. Raises: BadToken."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    tokens = shop.deps.tokens
    if scheme.lower() != "bearer" or tokens is None:
        raise BadToken("send Authorization: Bearer with a token from POST /api/session")
    session = tokens.read(token.strip(), now_s=clock.unix_s())
    if session is None:
        raise BadToken("the token is altered or expired; get a new one from POST /api/session")
    return session
