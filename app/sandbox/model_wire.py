"""Chat completions on the wire: what a request must be, and an answer as one object or as the chunks of a stream."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from app.sandbox.party import Answer, Fault

WORD = re.compile(r"\s*\S+\s*")
PIECE = 7  # characters of a tool's arguments in one chunk

Instead = Literal["unknown_tool", "broken_arguments", "tool_loop", "huge_text", "ghost_offer", "nothing"]


class ModelFault(Fault, kw_only=True):
    """A fault of the endpoint; `on` is chat or models. What is about a stream needs one.

    `hold_ms` is before its first byte.
    """

    stall_ms: int = 0  # in the middle of the stream
    cut: bool = False  # the connection is gone in the middle of it
    unended: bool = False  # it ends in the middle, in good order: no reason, no [DONE]
    garbled: bool = False  # a chunk in the middle is no JSON
    instead: Instead | None = None  # what the model does, whatever it is asked


class Use(msgspec.Struct, frozen=True):
    """The model wants a tool used; arguments as it writes them."""

    name: str
    arguments: str


class Said(msgspec.Struct, frozen=True):
    """What the model answers: words, or calls."""

    text: str = ""
    uses: Sequence[Use] = ()

    @property
    def reason(self) -> str:
        return "tool_calls" if self.uses else "stop"


class Refused(Exception):
    """The endpoint refuses with this status, type and code."""

    def __init__(self, status: int, kind: str, code: str | None, message: str) -> None:
        super().__init__(message)
        self.status, self.kind, self.code = status, kind, code

    def answer(self) -> Answer:
        told = {"message": str(self), "type": self.kind, "param": None, "code": self.code}
        return Answer(self.status, {"error": told})


def bad(message: str) -> Refused:
    return Refused(400, "invalid_request_error", None, message)


def checked(body: Any) -> dict[str, Any]:
    """The request, as far as the real endpoint would look into it before it answers. Raises: Refused."""
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list) or not body["messages"]:
        raise bad("'messages' is a required property and must not be empty.")
    if not isinstance(body.get("model"), str):
        raise bad("you must provide a model parameter")
    if "tool_choice" in body and not body.get("tools"):
        raise bad("'tool_choice' is only allowed when 'tools' are specified.")
    _check_calls(body["messages"])
    return body


def _check_calls(messages: list[Any]) -> None:
    """Every call of the assistant's is answered by the messages after it, and nothing else is. Raises: Refused."""
    open_ids: set[str] = set()
    for message in messages:
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("system", "developer", "user", "assistant", "tool"):
            raise bad(f"Invalid value for 'role': {role!r}.")
        if role == "tool":
            if message.get("tool_call_id") not in open_ids:
                raise bad("messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.")
            open_ids.discard(message["tool_call_id"])
            continue
        if open_ids:
            raise bad("An assistant message with 'tool_calls' must be followed by tool messages responding to each.")
        open_ids = {call["id"] for call in message.get("tool_calls") or ()}
    if open_ids:
        raise bad("An assistant message with 'tool_calls' must be followed by tool messages responding to each.")


def whole(said: Said, head: dict[str, Any]) -> dict[str, Any]:
    """The answer as one object."""
    message: dict[str, Any] = {"role": "assistant", "content": said.text or None, "refusal": None}
    if said.uses:
        message["tool_calls"] = [call | {"function": _function(use)} for call, use in _calls(said, head)]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": said.reason}
    return head | {"object": "chat.completion", "choices": [choice], "usage": usage(said)}


def chunks(said: Said, head: dict[str, Any], *, with_usage: bool) -> list[dict[str, Any]]:
    """The answer piece by piece: the role, words or calls, the reason, and the usage if it was asked for."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None if said.uses else "", "refusal": None}]
    deltas += [{"content": word} for word in WORD.findall(said.text)]
    for n, (call, use) in enumerate(_calls(said, head)):
        deltas.append({"tool_calls": [{"index": n, **call, "function": {"name": use.name, "arguments": ""}}]})
        deltas += [{"tool_calls": [{"index": n, "function": {"arguments": part}}]} for part in _parts(use.arguments)]
    more: dict[str, Any] = {"usage": None} if with_usage else {}
    told = [_chunk(head, delta, None) | more for delta in deltas] + [_chunk(head, {}, said.reason) | more]
    if with_usage:
        told.append(head | {"object": "chat.completion.chunk", "choices": [], "usage": usage(said)})
    return told


def event(chunk: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode(chunk)


def usage(said: Said) -> dict[str, int]:
    """Token counts, in words."""
    told = len(WORD.findall(said.text)) + sum(len(use.arguments) // 4 + 1 for use in said.uses)
    return {"prompt_tokens": 100, "completion_tokens": told, "total_tokens": 100 + told}


def _chunk(head: dict[str, Any], delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return head | {"object": "chat.completion.chunk", "choices": [choice]}


def _calls(said: Said, head: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Use]]:
    for n, use in enumerate(said.uses):
        yield {"id": f"call_{head['id'].removeprefix('chatcmpl-')}_{n}", "type": "function"}, use


def _function(use: Use) -> dict[str, str]:
    return {"name": use.name, "arguments": use.arguments}


def _parts(text: str) -> list[str]:
    return [text[at : at + PIECE] for at in range(0, len(text), PIECE)]
