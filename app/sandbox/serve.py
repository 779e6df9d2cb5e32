"""Runs the simulators: one by name until signalled, or any ASGI app inside a test."""

import asyncio
import contextlib
import inspect
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from importlib import import_module
from typing import Any, Protocol

import uvicorn
from litestar import Litestar


class Simulator(Protocol):
    """Anything that plays an outside party."""

    def app(self) -> Litestar: ...


KEEP_ALIVE_S = 60  # longer than any client here keeps an idle connection, so no call meets a closing one
GRACE_S = 1  # a call that a fault holds open is cut after this
TICK_S = 1
LOOK_S = 0.005  # between two looks at what is still open


def make(name: str, **secrets: Any) -> Simulator:
    """The simulator in app/sandbox/<name>.py, made from its secrets and the other keywords of its constructor.

    Raises: ValueError for an unknown name; TypeError for a keyword that is missing or not its own.
    """
    try:
        kind: type[Simulator] = import_module(f"app.sandbox.{name}").SIMULATOR
    except (ModuleNotFoundError, AttributeError):
        raise ValueError(f"unknown simulator {name!r}") from None
    return kind(**secrets)


def cabinet(name: str, **addresses: str) -> dict[str, str]:
    """Those of the addresses that this party is told in its cabinet and not by each request."""
    takes = inspect.signature(import_module(f"app.sandbox.{name}").SIMULATOR).parameters
    return {field: address for field, address in addresses.items() if field in takes}


async def run(host: str, parties: dict[int, Simulator]) -> None:
    """Each of the simulators serves on its port until SIGINT or SIGTERM."""
    told = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, told.set)
    async with contextlib.AsyncExitStack() as stack:
        for port, party in parties.items():
            await stack.enter_async_context(running(party.app(), host, port))
        await told.wait()


class QuietServer(uvicorn.Server):
    """A server inside somebody else's loop: signals stay theirs, start and stop are events, not polls."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self.leaving = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):  # a tick renews the Date header
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.leaving.wait(), TICK_S)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, which naps for 0.1 s whether anybody is still there or not."""
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                while self.server_state.connections or self.server_state.tasks:  # noqa: ASYNC110  (uvicorn sets none)
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            for task in self.server_state.tasks:
                task.cancel()
        await self.lifespan.shutdown()


@contextlib.asynccontextmanager
async def running(app: Any, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """The ASGI `app` answers at the yielded base URL (no trailing slash) until the block ends.

    Units:   port 0 takes a free one; the socket is bound before the server starts, so nobody else can take it.
    Raises:  RuntimeError when the app's start-up fails.
    """
    # The protocol is spelt out: asyncio sets TCP_NODELAY only then, and without it every answer waits 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with listener:
        listener.bind((host, port))
        bound = listener.getsockname()[1]
        server = QuietServer(quiet_config(app))
        serving = asyncio.create_task(_serve(server, listener))
        ready = asyncio.create_task(server.ready.wait())
        try:
            await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                await serving
            yield f"http://{host}:{bound}"
        finally:
            ready.cancel()
            server.should_exit = True
            server.leaving.set()
            await serving


def quiet_config(app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        proxy_headers=False,  # uvicorn would believe X-Forwarded-For from everybody on this machine
        ws="none",
        lifespan="on",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )


async def _serve(server: uvicorn.Server, listener: socket.socket) -> None:
    try:
        await server.serve(sockets=[listener])
    except SystemExit as exit_:  # uvicorn's answer to a failed start-up; in a task it would end the whole process
        raise RuntimeError("the app did not start; its log tells why") from exit_
