"""The catalog's own scripts in a Lua of this process, over a table, with a clock that a test turns.

For histories that are too many and too exact for a server; what real servers make of the scripts is tested in
tests/lua. Every call is two steps, before it runs and after it ran, and may be lost at either.
"""

import types
from collections.abc import Callable, Generator, Sequence
from typing import Any

from lupa.lua51 import LuaRuntime

from app.errors import RedisDown
from app.infra.lua import Part, Script

# Strings and hashes that end, as far as the scripts use them; written in Lua because crossing over is what costs time.
SERVER = """
data, ends, now_us = {}, {}, 0
local function read(key)
  if data[key] and ends[key] <= now_us then data[key] = nil end
  return data[key]
end
local commands = {
  TIME = function() return {string.format("%.0f", math.floor(now_us / 1000000)), tostring(now_us % 1000000)} end,
  GET = function(key) return read(key) or false end,
  HGET = function(key, field) return (read(key) or {})[field] or false end,
  HMGET = function(key, a, b) local there = read(key) or {}; return {there[a] or false, there[b] or false} end,
  HSET = function(key, ...)
    local there, pairs = read(key), {...}
    if not there then there = {}; data[key], ends[key] = there, math.huge end
    for i = 1, #pairs, 2 do there[pairs[i]] = pairs[i + 1] end
  end,
  SET = function(key, value, px, ms) assert(px == "PX"); data[key], ends[key] = value, now_us + ms * 1000 end,
  DEL = function(key) data[key] = nil end,
  PEXPIRE = function(key, ms) ends[key] = now_us + ms * 1000 end,
}
redis = {call = function(name, ...) return commands[name](...) end}
"""
SCRIPT = "function(keys, ...) local all = {...}; KEYS = {unpack(all, 1, keys)}; ARGV = {unpack(all, keys + 1)}\n"


@types.coroutine
def step(pause_s: float = 0.0) -> Generator[float, None, None]:
    """Here others may go first; whoever drives the coroutines is told how long this one sleeps."""
    yield pause_s


class LittleRedis:
    """One database."""

    def __init__(self) -> None:
        self.now_us = 1_790_000_000_000_000
        self.is_lost: Callable[[], bool] = lambda: False  # asked at each step of each call
        self._lua = LuaRuntime(encoding="latin-1", unpack_returned_tuples=False)
        self._lua.execute(SERVER)
        self._world = self._lua.globals()
        self._compiled: dict[str, Any] = {}

    def flush(self) -> None:
        self._world.data = self._lua.table()

    async def evalsha(self, script: Script[Any], keys: Sequence[Part], args: Sequence[Part]) -> object:
        await self._step()
        self._world.now_us = self.now_us
        run = self._compiled.get(script.body)
        if run is None:
            run = self._compiled[script.body] = self._lua.eval(SCRIPT + script.body.partition("\n")[2] + "\nend")
        reply = run(len(keys), *[_text(part) for part in (*keys, *args)])
        await self._step()
        return [part.encode("latin-1") if isinstance(part, str) else int(part) for part in reply.values()]

    async def command(self, *parts: Part) -> object:
        raise NotImplementedError

    async def _step(self) -> None:
        await step()
        if self.is_lost():
            raise RedisDown("lost")


def _text(part: Part) -> str:
    return part.decode("latin-1") if isinstance(part, bytes) else str(part)
