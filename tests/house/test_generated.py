"""What is generated is current: `make docs` would change nothing."""

import asyncio

import pytest

from app import errors
from app.errors import Problem
from tests.house import generate
from tests.house.tree import ROOT, text


@pytest.mark.parametrize("name", generate.pages())
def test_a_page_is_current(name: str) -> None:
    assert (ROOT / name).read_text() == generate.pages()[name], "run `make docs`"


async def test_the_schema_is_current(pg_url: str) -> None:
    assert text("sql/schema.sql") == await asyncio.to_thread(generate.schema, pg_url), "run `make docs`"


def test_every_problem_is_told_in_full() -> None:
    kinds = list(generate.problems())
    assert len({kind.type for kind in kinds}) == len({kind.title for kind in kinds}) == len(kinds) > 15
    for kind in kinds:
        assert kind.type.startswith("/problems/"), kind
        assert 400 <= kind.status <= 599, kind
        assert kind.__doc__, kind
        assert kind.__module__ == errors.__name__, f"{kind} belongs to the tree"


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = (errors.__doc__ or "").partition("Problem\n")[2]
    for kind in generate.problems():
        line = next((line for line in drawn.splitlines() if kind.__name__ in line.replace("·", " ").split()), "")
        assert str(kind.status) in line.split(), f"{kind.__name__} {kind.status} is not in the drawing"
    names = {word for word in drawn.replace("·", " ").split() if word[0].isupper()}
    assert names == {kind.__name__ for kind in generate.problems()} | {Problem.__name__} - {"Problem"}
