"""The model simulator speaks the chat completions protocol, as OpenAI's own client finds, and misbehaves as ordered."""

import json
from collections.abc import AsyncIterator
from typing import Any, cast

import httpx
import msgspec
import openai
import pytest

from app.sandbox import model_script
from app.sandbox.model import Model
from app.sandbox.model_wire import ModelFault
from app.sandbox.serve import make, running

KEY = "sk-of-the-tests"
NAMES = ("search_catalog", "offer_payment", "my_orders", "add_to_cart", "hand_over_to_human")
TOOLS: Any = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in NAMES]
HITS = {"products": [{"id": 7, "title": "Gone", "price": "1.00 RUB", "left": 0},
                     {"id": 8, "title": "Office Key", "price": "45.00 RUB", "left": 3}]}  # fmt: skip


class World(msgspec.Struct):
    """A running model, OpenAI's client of it, and a plain one."""

    model: Model
    client: openai.AsyncOpenAI
    http: httpx.AsyncClient

    def fault(self, **fields: Any) -> None:
        self.model.faults.append(ModelFault(**fields))

    async def stream(self, *messages: Any, **more: Any) -> list[Any]:
        told: Any = [{"role": "user", "content": m} if isinstance(m, str) else m for m in messages]
        given: Any = {"model": "sandbox-1", "messages": told, "tools": TOOLS} | more
        async with await self.client.chat.completions.create(stream=True, **given) as stream:
            return [chunk async for chunk in cast(AsyncIterator[Any], stream)]

    async def raw(self, body: Any, key: str = KEY) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"}
        return await self.http.post("/v1/chat/completions", content=json.dumps(body), headers=headers)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    model = Model(KEY)
    async with (
        running(model.app()) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=30) as client,
        httpx.AsyncClient(base_url=url, trust_env=False) as http,
    ):
        yield World(model, client, http)


async def rest(stream: Any) -> list[Any]:
    return [chunk async for chunk in stream]


def text_of(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def calls_of(chunks: list[Any]) -> list[tuple[str, str, str]]:
    """Id, name and arguments of each call, put together."""
    found: dict[int, list[str]] = {}
    for chunk in chunks:
        for told in (chunk.choices[0].delta.tool_calls if chunk.choices else None) or ():
            part = found.setdefault(told.index, ["", "", ""])
            part[0] += told.id or ""
            part[1] += told.function.name or ""
            part[2] += told.function.arguments or ""
    return [(part[0], part[1], part[2]) for part in found.values()]


def asked_and_told(words: str, name: str, told: Any, *, id: str = "call_1_0") -> list[Any]:
    """The buyer's words, the call that the assistant made, and what came of it."""
    call = {"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}}
    return [
        {"role": "user", "content": words},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": id, "content": json.dumps(told)},
    ]


async def test_words_come_in_pieces_after_the_role_and_before_the_reason(world: World) -> None:
    chunks = await world.stream("hello", stream_options={"include_usage": True})
    assert chunks[0].choices[0].delta.role == "assistant"
    assert text_of(chunks) == "Hello! What are you looking for?"
    assert len(chunks) > 6
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 6
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1


async def test_a_call_comes_with_its_name_first_and_its_arguments_in_pieces(world: World) -> None:
    chunks = await world.stream("I want to buy an office key")
    ((id_, name, arguments),) = calls_of(chunks)
    assert (name, json.loads(arguments)) == ("search_catalog", {"query": "office key"})
    assert id_.startswith("call_")
    assert len([chunk for chunk in chunks if chunk.choices[0].delta.tool_calls]) > 3
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


async def test_the_same_without_a_stream(world: World) -> None:
    given: Any = {"model": "sandbox-1", "messages": [{"role": "user", "content": "Куплю ключ"}], "tools": TOOLS}
    whole = await world.client.chat.completions.create(**given)
    call = whole.choices[0].message.tool_calls[0]
    assert (call.function.name, json.loads(call.function.arguments)) == ("search_catalog", {"query": "ключ"})
    assert (whole.choices[0].finish_reason, whole.object) == ("tool_calls", "chat.completion")


async def test_who_wants_to_buy_gets_an_offer_of_what_is_left(world: World) -> None:
    asked = asked_and_told("buy 2 office keys", "search_catalog", HITS)
    ((_, name, arguments),) = calls_of(await world.stream(*asked))
    assert (name, json.loads(arguments)) == ("offer_payment", {"product_id": 8, "quantity": 2})
    asked = asked_and_told("office key into my cart", "search_catalog", HITS)
    ((_, name, arguments),) = calls_of(await world.stream(*asked))
    assert (name, json.loads(arguments)) == ("add_to_cart", {"product_id": 8, "quantity": 1})


@pytest.mark.parametrize(
    ("words", "name", "told", "says"),
    [
        ("office?", "search_catalog", HITS, "We have: Office Key, 45.00 RUB."),
        ("куплю ключ", "offer_payment", {"offered": {"title": "Ключ", "quantity": 1, "price": "1.00 RUB"}},
         "Нажмите кнопку, чтобы купить: 1 × Ключ, 1.00 RUB."),
        ("купити ключі", "offer_payment", {"error": "sold out"}, "На жаль: sold out."),
        ("my orders", "my_orders", {"orders": [{"number": 3, "status": "paid", "total": "1.00 RUB"}]},
         "Your orders:\n3: paid, 1.00 RUB"),
        ("де моє замовлення", "my_orders", {"orders": []}, "У вас ще немає замовлень."),
        ("a human", "hand_over_to_human", {"handed_over": True}, "A human will answer you here."),
        ("banana", "search_catalog", {"products": []}, "I found nothing that fits."),
    ],
)  # fmt: skip
async def test_what_a_tool_told_is_put_into_words(world: World, words: str, name: str, told: Any, says: str) -> None:
    assert text_of(await world.stream(*asked_and_told(words, name, told))) == says


PROMPT = {
    "role": "system",
    "content": '<catalog>\n[id, title, category, price]\n[8,"Office Key","Keys","45.00 RUB"]\n</catalog>\n'
    "Answer in Ukrainian, unless the buyer writes in another language: then in that one.",
}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("What is on sale?", "We have: Office Key, 45.00 RUB."),
        ("Привет, что-то в подарок", "У нас є: Office Key, 45.00 RUB."),
        ("Щось у подарунок", "У нас є: Office Key, 45.00 RUB."),
        ("мы ищем что-то в подарок", "У нас есть: Office Key, 45.00 RUB."),
    ],
)  # fmt: skip
async def test_who_asks_for_anything_hears_of_the_prompts_catalog(world: World, words: str, says: str) -> None:
    assert text_of(await world.stream(PROMPT, words)) == says


async def test_a_query_is_as_long_as_the_tool_takes(world: World) -> None:
    ((_, _, arguments),) = calls_of(await world.stream("x" * 4096))
    assert json.loads(arguments) == {"query": "x" * model_script.LONGEST_QUERY}


async def test_it_tries_the_words_one_by_one_and_gives_up(world: World) -> None:
    asked: list[Any] = ["green office keys"]
    tried = []
    while calls := calls_of(await world.stream(*asked)):
        tried.append(json.loads(calls[0][2])["query"])
        asked += asked_and_told("", "search_catalog", {"products": []}, id=f"c{len(tried)}")[1:]
    assert tried == ["green office keys", "office", "green"]


async def test_who_says_only_yes_means_what_was_named_before(world: World) -> None:
    before = [{"role": "user", "content": "office"}, {"role": "assistant", "content": "We have: Office Key."}]
    ((_, name, arguments),) = calls_of(await world.stream(*before, "I will take it"))
    assert (name, json.loads(arguments)["query"]) == ("search_catalog", "office")


async def test_a_model_that_may_not_call_speaks(world: World) -> None:
    assert text_of(await world.stream("office", tool_choice="none")) != ""


async def test_models_are_listed_for_who_has_the_key(world: World) -> None:
    assert [model.id async for model in await world.client.models.list()] == ["sandbox-1"]
    refused = await world.raw({"model": "m", "messages": [{"role": "user", "content": "hi"}]}, key="another")
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    with pytest.raises(openai.AuthenticationError):
        await world.client.with_options(api_key="another").models.list()


@pytest.mark.parametrize(
    "messages",
    [
        [],
        "hi",
        [{"role": "king", "content": "hi"}],
        asked_and_told("x", "my_orders", {})[:2],
        [asked_and_told("x", "my_orders", {})[2]],
        [*asked_and_told("x", "my_orders", {})[:2], {"role": "user", "content": "hi"}],
    ],
)
async def test_what_the_real_one_refuses_is_refused(world: World, messages: Any) -> None:
    answer = await world.raw({"model": "m", "messages": messages, "tools": TOOLS})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


async def test_a_stream_ends_with_done_over_the_wire(world: World) -> None:
    answer = await world.raw({"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in answer.text.split("\n") if line]
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith('data: {"') for line in lines[:-1])


@pytest.mark.parametrize(("status", "error"), [(429, openai.RateLimitError), (500, openai.InternalServerError)])
async def test_it_fails_by_status(world: World, status: int, error: type[Exception]) -> None:
    world.fault(status=status)
    with pytest.raises(error):
        await world.stream("hello")
    assert text_of(await world.stream("hello"))  # once


async def test_it_stalls_before_the_first_byte_and_in_the_middle(world: World) -> None:
    hasty = world.client.with_options(timeout=0.2)
    given: Any = {"model": "sandbox-1", "messages": [{"role": "user", "content": "hello"}], "stream": True}
    world.fault(wait_ms=60_000)
    with pytest.raises(openai.APITimeoutError):
        await hasty.chat.completions.create(**given)
    world.fault(stall_ms=60_000)
    stream = await hasty.chat.completions.create(**given)
    assert (await anext(stream)).choices[0].delta.role == "assistant"
    with pytest.raises(openai.APITimeoutError):
        await rest(stream)


async def test_it_breaks_off(world: World) -> None:
    world.fault(cut=True)
    with pytest.raises(openai.APIConnectionError):
        await world.stream("hello")
    world.fault(unended=True)
    chunks = await world.stream("hello")
    assert chunks[-1].choices[0].finish_reason is None


async def test_it_garbles_a_chunk(world: World) -> None:
    world.fault(garbled=True)
    with pytest.raises(ValueError, match="Unterminated string"):
        await world.stream("hello")


async def test_it_loses_its_way(world: World) -> None:
    for instead, name in (("unknown_tool", "delete_all_orders"), ("ghost_offer", "offer_payment"),
                          ("broken_arguments", "offer_payment"), ("tool_loop", "my_orders")):  # fmt: skip
        world.fault(instead=instead)
        assert calls_of(await world.stream("hello"))[0][1] == name
    world.fault(instead="huge_text")
    assert len(text_of(await world.stream("hello"))) >= model_script.HUGE
    world.fault(instead="nothing")
    assert text_of(await world.stream("hello")) == ""


async def test_faults_are_ordered_over_http_and_the_journal_tells(world: World) -> None:
    assert (await world.http.post("/sandbox/faults", json={"instead": "no such thing"})).status_code == 400
    await world.http.post("/sandbox/faults", json={"on": "chat", "status": 503})
    with pytest.raises(openai.InternalServerError):
        await world.stream("hello")
    told = (await world.http.get("/sandbox/log")).json()
    assert [(entry["name"], entry["status"]) for entry in told] == [("chat", 503)]
    assert told[0]["given"]["messages"][0]["content"] == "hello"


def test_it_is_made_by_name() -> None:
    assert isinstance(make("model", key=KEY), Model)
