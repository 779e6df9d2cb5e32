"""What every request has over real HTTP: a body that comes in time, and answers that no cache keeps for others."""

import asyncio

import pytest

from app.web import requests
from tests.world import World


async def answer_to(world: World, head: str, *parts: bytes, every_s: float) -> bytes:
    """What comes back while the body drips in; until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.shop.deps.settings.port)
    answered = asyncio.create_task(reader.read())
    writer.write(head.encode())
    for part in parts:
        if not answered.done():
            writer.write(part)
            await asyncio.wait([answered], timeout=every_s)
    async with asyncio.timeout(30):
        answer = await answered
    writer.close()
    return answer


@pytest.mark.parametrize("path", ["/api/session", "/api/orders", "/api/webhook/crystalpay"])
async def test_a_body_that_drips_is_cut_off(world: World, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(requests, "BODY_S", 0.2)
    token = (await world.buyer()).headers["Authorization"]
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n"
        f"Authorization: {token}\r\nIdempotency-Key: k\r\n\r\n"
    )
    told = await answer_to(world, head, b" ", every_s=0.1)
    assert told.startswith(b"HTTP/1.1 408 ")
    assert b'"type":"/problems/too-slow"' in told


async def test_a_slow_body_that_is_there_in_time_is_read(world: World) -> None:
    body = b'{"init_data":"x"}'
    head = (
        "POST /api/session HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    told = await answer_to(world, head, *(body[n : n + 4] for n in range(0, len(body), 4)), every_s=0.02)
    assert told.startswith(b"HTTP/1.1 401 ")


async def test_what_is_for_one_caller_is_kept_by_no_cache(world: World) -> None:
    ann = await world.buyer()
    for path in ("/api/me", "/api/orders", "/api/orders/none"):
        assert (await ann.get(path)).headers["cache-control"] == "no-store"
    assert "cache-control" not in (await world.http.get("/api/catalog")).headers


async def test_a_refusal_says_how_to_prove_oneself(world: World) -> None:
    answer = await world.http.get("/api/me")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
