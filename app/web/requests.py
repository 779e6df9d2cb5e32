"""What every request has: an id (the caller's, when it is a sane one, else ours), and a body that decodes.

The id is in each log line and in the answer, beside what the rate limits said.
"""

import os
import re
from typing import Any

import structlog
from litestar import Request
from litestar.datastructures import State
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import Malformed
from app.web.guards import HEADERS

_SANE = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class RequestId:
    """ASGI middleware; one pass, no buffering."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self.app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = given if _SANE.fullmatch(given) else os.urandom(8).hex().encode()
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id.decode())

        async def with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                limits = scope["state"].get(HEADERS, ())
                message["headers"] = [*message["headers"], (b"x-request-id", request_id), *limits]
            await send(message)

        await self.app(scope, receive, with_id)


class JsonRequest(Request[Any, Any, State]):
    """Litestar's own lets two kinds of bad JSON through as if they were our defects: bad UTF-8 and deep nesting."""

    async def json(self) -> Any:
        try:
            return await super().json()
        except (UnicodeDecodeError, RecursionError):
            raise Malformed("the body is not JSON in UTF-8, or nested too deep") from None
