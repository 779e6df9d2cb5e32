"""A model on loopback, over the chat completions API of OpenAI, that plays a shop assistant by rules.

Tests make it misbehave through `faults`; see `party` for the journal.
"""

import itertools
from typing import Any

import msgspec
from litestar import Litestar, get, post
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from app.base import clock
from app.sandbox import model_script
from app.sandbox import model_wire as wire
from app.sandbox.party import Answer, Entry, Party, Req, pause

JOURNAL = 2000  # entries kept
BROKEN = b'data: {"id":"chatcmpl-0","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"con\n\n'


class Model(Party[wire.ModelFault]):
    """One model behind one key; an empty key takes every caller.

    Units:  piece_ms passes before each chunk of a stream, as a model takes its time.
    """

    fault_type = wire.ModelFault

    def __init__(self, key: str, *, name: str = "sandbox-1", piece_ms: int = 0, keep: int = JOURNAL) -> None:
        super().__init__(keep)
        self.key, self.name, self.piece_ms = key, name, piece_ms
        self.ids = itertools.count(1)

    def app(self) -> Litestar:
        """The endpoint as an ASGI app."""
        routes = [
            post("/v1/chat/completions", status_code=200)(self.complete),
            get("/v1/models")(self.list_models),
        ]
        return self.litestar(routes, wire.Refused)

    async def list_models(self, request: Req) -> ASGIResponse:
        entry = self.record("request", "models", None)
        told = {"id": self.name, "object": "model", "created": 1_700_000_000, "owned_by": "torg"}
        return self._answered(entry, self._refusal(request) or Answer(200, {"object": "list", "data": [told]}))

    async def complete(self, request: Req) -> ASGIResponse:
        """One answer, whole or as a stream, as the next fault lets it out."""
        try:
            given = msgspec.json.decode(await request.body())
        except msgspec.DecodeError:
            given = None
        entry, fault = self.record("request", "chat", given), self.take_fault("chat") or wire.ModelFault()
        await pause(request, fault.wait_ms)
        if fault.status is not None or fault.body is not None:
            body = fault.body if fault.body is not None else '{"error":{"message":"ordered","type":"server_error"}}'
            return self._answered(entry, Answer(fault.status or 200, body.encode(), fault.content_type))
        if refusal := self._refusal(request):
            return self._answered(entry, refusal)
        try:
            body_ = wire.checked(given)
        except wire.Refused as error:
            return self._answered(entry, error.answer())
        said = model_script.misplay(fault.instead, body_) if fault.instead else model_script.play(body_)
        head = {"id": f"chatcmpl-{next(self.ids)}", "created": clock.unix_s(), "model": body_["model"]}
        head["system_fingerprint"] = "fp_torg"
        entry.answered = msgspec.to_builtins(said)
        await pause(request, fault.hold_ms)
        if not body_.get("stream"):
            return self._answered(entry, Answer(200, wire.whole(said, head)))
        entry.status = 200
        with_usage = bool((body_.get("stream_options") or {}).get("include_usage"))
        return Stream(request, wire.chunks(said, head, with_usage=with_usage), fault, self.piece_ms)

    def _refusal(self, request: Req) -> Answer | None:
        if not self.key or request.headers.get("authorization") == f"Bearer {self.key}":
            return None
        return wire.Refused(401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided.").answer()

    def _answered(self, entry: Entry, answer: Answer) -> ASGIResponse:
        entry.status = answer.status
        return ASGIResponse(body=answer.raw(), status_code=answer.status, media_type=answer.content_type)


class Stream(ASGIResponse):
    """Chunks as server-sent events, and what goes wrong in the middle of them."""

    _should_set_content_length = False

    def __init__(self, request: Req, chunks: list[dict[str, Any]], fault: wire.ModelFault, piece_ms: int) -> None:
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-cache"})
        self.request, self.chunks, self.fault, self.piece_ms = request, chunks, fault, piece_ms

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.start_response(send)
        middle = len(self.chunks) // 2
        for n, chunk in enumerate(self.chunks):
            if n == middle:
                await pause(self.request, self.fault.stall_ms)
                if self.fault.cut:
                    return  # the server closes the connection of an answer that was left open
                if self.fault.unended:
                    break
            await pause(self.request, self.piece_ms)
            body = BROKEN if self.fault.garbled and n == middle else wire.event(chunk)
            await send({"type": "http.response.body", "body": body, "more_body": True})
        else:
            await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


SIMULATOR = Model
