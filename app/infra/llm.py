"""The model as Torg uses it: any OpenAI-compatible endpoint, behind a stream of typed pieces.

The library takes more than a second of processor time to import, so that happens in a thread while the process works.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import urlsplit

import msgspec

from app.errors import ProviderDown, ProviderRefused
from app.settings import BadSettings, Settings

if TYPE_CHECKING:
    from openai import AsyncOpenAI

OPENAI_URL = "https://api.openai.com/v1"
MOST_CALLS = 16  # in one answer
MOST_ARGUMENTS = 20_000  # characters, in one answer


class Words(msgspec.Struct, frozen=True):
    """A piece of the answer's text."""

    text: str


class Call(msgspec.Struct, frozen=True):
    """The model wants a tool used: whole, but as unchecked as the model is."""

    id: str
    name: str
    arguments: str  # JSON, or what the model takes for it


class Tool(msgspec.Struct, frozen=True):
    """A tool as the model reads of it."""

    name: str
    description: str
    parameters: dict[str, Any]  # JSON Schema


class Message(msgspec.Struct, frozen=True):
    """A line of what the model is told."""

    role: Literal["system", "user", "assistant", "tool"]
    text: str
    calls: Sequence[Call] = ()  # that this line of the assistant's made
    call_id: str = ""  # which this line of a tool's answers


class Model(Protocol):
    """One model. An answer is asked for once: a second try would come too late for whoever waits."""

    def answer(
        self, messages: Sequence[Message], tools: Sequence[Tool], *, may_call: bool = True
    ) -> AsyncGenerator[Words | Call, None]:
        """The answer while it is made, its calls at the end. Whoever stops listening closes it.

        Raises: ProviderDown, ProviderRefused; neither the endpoint's address nor the key is in their texts.
        """
        ...

    async def close(self) -> None: ...


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Told(msgspec.Struct):
    """A piece of a call."""

    index: int | None = 0
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    tool_calls: list[_Told] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    """What of a chunk counts here; the one that tells the usage has no choices."""

    choices: list[_Choice]


class OpenAi:
    """A model behind the `openai` library.

    Its call for any endpoint is used and not the one for chat: that one spends half of its 10 ms of processor time on
    walking through the request and on objects for chunks, without checking any.
    """

    def __init__(self, settings: Settings) -> None:
        self.name = settings.model_name
        loop = asyncio.get_running_loop()
        timeout_s = settings.model_timeout_ms / 1000
        self.made = loop.run_in_executor(None, _client, settings.model_url or OPENAI_URL, settings.model_key, timeout_s)

    async def answer(
        self, messages: Sequence[Message], tools: Sequence[Tool], *, may_call: bool = True
    ) -> AsyncGenerator[Words | Call, None]:
        client = await asyncio.shield(self.made)
        import openai  # there by now

        body: dict[str, Any] = {"model": self.name, "messages": [_message(m) for m in messages], "stream": True}
        if tools:
            body["tools"] = [{"type": "function", "function": msgspec.to_builtins(tool)} for tool in tools]
            body["tool_choice"] = "auto" if may_call else "none"
        answer = _Answer()
        try:
            async with await client.post(
                "/chat/completions", body=body, cast_to=object, stream=True, stream_cls=openai.AsyncStream[object]
            ) as stream:
                async for chunk in stream:
                    if text := _clean(answer.read(msgspec.convert(chunk, _Chunk))):
                        yield Words(text)
        except openai.APIStatusError as error:
            refused = 400 <= error.status_code < 500 and error.status_code != 429
            kind = ProviderRefused if refused else ProviderDown
            raise kind(f"the model answered {error.status_code}") from None  # the chained error has the URL
        except (openai.OpenAIError, ValueError, RecursionError) as error:  # the last two: no JSON, or not the protocol
            raise ProviderDown(f"the model does not answer ({type(error).__name__})") from None
        if not answer.ended:
            raise ProviderDown("the model broke off")
        for call in answer.calls():
            yield call

    async def close(self) -> None:
        await (await self.made).close()


class _Answer:
    """What has come of one answer."""

    def __init__(self) -> None:
        self.parts: list[list[str]] = []  # id, name and arguments of each call
        self.newest: dict[int, list[str]] = {}  # by the endpoint's index; some give all calls the same, or none
        self.size = 0
        self.ended = False

    def read(self, chunk: _Chunk) -> str:
        """The text in the chunk; what it has of calls is kept. Raises: ValueError for calls out of proportion."""
        if not chunk.choices:
            return ""
        choice = chunk.choices[0]
        self.ended = self.ended or bool(choice.finish_reason)
        for told in choice.delta.tool_calls or ():
            part = self._part(told)
            part[0] = part[0] or told.id or ""
            if told.function:
                part[1] += told.function.name or ""
                part[2] += told.function.arguments or ""
                self.size += len(told.function.name or "") + len(told.function.arguments or "")
        if len(self.parts) > MOST_CALLS or self.size > MOST_ARGUMENTS:
            raise ValueError("calls out of proportion")
        return choice.delta.content or ""

    def _part(self, told: _Told) -> list[str]:
        """The call that this piece is of. A name with another id begins the next one; without ids, after arguments."""
        part = self.newest.get(told.index or 0)
        named = told.function and told.function.name
        if part is None or (named and part[1] and (told.id != part[0] if told.id and part[0] else part[2])):
            part = self.newest[told.index or 0] = ["", "", ""]
            self.parts.append(part)
        return part

    def calls(self) -> list[Call]:
        """The calls, whole."""
        return [
            Call(_clean(id) or f"call_{n}", _clean(name), _clean(given))
            for n, (id, name, given) in enumerate(self.parts)
        ]


def _clean(text: str) -> str:
    """The text without what neither UTF-8 nor Postgres can hold: halves of characters, and NUL."""
    return text.encode(errors="replace").decode().replace("\0", "")


def _message(message: Message) -> dict[str, Any]:
    told: dict[str, Any] = {"role": message.role, "content": _clean(message.text)}
    if message.calls:
        told["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.calls
        ]
    if message.call_id:
        told["tool_call_id"] = message.call_id
    return told


def _client(url: str, key: str, timeout_s: float) -> "AsyncOpenAI":
    from openai import AsyncOpenAI

    # An endpoint of one's own may want no key; the library wants one.
    client = AsyncOpenAI(base_url=url, api_key=key or "none", timeout=timeout_s, max_retries=0)
    client.organization = client.project = None  # which it takes from the environment; nothing but Settings reads that
    return client


def model(settings: Settings) -> OpenAi | None:
    """The model of these settings; None: there is none. Raises: BadSettings."""
    try:
        urlsplit(settings.model_url).port  # noqa: B018  (it looks at the whole address)
    except ValueError:
        raise BadSettings("TORG_MODEL_URL: not an address") from None
    return OpenAi(settings) if settings.model_name else None
