"""What every request has: an id (the caller's, when it is a sane one, else ours), and a body that comes and decodes.

The id is in each log line and in the answer, beside what the rate limits said. What is for one caller's eyes is kept
out of caches. Each request is counted by the route that it took, never by what it wrote into its path.
"""

import asyncio
import os
import re
from time import perf_counter
from typing import Any

from litestar import Request
from litestar.datastructures import State
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from app.base import tally
from app.errors import Malformed, TooSlow
from app.infra import observe
from app.web.problems import respond

HEADERS = "headers"  # where a request's state keeps what every answer to it says

BODY_S = 10.0  # from the first byte asked for to the last one there: who sends slower holds us, not the other way round

_SANE = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class RequestId:
    """ASGI middleware; one pass, no buffering."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self.app(scope, receive, send)
            return
        started = perf_counter()
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = given if _SANE.fullmatch(given) else os.urandom(8).hex().encode()
        observe.REQUEST_ID.set(request_id.decode())

        begun = False

        async def with_id(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                labels = scope["path_template"], scope["method"], tally.CLASSES[message["status"] // 100]
                tally.REQUESTS.series[labels].observe(perf_counter() - started)
                headers = [*message["headers"], (b"x-request-id", request_id), *scope["state"].get(HEADERS, ())]
                if scope["state"].get("session") and not any(name == b"cache-control" for name, _ in headers):
                    headers.append((b"cache-control", b"no-store"))
                message["headers"] = headers
            await send(message)

        try:
            await self.app(scope, receive if scope["method"] in ("GET", "HEAD") else _in_time(receive), with_id)
        except Exception as error:  # of a middleware between us and the handler: answered as a handler's are
            if begun:
                raise
            request = JsonRequest(scope, receive, send)
            await respond(request, error).to_asgi_response(app=None, request=request)(scope, receive, with_id)


def _in_time(receive: Receive) -> Receive:
    """The same, as long as the body is there within `BODY_S`; afterwards it is waited for as it likes."""
    deadline_s = 0.0
    whole = False

    async def in_time() -> Any:
        nonlocal deadline_s, whole
        if whole:
            return await receive()  # tells of a disconnect, whenever that is
        deadline_s = deadline_s or asyncio.get_running_loop().time() + BODY_S
        try:
            async with asyncio.timeout_at(deadline_s):
                message = await receive()
        except TimeoutError:
            raise TooSlow(f"the body was not there after {BODY_S:.0f} s") from None
        whole = not message.get("more_body", False)
        return message

    return in_time


class JsonRequest(Request[Any, Any, State]):
    """Litestar's own lets two kinds of bad JSON through as if they were our defects: bad UTF-8 and deep nesting."""

    async def json(self) -> Any:
        try:
            return await super().json()
        except (UnicodeDecodeError, RecursionError):
            raise Malformed("the body is not JSON in UTF-8, or nested too deep") from None
