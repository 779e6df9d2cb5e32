"""Gateway callbacks: verified, stored, answered within one round trip; the bell rings after the answer.

`Hook` answers in its handlers' place, on the bare ASGI messages: Litestar would resolve the handler's arguments and
build a request and a response around one dictionary lookup and 11 fixed bytes, which cost as much as all that is done
here (`make bench NAME=settle`). Routing, rate limits, the request's id and how failures look are as everywhere.
"""

from time import perf_counter
from typing import NoReturn

from litestar import post
from litestar.params import FromPath
from litestar.types import ASGIApp, Receive, Scope, Send

from app.base import tally
from app.errors import Busy, NotFound, TooLarge, UnsupportedMedia
from app.flows import settle
from app.gateways.base import Callback
from app.shop import Shop
from app.web.bodies import MAX_BODY_BYTES
from app.web.guards import address

# What is not kept with the event: whoever must find out where it came from needs the others, signatures among them.
CREDENTIALS = frozenset({"authorization", "proxy-authorization", "cookie"})
MOST_HEADERS, MAX_HEADER = 40, 512  # kept of each event, and characters of each

MOST_CALLBACKS = 500  # being worked on at a time: beyond that the gateway is asked to come again

BODY = b'{"ok":true}'
HEADERS = ((b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode()))


class Hook:
    """ASGI middleware that is the handler: see above."""

    def __init__(self, app: ASGIApp) -> None:
        """`app`, the handler of Litestar's making, is never called."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope["litestar_app"].state
        shop: Shop = state.shop
        gateway = shop.gateways.get(scope["path_params"].get("provider", "crystalpay"))
        if gateway is None:
            raise NotFound("no such gateway here")
        headers = _headers(scope)
        _check_media(headers, gateway.traits.media)
        if state.callbacks >= MOST_CALLBACKS:
            raise Busy(f"{state.callbacks} callbacks are being worked on", retry_after_s=1)
        body = await _body(headers, receive)
        if body is None:
            return  # nobody is there any more
        callback = Callback(body, headers, address(scope))
        kept = [(k, v[:MAX_HEADER]) for k, v in headers.items() if k not in CREDENTIALS and "\0" not in v]
        state.callbacks += 1
        try:
            outbox_id = await settle.accept(
                shop, gateway, callback, dict(kept[:MOST_HEADERS]) | {"remote": callback.address},
                in_flight=state.callbacks,
            )  # fmt: skip
        finally:
            state.callbacks -= 1
        stored = perf_counter()
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": BODY, "more_body": False})
        tally.WEBHOOK.series[gateway.name, "answer"].observe(perf_counter() - stored)
        if outbox_id is not None:
            await settle.ring(shop, outbox_id)


@post("/api/webhook/payment/{provider:str}", status_code=200, limits=("webhooks",), middleware=[Hook])
async def payment(provider: FromPath[str]) -> dict[str, bool]:
    """A gateway tells of an event: 200 once it is stored, whatever it turns out to be worth.

    401 for a wrong signature, 400 for a body that is not the gateway's, 503 when it could not be stored.
    Never 429: CrystalPay reads that as delivered.
    """
    _hooked()


@post("/api/webhook/crystalpay", status_code=200, limits=("webhooks",), middleware=[Hook])
async def crystalpay() -> dict[str, bool]:
    """The same under the address that the sources use."""
    _hooked()


def _hooked() -> NoReturn:
    raise AssertionError("the hook answers")


async def _body(headers: dict[str, str], receive: Receive) -> bytes | None:
    """The whole of it; None when the client has left. Raises: TooLarge, TooSlow."""
    announced = headers.get("content-length", "0")
    size, parts = int(announced) if announced.isdigit() else 0, []
    more = True
    while more:
        if size > MAX_BODY_BYTES:
            raise TooLarge("the body is larger than this endpoint reads")
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message["body"])
        more = message["more_body"]
        size = sum(map(len, parts))
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _headers(scope: Scope) -> dict[str, str]:
    """A header that is sent twice is both its values, so that no signature can hide behind another."""
    found: dict[str, str] = {}
    for raw_name, raw in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw.decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _check_media(headers: dict[str, str], expected: str) -> None:
    media, _, params = headers.get("content-type", expected).partition(";")
    if media.strip().lower() != expected or "utf-16" in params.lower():
        raise UnsupportedMedia(f"send {expected} in UTF-8")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMedia("send the body without Content-Encoding")
