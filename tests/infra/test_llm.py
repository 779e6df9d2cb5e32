"""The port to the model: what an endpoint streams becomes words and whole calls; what fails is told without secrets."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from app.errors import ProviderDown, ProviderRefused
from app.infra import llm
from app.infra.llm import Call, Message, Tool, Words
from app.sandbox.model import Model
from app.sandbox.model_wire import ModelFault
from app.sandbox.serve import running
from app.settings import BadSettings, Settings
from tests.infra.rawserver import Raw, listening

KEY = "sk-secret-of-the-tests"
TOOLS = [Tool("search_catalog", "Finds.", {"type": "object", "properties": {"query": {"type": "string"}}})]
HELLO = [Message("system", "You sell."), Message("user", "hello")]
BUY = [Message("user", "buy a key")]


def settings(url: str, **more: Any) -> Settings:
    return Settings(**{"model_url": f"{url}/v1", "model_name": "sandbox-1", "model_key": KEY} | more)


@asynccontextmanager
async def opened(url: str, **more: Any) -> AsyncIterator[llm.OpenAi]:
    port = llm.model(settings(url, **more))
    assert port is not None
    try:
        yield port
    finally:
        await port.close()


async def heard(port: llm.OpenAi, messages: list[Message], **more: Any) -> list[Words | Call]:
    async with aclosing(port.answer(messages, TOOLS, **more)) as pieces:
        return [piece async for piece in pieces]


@pytest.fixture
async def model() -> AsyncIterator[tuple[Model, llm.OpenAi]]:
    playing = Model(KEY)
    async with running(playing.app()) as url, opened(url) as port:
        yield playing, port


def streamed(*chunks: Any) -> bytes:
    """An answer that has exactly these chunks."""
    lines = [chunk if isinstance(chunk, str) else json.dumps(chunk) for chunk in chunks]
    body = "".join(f"data: {line}\n\n" for line in lines).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def delta(reason: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": reason}]}


async def test_no_name_no_model() -> None:
    assert llm.model(Settings(model_url="http://127.0.0.1:1/v1", model_key=KEY)) is None


@pytest.mark.parametrize("url", ["http://[::1", "http://127.0.0.1:eighty/v1", "http://127.0.0.1:99999"])
async def test_an_endpoint_that_is_no_address_stops_the_start(url: str) -> None:
    with pytest.raises(BadSettings, match="TORG_MODEL_URL"):
        llm.model(Settings(model_url=url, model_name="m"))


async def test_words_come_as_they_are_made(model: tuple[Model, llm.OpenAi]) -> None:
    playing, port = model
    pieces = await heard(port, HELLO)
    assert pieces == [Words(w) for w in ("Hello! ", "What ", "are ", "you ", "looking ", "for?")]
    given = playing.entries("request", "chat")[0].given
    assert given["messages"] == [{"role": "system", "content": "You sell."}, {"role": "user", "content": "hello"}]
    assert (given["model"], given["stream"], given["tool_choice"]) == ("sandbox-1", True, "auto")
    assert given["tools"][0]["function"] == {
        "name": "search_catalog", "description": "Finds.", "parameters": TOOLS[0].parameters,
    }  # fmt: skip


async def test_a_call_is_whole_and_its_result_goes_back(model: tuple[Model, llm.OpenAi]) -> None:
    playing, port = model
    (call,) = await heard(port, BUY)
    assert isinstance(call, Call)
    assert (call.name, json.loads(call.arguments)) == ("search_catalog", {"query": "key"})
    told = [*BUY, Message("assistant", "", [call]), Message("tool", '{"products":[]}', call_id=call.id)]
    assert all(isinstance(piece, Words) for piece in await heard(port, told, may_call=False))
    assert playing.entries("request", "chat")[-1].status == 200  # which checks that calls and results belong together
    assert playing.entries("request", "chat")[-1].given["tool_choice"] == "none"


@pytest.mark.parametrize(
    "fault",
    [
        ModelFault(status=500), ModelFault(status=429), ModelFault(cut=True), ModelFault(unended=True),
        ModelFault(garbled=True), ModelFault(status=200, body="<html>busy</html>", content_type="text/html"),
        ModelFault(status=200, body="[1, 2"), ModelFault(status=200, body=""), ModelFault(status=302, body=""),
    ],
    ids=("500", "429", "cut", "unended", "garbled", "html", "half", "empty", "elsewhere"),
)  # fmt: skip
async def test_whatever_is_no_answer_is_one_failure(model: tuple[Model, llm.OpenAi], fault: ModelFault) -> None:
    playing, port = model
    playing.faults.append(fault)
    with pytest.raises(ProviderDown) as caught:
        await heard(port, HELLO)
    assert not isinstance(caught.value, ProviderRefused)
    assert KEY not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert await heard(port, HELLO)  # the next one is a new one


async def test_a_refusal_is_an_answer() -> None:
    async with running(Model("another key").app()) as url, opened(url) as port:
        with pytest.raises(ProviderRefused, match="the model answered 401"):
            await heard(port, HELLO)


async def test_nobody_there() -> None:
    async with opened("http://127.0.0.1:1") as port:
        with pytest.raises(ProviderDown, match=r"^the model does not answer \(APIConnectionError\)$"):
            await heard(port, HELLO)


async def test_silence_ends_with_the_time(model: tuple[Model, llm.OpenAi]) -> None:
    playing, _ = model
    playing.faults += [ModelFault(wait_ms=60_000), ModelFault(stall_ms=60_000)]
    async with running(playing.app()) as url, opened(url, model_timeout_ms=200) as hasty:
        for _ in range(2):
            with pytest.raises(ProviderDown, match="APITimeoutError"):
                await heard(hasty, HELLO)


@pytest.mark.parametrize(
    "chunks",
    [
        ({"choices": None},),
        ({"choices": [{}]},),
        ({"choices": [{"index": 0, "delta": None}]},),
        ({"error": {"message": "overloaded"}},),
        ("null",),
        ("7",),
        ('"text"',),
        ("[" * 50_000 + "]" * 50_000,),
        (delta(content=7), delta("stop")),
        (delta(tool_calls=[{"index": n, "function": {"name": "x"}} for n in range(17)]), delta("tool_calls")),
        (delta(tool_calls=[{"index": 0, "function": {"arguments": "x" * 20_001}}]), delta("tool_calls")),
    ],
)
async def test_chunks_out_of_the_protocol_are_a_failure_or_nothing(chunks: tuple[Any, ...]) -> None:
    async with listening(Raw(streamed(*chunks, "[DONE]"))) as raw, opened(f"http://127.0.0.1:{raw.port}") as port:
        with pytest.raises(ProviderDown, match="the model"):
            await heard(port, HELLO)


async def test_endpoints_that_leave_things_out_are_understood() -> None:
    call = {"index": 0, "function": {"name": "search_catalog"}}
    chunks: tuple[Any, ...] = (
        {"choices": []},
        delta(content=""),
        delta(tool_calls=[call]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '{"query"'}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": ':"key"}'}}]),
        delta("tool_calls"),
    )  # no id, no role, no usage, no [DONE]
    async with listening(Raw(streamed(*chunks))) as raw, opened(f"http://127.0.0.1:{raw.port}", model_key="") as port:
        assert await heard(port, BUY) == [Call("call_0", "search_catalog", '{"query":"key"}')]
        assert b"\r\nauthorization: bearer none\r\n" in raw.requests[0].lower()


@pytest.mark.parametrize("index", [0, None])
async def test_calls_that_an_endpoint_does_not_number_are_told_apart(index: int | None) -> None:
    pieces: list[dict[str, Any]] = [
        {"id": "a", "function": {"name": "search_catalog", "arguments": ""}},
        {"function": {"arguments": '{"query":'}},
        {"id": "x", "function": {"arguments": '"key"}'}},  # some give every piece an id of its own
        {"id": "b", "function": {"name": "my_orders", "arguments": "{}"}},
        {"id": "c", "function": {"name": "my_orders"}},
        {"id": "d", "function": {"name": "search_", "arguments": ""}},
        {"id": "d", "function": {"name": "catalog", "arguments": "{}"}},
    ]
    chunks = [*(delta(tool_calls=[{"index": index} | piece]) for piece in pieces), delta("tool_calls")]
    async with listening(Raw(streamed(*chunks))) as raw, opened(f"http://127.0.0.1:{raw.port}") as port:
        assert await heard(port, BUY) == [
            Call("a", "search_catalog", '{"query":"key"}'), Call("b", "my_orders", "{}"), Call("c", "my_orders", ""),
            Call("d", "search_catalog", "{}"),
        ]  # fmt: skip


async def test_what_postgres_cannot_hold_is_left_out() -> None:
    chunks = (delta(content="a\x00b\ud800c"), delta("stop"))
    async with listening(Raw(streamed(*chunks, "[DONE]"))) as raw, opened(f"http://127.0.0.1:{raw.port}") as port:
        assert await heard(port, [Message("user", "half \ud83d")]) == [Words("ab?c")]


async def test_who_stops_listening_ends_the_answer(model: tuple[Model, llm.OpenAi]) -> None:
    playing, port = model
    playing.piece_ms = 60_000
    listening_ = asyncio.create_task(heard(port, HELLO))
    while not playing.entries("request", "chat"):  # noqa: ASYNC110  (the journal sets no event)
        await asyncio.sleep(0.01)
    listening_.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listening_


async def test_nothing_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "of-the-environment")
    chunks = (delta(content="yes"), delta("stop"))
    async with listening(Raw(streamed(*chunks))) as raw, opened(f"http://127.0.0.1:{raw.port}") as port:
        assert await heard(port, HELLO) == [Words("yes")]
        assert b"of-the-environment" not in raw.requests[0]
        assert f"bearer {KEY}".encode() in raw.requests[0].lower()
