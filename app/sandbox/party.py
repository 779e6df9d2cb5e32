"""What every outside party on loopback has: a journal, faults to order, background work, control routes.

The control surface is `/sandbox/…` over HTTP, or the attributes in-process; no real party has it, so the product
cannot lean on it.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

import httpx
import msgspec
from litestar import Litestar, Request, Response, delete, get, post
from litestar.handlers import HTTPRouteHandler

JSON = "application/json"
CALLBACK_TIMEOUT_S = (
    30.0  # CrystalPay waits so long (docs.crystalpay.io/callback/obshaya-informaciya); Telegram about as long
)

Req = Request[Any, Any, Any]
T = TypeVar("T")

KEPT_CHARS = 20_000  # of what a webhook answers


class Fault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One ordered misbehaviour: the next `times` calls of operation `on` suffer it.

    A `status` or `body` replaces the answer, and the work is not done; with `after` it is done first, so that the
    caller cannot know. `wait_ms` passes before the work, `hold_ms` between the work and the answer; a caller
    who hangs up ends either early, and the work is done all the same.
    """

    on: str = "*"
    times: int | None = 1  # None: until cleared
    wait_ms: int = 0
    hold_ms: int = 0
    status: int | None = None
    body: str | None = None  # sent as it is: HTML, broken JSON, nothing
    content_type: str = JSON
    after: bool = False


F = TypeVar("F", bound=Fault)


class Answer(msgspec.Struct):
    """What goes back over the wire, before faults touch it."""

    status: int
    body: dict[str, Any] | bytes
    content_type: str = JSON
    headers: dict[str, str] = {}

    def raw(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else msgspec.json.encode(self.body)


class Entry(msgspec.Struct):
    """One line of the journal: a request that came in, or a call that went out."""

    at_ms: int
    kind: str  # request | callback | update
    name: str  # operation, Bot API method, or the address called
    given: Any
    status: int | None = None  # None: no answer, or none yet
    answered: Any = None
    error: str = ""


class Party(Generic[F]):
    """State of one simulated outside party."""

    fault_type: type[F]

    def __init__(self, keep: int) -> None:
        self.log: deque[Entry] = deque(maxlen=keep)
        self.faults: list[F] = []
        self.client: httpx.AsyncClient | None = None
        self.timeout_s = CALLBACK_TIMEOUT_S
        self.tasks: set[asyncio.Task[Any]] = set()

    def take_fault(self, on: str, suits: Callable[[F], bool] = lambda fault: True) -> F | None:
        """The first fault ordered for this call, one use spent."""
        for fault in self.faults:
            if fault.on.lower() in ("*", on.lower()) and suits(fault):
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times <= 0:
                        self.faults.remove(fault)
                return fault
        return None

    def record(self, kind: str, name: str, given: Any) -> Entry:
        entry = Entry(at_ms=time.time_ns() // 1_000_000, kind=kind, name=name, given=given)
        self.log.append(entry)
        return entry

    def entries(self, kind: str | None = None, name: str | None = None) -> list[Entry]:
        """The journal, oldest first, of one kind and one name when given."""
        return [e for e in self.log if kind in (None, e.kind) and name in (None, e.name)]

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Background work that ends with the app."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def idle(self) -> None:
        """Every callback under way is delivered or given up."""
        while self.tasks:
            await asyncio.gather(*self.tasks, return_exceptions=True)

    async def call(self, entry: Entry, url: str, body: bytes, headers: dict[str, str] | None = None) -> Entry:
        """`body` is posted as JSON, and `entry` tells what came back; a failure is an outcome too."""
        if self.client is None:
            raise RuntimeError("the simulator calls out only while its app runs")
        try:
            sent = {"content-type": JSON, **(headers or {})}
            answer = await self.client.post(url, content=body, headers=sent, timeout=self.timeout_s)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            entry.error = f"{type(error).__name__}: {error}"
        else:
            entry.status, entry.answered = answer.status_code, answer.text[:KEPT_CHARS]
        return entry

    def litestar(self, routes: Sequence[HTTPRouteHandler], bad_order: type[Exception]) -> Litestar:
        """The party's routes and the control routes as an ASGI app, which owns the background work.

        A control request that does not decode, or raises `bad_order`, is answered 400 with the reason.
        """
        control = [
            get("/sandbox/log")(self.show_log),
            delete("/sandbox/log")(self.clear_log),
            post("/sandbox/faults")(self.order_fault),
            delete("/sandbox/faults")(self.clear_faults),
        ]
        return Litestar(
            [*routes, *control],
            lifespan=[self.alive],
            exception_handlers={msgspec.DecodeError: explain, bad_order: explain},
            openapi_config=None,
            logging_config=None,
        )

    @asynccontextmanager
    async def alive(self, app: Litestar) -> AsyncIterator[None]:
        # trust_env: a proxy of the developer's machine has no business between two loopback addresses.
        # No kept connections: one that the shop closes meanwhile would look like a failed delivery.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx.AsyncClient(limits=limits, trust_env=False) as self.client:
            try:
                yield
            finally:
                for task in self.tasks:
                    task.cancel()
                await asyncio.gather(*self.tasks, return_exceptions=True)
                self.client = None

    async def show_log(self, request: Req) -> Response[bytes]:
        query = request.query_params
        return reply(self.entries(query.get("kind"), query.get("name")))

    async def clear_log(self, request: Req) -> None:
        self.log.clear()

    async def order_fault(self, request: Req) -> Response[bytes]:
        fault = msgspec.json.decode(await request.body(), type=self.fault_type)
        self.faults.append(fault)
        return reply(fault)

    async def clear_faults(self, request: Req) -> None:
        self.faults.clear()


def reply(value: Any, status: int = 200) -> Response[bytes]:
    """`value` as a JSON answer of the control surface."""
    return Response(msgspec.json.encode(value), status_code=status, media_type=JSON)


def explain(_: Req, error: Exception) -> Response[bytes]:
    return reply({"error": str(error)}, status=400)


async def play(request: Req, entry: Entry, fault: Fault | None, work: Callable[[], Answer]) -> Response[bytes]:
    """The answer of `work` as `fault` lets it out; the journal tells what was sent."""
    if fault is None:
        answer = work()
    else:
        await pause(request, fault.wait_ms)
        replaced = fault.status is not None or fault.body is not None
        answer = work() if fault.after or not replaced else Answer(200, b"")
        if replaced:
            answer = Answer(fault.status or 200, (fault.body or "").encode(), fault.content_type)
        await pause(request, fault.hold_ms)
    raw = answer.raw()
    entry.status = answer.status
    # Decoded anew: the journal must not change when the party's state does.
    entry.answered = msgspec.json.decode(raw) if isinstance(answer.body, dict) else raw[:1000].decode(errors="replace")
    return Response(raw, status_code=answer.status, media_type=answer.content_type, headers=answer.headers)


async def pause(request: Req, ms: int) -> None:
    """`ms` have passed, or the caller hung up: a stalled server holds nobody's shutdown."""
    if ms <= 0:
        return
    try:
        async with asyncio.timeout(ms / 1000):
            while (await request.receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        return
