"""Callers of HTTP that cost a few microseconds a request, so that on 2 cores a bench measures what it calls.

Requests are whole bytes made beforehand; an answer is read as far as its status and its length.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter, process_time
from typing import cast
from urllib.parse import urlsplit

import msgspec

from bench.report import Round

PATIENCE_S = 120

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


class Calls(msgspec.Struct, frozen=True):
    """What they took, how many were not answered with 200, and the CPU seconds of the callers themselves."""

    round: Round
    refused: int
    cpu_s: float


class Caller(asyncio.Protocol):
    """One connection: its next request leaves when the last is answered."""

    def __init__(self, requests: Iterator[bytes], calls_ms: list[float], over: "asyncio.Future[None]") -> None:
        self.requests, self.calls_ms, self.over = requests, calls_ms, over
        self.refused, self.start, self.came = 0, 0.0, b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def call(self) -> None:
        request = next(self.requests, None)
        if request is None:
            self.over.set_result(None)
            return
        self.start = perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.came += data
        head, end, body = self.came.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        if not end or (length and len(body) < int(length[1])):
            return
        self.calls_ms.append((perf_counter() - self.start) * 1000)
        self.refused += not head.startswith(b"HTTP/1.1 200")
        self.came = b""
        self.call()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.over.done():
            self.over.set_exception(error or ConnectionError("the server hung up"))


def post(url: str, body: bytes, headers: Mapping[str, str], method: str = "POST") -> bytes:
    """The bytes of one request."""
    parts = urlsplit(url)
    given = {"host": parts.netloc, "content-length": str(len(body)), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"{method} {parts.path} HTTP/1.1\r\n{lines}\r\n".encode() + body


async def called(urls: Sequence[str], requests: Sequence[bytes], callers: int) -> Calls:
    """Every request is answered by one of these addresses, over which the callers are spread evenly."""
    loop, waiting = asyncio.get_running_loop(), iter(requests)
    calls_ms: list[float] = []
    connected = []
    for number in range(callers):
        at = urlsplit(urls[number % len(urls)])
        _, one = await loop.create_connection(
            lambda: Caller(waiting, calls_ms, loop.create_future()), at.hostname or "", at.port or 80
        )
        connected.append(one)
    start, cpu_s = perf_counter(), process_time()
    async with asyncio.timeout(PATIENCE_S):
        for one in connected:
            one.call()
        await asyncio.gather(*(one.over for one in connected))
    took_s, cpu_s = perf_counter() - start, process_time() - cpu_s
    for one in connected:
        one.transport.close()
    return Calls(Round(calls_ms, took_s), sum(one.refused for one in connected), cpu_s)
