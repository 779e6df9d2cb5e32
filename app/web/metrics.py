"""`GET /metrics`: for Prometheus, and to everybody else no such path."""

from litestar import Response, get

from app.base import tally
from app.base.address import Proxies
from app.base.readers import Readers
from app.errors import NotFound
from app.infra.metrics import MEDIA_TYPE
from app.settings import BadSettings, Settings
from app.web.handler import Req


def readers(settings: Settings, proxies: Proxies) -> Readers:
    """Who may read them. Raises: BadSettings."""
    # We speak no TLS: behind an https address stands a proxy, and a call that it passes on may look like a local one.
    fronted = settings.public_url.startswith("https:") and not settings.trusted_proxies
    try:
        return Readers(settings.metrics_from, settings.metrics_token, proxies, fronted=fronted)
    except ValueError as error:
        raise BadSettings(f"TORG_METRICS_FROM: {error}") from None


@get("/metrics", include_in_schema=False)
async def show_metrics(request: Req) -> Response[bytes]:
    """No limits: whoever is not let in costs less than a limit would, and Prometheus must see a shop without Redis."""
    state, peer = request.app.state, request.scope["client"]
    if not state.readers.may(peer[0] if peer else None, request.scope["headers"]):
        raise NotFound("no such path")
    text = await state.measures.all(tally.STREAMS.reading(state.streams.open), tally.CALLBACKS.reading(state.callbacks))
    return Response(text, media_type=MEDIA_TYPE, headers={"Cache-Control": "no-store"})
