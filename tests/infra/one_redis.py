"""One Redis server of one test alone, whatever is done to it, and what asks it."""

import asyncio
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec

from app.errors import RedisDown
from app.infra import embedded
from app.infra.pipe import Pipe

PATIENCE_S = 10.0
SCRIPTS = {
    "test/echo": """\
#!lua flags=
-- test/echo: count the call and give its argument back.
-- reply  echoed word
-- cost   O(1), at most 1 command
-- slot   {t}
local calls = KEYS[1]  -- string  calls that ran
local word  = ARGV[1]  -- bytes   unique to the call
redis.call("INCR", calls)
return {"echoed", word}
""",
    "test/fail": """\
#!lua flags=
-- test/fail: raise the error of this name.
-- reply  never
-- cost   O(1), 0 commands
-- slot   {t}
local text = ARGV[1]  -- bytes  first word and text of the error
if text then
  return redis.error_reply(text)
end
return {"never"}
""",
}


class Echoed(msgspec.Struct, frozen=True):
    word: bytes


class Never(msgspec.Struct, frozen=True):
    pass


class Server:
    """One valkey-server of this test alone, on a socket of its own; also to be killed and frozen."""

    def __init__(self) -> None:
        self.dir = tempfile.mkdtemp(prefix="t-")  # a unix socket's path has room for 107 bytes, tmp_path may be longer
        self.url = f"unix://{self.dir}/s?db=3"
        self.start()

    def start(self, *more: str) -> None:
        place = ["--port", "0", "--unixsocket", f"{self.dir}/s", "--dir", self.dir]
        options = ["--save", "", "--loglevel", "warning", "--enable-debug-command", "local"]
        self.process = subprocess.Popen([embedded._redis(), *place, *options, *more], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE_S
        with socket.socket(socket.AF_UNIX) as peer:
            while peer.connect_ex(f"{self.dir}/s"):
                assert time.monotonic() < deadline
                time.sleep(0.002)

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()  # also when frozen
        self.process.wait()
        Path(f"{self.dir}/s").unlink(missing_ok=True)


class Dial(Protocol):
    """Opens one more Pipe, to this test's server unless told otherwise; it is closed whatever happens to the test."""

    def __call__(self, url: str = "", timeout_ms: int = 2000) -> Pipe: ...


async def until(true: Callable[[], Awaitable[object]]) -> None:
    """Waits until `true` stops raising RedisDown."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await true()
                return
            except RedisDown:
                await asyncio.sleep(0.01)


async def settled(*calls: Awaitable[Any]) -> list[Any]:
    return await asyncio.gather(*calls, return_exceptions=True)


@asynccontextmanager
async def slow_peer(pause_s: float) -> AsyncIterator[str]:
    """Somebody who answers every command after a pause, one by one."""

    busy: set[asyncio.Task[None] | None] = set()

    async def come(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        busy.add(asyncio.current_task())
        try:
            while line := await reader.readline():
                if line.startswith(b"*"):
                    await asyncio.sleep(pause_s)
                    writer.write(b"+OK\r\n")
        finally:
            writer.close()

    async with await asyncio.start_server(come, "127.0.0.1", 0) as peer:
        yield f"redis://127.0.0.1:{peer.sockets[0].getsockname()[1]}"
    for task in filter(None, busy):
        task.cancel()
        await asyncio.wait([task])


def bytes_of(reply: object) -> bytes:
    assert isinstance(reply, bytes)
    return reply
