"""Parameters of paths and queries that several handlers take."""

from typing import Annotated

from litestar.params import PathParameter, QueryParameter

MAX_ID = 2**63 - 1  # of Postgres' bigint

ProductId = Annotated[int, PathParameter(ge=1, le=MAX_ID)]
QueryId = Annotated[int, QueryParameter(ge=1, le=MAX_ID)]
OptionalId = Annotated[int | None, QueryParameter(ge=1, le=MAX_ID)]
Cursor = Annotated[str, QueryParameter(pattern=r"^[0-9]{0,18}$(?!\n)")]  # an id; empty: from the start
