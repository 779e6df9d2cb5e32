"""Gateway callbacks: verified, stored, answered within one round trip; the bell rings after the answer."""

from litestar import Response, post
from litestar.background_tasks import BackgroundTask
from litestar.params import FromPath

from app.errors import Busy, NotFound, UnsupportedMedia
from app.flows import settle
from app.gateways.base import Callback
from app.shop import Shop
from app.web.guards import address
from app.web.handler import Req, TheShop

# What is not kept with the event: whoever must find out where it came from needs the others, signatures among them.
CREDENTIALS = frozenset({"authorization", "proxy-authorization", "cookie"})
MOST_HEADERS, MAX_HEADER = 40, 512  # kept of each event, and characters of each

MOST_CALLBACKS = 500  # being worked on at a time: beyond that the gateway is asked to come again


@post("/api/webhook/payment/{provider:str}", status_code=200, limits=("webhooks",))
async def payment(request: Req, provider: FromPath[str], shop: TheShop) -> Response[bytes]:
    """A gateway tells of an event: 200 once it is stored, whatever it turns out to be worth.

    401 for a wrong signature, 400 for a body that is not the gateway's, 503 when it could not be stored.
    Never 429: CrystalPay reads that as delivered.
    """
    return await _accept(request, provider, shop)


@post("/api/webhook/crystalpay", status_code=200, limits=("webhooks",))
async def crystalpay(request: Req, shop: TheShop) -> Response[bytes]:
    """The same under the address that the sources use."""
    return await _accept(request, "crystalpay", shop)


async def _accept(request: Req, provider: str, shop: Shop) -> Response[bytes]:
    gateway = shop.gateways.get(provider)
    if gateway is None:
        raise NotFound("no such gateway here")
    _check_media(request, gateway.traits.media)
    state = request.app.state
    if state.callbacks >= MOST_CALLBACKS:
        raise Busy(f"{state.callbacks} callbacks are being worked on", retry_after_s=1)
    callback = Callback(await request.body(), _headers(request), address(request.scope))
    kept = [(k, v[:MAX_HEADER]) for k, v in callback.headers.items() if k not in CREDENTIALS and "\0" not in v]
    state.callbacks += 1
    try:
        outbox_id = await settle.accept(
            shop, gateway, callback, dict(kept[:MOST_HEADERS]) | {"remote": callback.address}, in_flight=state.callbacks
        )
    finally:
        state.callbacks -= 1
    ring = BackgroundTask(settle.ring, shop, outbox_id) if outbox_id is not None else None
    return Response(b'{"ok":true}', media_type="application/json", background=ring)


def _headers(request: Req) -> dict[str, str]:
    """A header that is sent twice is both its values, so that no signature can hide behind another."""
    found: dict[str, str] = {}
    for raw_name, raw in request.scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw.decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _check_media(request: Req, expected: str) -> None:
    media, _, params = request.headers.get("content-type", expected).partition(";")
    if media.strip().lower() != expected or "utf-16" in params.lower():
        raise UnsupportedMedia(f"send {expected} in UTF-8")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMedia("send the body without Content-Encoding")
