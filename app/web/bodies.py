"""Bodies that are exactly what their schema says."""

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from app.errors import Malformed
from app.web.handler import Req
from app.web.params import MAX_ID

T = TypeVar("T", bound=msgspec.Struct)

MAX_BODY_BYTES = 1024 * 1024

Text = Annotated[str, Meta(pattern=r"^[^\x00]*$")]  # Postgres text cannot hold NUL
Line = Annotated[str, Meta(pattern=r"^[^\x00]*[^\s\x00][^\x00]*$")]  # and something in it
Id = Annotated[int, Meta(ge=1, le=MAX_ID)]


async def exact(request: Req, kind: type[T]) -> T:
    """The body as Litestar has not read it: that takes `"1"` for 1. Raises: Malformed."""
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(str(error)[:200] if isinstance(error, msgspec.ValidationError) else "not JSON") from None
