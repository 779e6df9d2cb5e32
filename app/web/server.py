"""The server of `torg web`: uvicorn, which ends the open event streams when it is told to leave.

By itself it waits for their clients to go, and keeps the connection of a client that reads nothing until that has read.
"""

import asyncio
import resource
import socket
import sys
from contextlib import suppress
from typing import Any, cast

import uvicorn
from litestar import Litestar
from uvicorn.config import STARTUP_FAILURE
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.settings import Settings

GRACE_S = 10  # what open requests get after SIGTERM
MOST_FILES = 65_536
UNHEARD_MS = 30_000  # a client that acknowledges nothing for so long has gone without a word, as phones do
ABORT = "torg.abort"  # a scope extension: `now` ends the connection, unsent bytes or not


class Http(HttpToolsProtocol):
    """A connection that can be aborted, and that ends when its client vanishes."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer = transport.get_extra_info("socket")
        with suppress(OSError, AttributeError):  # Linux only; a unix socket has no such option
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNHEARD_MS)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: {"now": self.transport.abort}}


class Server(uvicorn.Server):
    """Every event stream ends when the others are asked to; an answer that is being written has a little longer."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        state = cast(Any, self.config.app).state
        state.streams.close()
        state.chats.close()
        await super().shutdown(sockets)


def serve(app: Litestar, settings: Settings) -> None:
    """Until SIGTERM or SIGINT; what is open then has `GRACE_S`."""
    _allow_files()
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=Http,
        ws="none",
        access_log=False,  # 37 us a request, and URLs with tokens in them (PROBE B5)
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    server = Server(config)
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)


def _allow_files() -> None:
    """An open stream is an open file, and 1,024 is what many systems allow who does not ask."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
