"""A chat that only passes a model's words on: no session, no limit, nothing remembered, nothing stored.

`bench/chat.py` runs it beside `POST /api/chat`. It asks the same endpoint through the same library, in the way that the
library's own pages show, and encodes each piece with msgspec as the same server-sent event.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import openai
from litestar import Litestar, Response, get, post
from litestar.response import Stream

from app.settings import Settings
from app.web.handler import Req
from bench.baseline import serve


class Asked(msgspec.Struct):
    text: str


class Chunk(msgspec.Struct):
    text: str


def create_app(settings: Settings) -> Litestar:
    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with openai.AsyncOpenAI(base_url=settings.model_url, api_key=settings.model_key) as client:
            app.state.client = client
            yield

    @post("/api/chat", status_code=200)
    async def chat(request: Req) -> Stream:
        asked, client = msgspec.json.decode(await request.body(), type=Asked), request.app.state.client

        async def events() -> AsyncIterator[bytes]:
            pieces = await client.chat.completions.create(
                model=settings.model_name, messages=[{"role": "user", "content": asked.text}], stream=True
            )
            async for piece in pieces:
                if piece.choices and (text := piece.choices[0].delta.content):
                    yield b"event: chunk\ndata: " + msgspec.json.encode(Chunk(text)) + b"\n\n"
            yield b"event: done\ndata: {}\n\n"

        return Stream(events(), media_type="text/event-stream")

    @get("/health/ready")
    async def ready() -> Response[None]:
        return Response(None, status_code=200)

    return Litestar([chat, ready], lifespan=[lifespan], openapi_config=None, logging_config=None, debug=False)


if __name__ == "__main__":
    serve(create_app)
