"""The metrics of a worker, which serves nothing else: a page over HTTP/1.0, by hand, to whoever may read it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import structlog

from app.base.address import Proxies
from app.base.readers import Readers
from app.flows.measure import Measures
from app.infra.metrics import MEDIA_TYPE
from app.settings import BadSettings, Settings
from app.shop import Shop

log = structlog.get_logger(__name__)

ASK_S = 2.0  # what asking, and taking the answer, may take
MAX_HEAD = 8192

Text = Callable[[], Awaitable[bytes]]


@asynccontextmanager
async def served(settings: Settings, shop: Shop) -> AsyncIterator[None]:
    """`GET /metrics` on TORG_METRICS_PORT inside the block. Raises: BadSettings."""
    try:
        readers = Readers(settings.metrics_from, settings.metrics_token, Proxies(settings.trusted_proxies))
    except ValueError as error:
        raise BadSettings(f"TORG_METRICS_FROM or TORG_TRUSTED_PROXIES: {error}") from None
    measures = Measures(shop, "worker")

    async def come(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(ASK_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await answer(head, _peer(writer), readers, measures.own))
                await writer.drain()
        writer.close()

    try:
        server = await asyncio.start_server(come, settings.host, settings.metrics_port, limit=MAX_HEAD)
    except OSError as error:
        raise BadSettings(f"TORG_METRICS_PORT: {error}") from None
    log.info("metrics are served", port=settings.metrics_port)
    try:
        yield
    finally:
        server.close()


async def answer(head: bytes, peer: str | None, readers: Readers, text: Text) -> bytes:
    """The whole answer to a request with this head."""
    asked, *lines = head.split(b"\r\n")
    named = [line.partition(b":") for line in lines if line]
    may = readers.may(peer, [(name.strip().lower(), value.strip()) for name, _, value in named])
    method, _, path = asked.rpartition(b" ")[0].partition(b" ")
    if method != b"GET" or path != b"/metrics" or not may:
        return _said(b"404 Not Found", b"text/plain", b"no such path\n")
    return _said(b"200 OK", MEDIA_TYPE.encode(), await text())


def _peer(writer: asyncio.StreamWriter) -> str | None:
    peer = writer.get_extra_info("peername")
    return str(peer[0]) if peer else None


def _said(status: bytes, media: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.0 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    return head % (status, media, len(body)) + body
