"""fakeredis behind the protocol of `lua.Redis`, for tests that need no server; a real one is the judge (DESIGN 3)."""

from collections.abc import Sequence
from typing import Any

from fakeredis import FakeAsyncRedis
from redis.exceptions import ResponseError

from app.infra.lua import CommandFailed, Part, Script, ScriptFailed


class FakeRedis:
    """One empty fake server. Its scripts run with line 1 blank: fakeredis does not know the shebang."""

    def __init__(self) -> None:
        self.client = FakeAsyncRedis()

    async def evalsha(self, script: Script[Any], keys: Sequence[Part], args: Sequence[Part]) -> object:
        try:
            return await self.command("EVAL", script.body, len(keys), *keys, *args)
        except CommandFailed as error:
            raise ScriptFailed(f"{script.name}: {error}") from None

    async def command(self, *parts: Part) -> object:
        plain = [_blanked(part) if isinstance(part, str) else part for part in parts]
        try:
            return await self.client.execute_command(*plain)  # type: ignore[no-untyped-call]
        except ResponseError as error:
            raise CommandFailed(str(error)) from None

    async def aclose(self) -> None:
        await self.client.aclose()


def _blanked(body: str) -> str:
    """Line 1 gives way to an empty one, so that the lines of errors are still those of the file."""
    return "\n" + body.partition("\n")[2] if body.startswith("#!lua") else body
