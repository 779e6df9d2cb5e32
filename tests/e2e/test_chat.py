"""Answers that are being written when `torg web` is told to leave: they end in good order, and soon enough."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic
from uuid import uuid4

import httpx
import pytest
from httpx_sse import aconnect_sse

from app.base import clock
from app.infra.embedded import Servers
from app.sandbox.initdata import sign_init_data
from app.sandbox.model import Model
from app.sandbox.model_wire import ModelFault
from app.sandbox.serve import running
from app.web.server import GRACE_S
from tests.e2e.stage import environment_of
from tests.e2e.traps import PATIENCE_S, Doors, Process, Zygote, until
from tests.world import BOT_TOKEN, reserved_port, settings_for

SOON_S = 2.0  # beyond what open answers are given


class Chatting:
    """`torg web`, its model, and a client that is signed in."""

    def __init__(self, process: Process, model: Model, http: httpx.AsyncClient) -> None:
        self.process, self.model, self.http = process, model, http
        self.begun = 0  # answers whose first word is there

    async def ask(self, text: str) -> list[str]:
        """What kinds of events an answer has."""
        kinds: list[str] = []
        async with aconnect_sse(self.http, "POST", "/api/chat", json={"text": text, "id": str(uuid4())}) as source:
            async for event in source.aiter_sse():
                self.begun += not kinds
                kinds.append(event.event)
        return kinds


@pytest.fixture
async def chatting(
    zygote: Zygote, servers: Servers, pg_url: str, redis: object, tmp_path: Path
) -> AsyncIterator[Chatting]:
    async with AsyncExitStack() as stack:
        model, port = Model("key"), reserved_port(stack)
        url = await stack.enter_async_context(running(model.app()))
        about = {"model_url": f"{url}/v1", "model_name": "sandbox-1", "model_key": "key"}
        settings = settings_for(pg_url, servers.redis_url, port=port, **about)
        process = Process("web", zygote, Doors(), environment_of(settings), tmp_path / "web.log")
        process.start()
        stack.callback(process.kill)

        async def listens() -> bool:
            with socket.socket() as peer:
                return peer.connect_ex(("127.0.0.1", port)) == 0

        await until(listens, "web listens", process.tail)
        shop = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S)
        http = await stack.enter_async_context(shop)
        init_data = sign_init_data(BOT_TOKEN, {"id": 1001, "first_name": "Ann"}, auth_date=clock.unix_s())
        entered = await http.post("/api/session", json={"init_data": init_data})
        http.headers["Authorization"] = f"Bearer {entered.json()['token']}"
        yield Chatting(process, model, http)


def state(pid: int) -> str:
    """Z: it has ended."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def test_after_sigterm_what_is_nearly_said_is_said_and_the_rest_ends(chatting: Chatting) -> None:
    assert (await chatting.ask("Hello"))[-1] == "done"
    chatting.begun = 0
    chatting.model.faults += [ModelFault(on="chat", stall_ms=60_000), ModelFault(on="chat", stall_ms=1000)]
    endless = asyncio.create_task(chatting.ask("Hi"))

    async def begun() -> bool:
        return chatting.begun == (1 if brief is None else 2)

    brief = None
    await until(begun, "the endless answer has begun", chatting.process.tail)
    brief = asyncio.create_task(chatting.ask("Hi there"))
    await until(begun, "the brief answer has begun", chatting.process.tail)
    asked_s = monotonic()
    os.kill(chatting.process.pid, signal.SIGTERM)
    assert (await brief)[-1] == "done"
    assert await endless == ["chunk", "error"]
    assert monotonic() - asked_s < GRACE_S
    pid, chatting.process.pid = chatting.process.pid, 0

    async def left() -> bool:
        return state(pid) == "Z"

    await until(left, "web has left", chatting.process.tail, GRACE_S + SOON_S)
    assert chatting.process.zygote.ask("kill", pid) == 128 + signal.SIGTERM
    assert '"level": "error"' not in "\n".join(chatting.process.lines())
