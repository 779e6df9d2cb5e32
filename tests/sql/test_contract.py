"""Each statement against the migrated database: parameters are its header's, columns are its Struct's."""

from collections.abc import AsyncIterator
from datetime import datetime
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints
from uuid import UUID

import asyncpg
import pytest

from app.infra.sql import Query, Statement
from tests.sql.noun import NEEDS, statements, written

MOST_LINES = 50

# What a column of each Postgres type becomes in Python.
BECOMES: dict[str, type] = {
    "int8": int,
    "int4": int,
    "text": str,
    "uuid": UUID,
    "timestamptz": datetime,
    "bytea": bytes,
    "bool": bool,
    "float8": float,
}

STATEMENTS = statements()
WRITTEN = written()


def fits(column_type: str, annotation: Any) -> bool:
    """A value of this column is one of this annotation; whether it may be null is not for `prepare` to say."""
    kinds = [kind for kind in get_args(annotation) or (annotation,) if kind is not NoneType]
    if get_origin(annotation) is list:
        return column_type.endswith("[]") and fits(column_type.removesuffix("[]"), kinds[0])
    return [BECOMES.get(column_type)] == kinds


@pytest.mark.parametrize(
    ("column_type", "annotation", "fit"),
    [
        ("int4", int, True),
        ("int8", int | None, True),
        ("timestamptz", datetime | None, True),
        ("int8[]", list[int], True),
        ("int8", str, False),
        ("int8", list[int], False),
        ("int8[]", int, False),
        ("text[]", list[int], False),
        ("numeric", int, False),
        ("bool", int, False),
        ("json", str, False),
    ],
)
def test_a_misfit_would_be_seen(column_type: str, annotation: Any, fit: bool) -> None:
    assert fits(column_type, annotation) is fit


@pytest.fixture
async def migrated(pg_url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(pg_url)
    yield connection
    await connection.close()


async def test_every_statement_keeps_its_contract(migrated: "asyncpg.Connection[asyncpg.Record]") -> None:
    prepared = [statement for _, statement in STATEMENTS if statement.path not in NEEDS]
    broken = [fault for statement in prepared for fault in await faults(migrated, statement)]
    assert broken == []
    assert len(STATEMENTS) >= 30  # the nouns were found


@pytest.mark.parametrize("path", NEEDS)
async def test_what_cannot_be_prepared_lacks_a_function_and_nothing_else(
    migrated: "asyncpg.Connection[asyncpg.Record]", path: str
) -> None:
    with pytest.raises(asyncpg.UndefinedFunctionError):
        await migrated.prepare(WRITTEN[path].text)


async def faults(migrated: "asyncpg.Connection[asyncpg.Record]", statement: Statement[Any]) -> list[str]:
    prepared = await migrated.prepare(statement.query.text)
    stated = [param.type for param in statement.query.params]
    given = [param.name for param in prepared.get_parameters()]
    columns = [(column.name, column.type.name) for column in prepared.get_attributes()]
    hints = get_type_hints(statement.row) if statement.row else {}
    found = [f"{statement.path}: its header says {stated}, Postgres {given}"] if stated != given else []
    if [name for name, _ in columns] != list(hints):
        return [*found, f"{statement.path}: the columns are {columns}, the fields {list(hints)}"]
    misfits = [(name, kind, hints[name]) for name, kind in columns if not fits(kind, hints[name])]
    return [*found, *(f"{statement.path}: {misfit}" for misfit in misfits)]


def test_every_statement_is_named_by_exactly_one_constant() -> None:
    assert sorted(statement.path for _, statement in STATEMENTS) == sorted(WRITTEN)


def test_every_constant_is_in_the_module_of_its_noun() -> None:
    assert {noun: statement.path for noun, statement in STATEMENTS if not statement.path.startswith(f"{noun}/")} == {}


@pytest.mark.parametrize("query", WRITTEN.values(), ids=WRITTEN.keys())
def test_a_statement_can_be_held_in_one_look(query: Query) -> None:
    code = [line for line in query.text.splitlines() if line.strip() and not line.strip().startswith("--")]
    assert 0 < len(code) <= MOST_LINES


@pytest.mark.parametrize("query", WRITTEN.values(), ids=WRITTEN.keys())
def test_a_statement_says_what_becomes_true(query: Query) -> None:
    said = query.text.splitlines()[1]
    assert said.startswith("-- ")
    assert not said.startswith("-- $")
