"""A browser's tab that listens, over a socket of its own: `GET /api/events`, taken apart as EventSource does it."""

import asyncio
import socket
from typing import NamedTuple, Self, cast

import msgspec

from app.domain.events import Event

PATIENCE_S = 10.0


class Said(NamedTuple):
    """One server-sent event."""

    kind: str
    id: str
    data: bytes

    def event_id(self) -> str:
        return msgspec.json.decode(self.data, type=Event).id


class Tab(asyncio.Protocol):
    """One connection, from its request to its end; `said` grows."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.said: list[Said] = []
        self.comments = 0
        self.retry_ms = 0
        self.whole = False  # the answer came to its proper end
        self.body = b""  # of an answer that is no stream
        self.head, self.changed, self.lost = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._bytes, self._frames = bytearray(), bytearray()
        self.transport: asyncio.Transport

    @classmethod
    async def open(
        cls,
        port: int,
        *,
        token: str = "",
        ticket: str = "",
        last_id: str = "",
        header: str = "",
        receive_bytes: int = 0,
    ) -> Self:
        """Its answer has begun. `last_id` goes into the query, `header` into `Last-Event-ID`."""
        peer = socket.socket()
        if receive_bytes:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        peer.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_connect(peer, ("127.0.0.1", port))
        except BaseException:
            peer.close()
            raise
        transport, tab = await loop.create_connection(cls, sock=peer)
        tab.transport = transport
        query = "&".join(f"{k}={v}" for k, v in (("ticket", ticket), ("last_event_id", last_id)) if v)
        lines = [f"GET /api/events?{query} HTTP/1.1", "Host: shop", "Accept: text/event-stream"]
        lines += [f"Authorization: Bearer {token}"] * bool(token) + [f"Last-Event-ID: {header}"] * bool(header)
        transport.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        try:
            async with asyncio.timeout(PATIENCE_S):
                await tab.head.wait()
        except BaseException:
            tab.reset()
            raise
        return tab

    async def events(self, count: int) -> list[Said]:
        """The first so many of what is said."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.said) < count:
                assert not self.lost.is_set(), f"only {len(self.said)} events, then the end"
                self.changed.clear()
                await self.changed.wait()
        return self.said[:count]

    async def ids(self, count: int) -> list[str]:
        """The ids of the first so many events after the word that it begins."""
        return [one.event_id() for one in (await self.events(count + 1))[1:]]

    async def gone(self) -> bool:
        """The connection has ended; whether properly."""
        async with asyncio.timeout(PATIENCE_S):
            await self.lost.wait()
        return self.whole

    def last_id(self) -> str:
        return self.said[-1].id if self.said else ""

    def reset(self) -> None:
        """Gone without a word, as a crash leaves it."""
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        for event in (self.head, self.lost, self.changed):
            event.set()

    def data_received(self, data: bytes) -> None:
        self._bytes += data
        if not self.status and not self._take_head():
            return
        if "chunked" in self.headers.get("transfer-encoding", ""):
            self._dechunk()
        else:
            self.body += bytes(self._bytes)
            self._bytes.clear()
            self.whole = len(self.body) >= int(self.headers.get("content-length", 0))
            if self.whole:
                self.head.set()

    def _take_head(self) -> bool:
        head, end, rest = bytes(self._bytes).partition(b"\r\n\r\n")
        if not end:
            return False
        first, *lines = head.decode().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        self._bytes[:] = rest
        if "chunked" in self.headers.get("transfer-encoding", ""):
            self.head.set()
        return True

    def _dechunk(self) -> None:
        taken = 0
        while (end := self._bytes.find(b"\r\n", taken)) >= 0:
            size = int(self._bytes[taken:end], 16)
            if len(self._bytes) < end + size + 4:
                break
            self._frames += self._bytes[end + 2 : end + 2 + size]
            taken = end + size + 4
            if size == 0:
                self.whole = True
                self.transport.close()
                break
        del self._bytes[:taken]
        *frames, rest = bytes(self._frames).split(b"\n\n")
        self._frames[:] = rest
        for frame in frames:
            self._take_frame(frame)
        self.changed.set()

    def _take_frame(self, frame: bytes) -> None:
        fields = dict(line.split(b": ", 1) for line in frame.split(b"\n") if not line.startswith(b":"))
        if b"data" in fields:
            kind, name = fields.get(b"event", b"message"), fields.get(b"id", b"")
            self.said.append(Said(kind.decode(), name.decode(), fields[b"data"]))
        elif b"retry" in fields:
            self.retry_ms = int(fields[b"retry"])
        else:
            self.comments += 1
