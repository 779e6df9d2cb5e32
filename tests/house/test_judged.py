"""Every script is run by a test that asks for `store`, and so on a server, on a cluster and on the fake."""

import ast
from collections.abc import Iterator

import pytest

from app.shop import SCRIPTS
from tests.house.test_words import home
from tests.house.tree import below, parsed

Function = ast.FunctionDef | ast.AsyncFunctionDef
NAMES = [script.name for script in SCRIPTS]


def files_of(noun: str) -> list[str]:
    """Where a test of this noun finds what it calls: the noun itself, then its tests."""
    return [home(noun), *(name for name in below("tests") if name.startswith(f"tests/lua/test_{noun}"))]


def functions(noun: str) -> Iterator[Function]:
    for name in files_of(noun):
        yield from (node for node in ast.walk(parsed(name)) if isinstance(node, Function))


def constant(script: str) -> str:
    """The name under which the script's noun holds it."""
    for node in ast.walk(parsed(home(script.partition("/")[0]))):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(node.value, ast.Call):
            first = node.value.args[0]
            if isinstance(first, ast.Constant) and first.value == script:
                return node.target.id
    raise AssertionError(f"no line `NAME: Script[…] = Script({script!r}, …)`")


def asked(function: Function) -> set[str]:
    return {arg.arg for arg in function.args.args}


def mentioned(function: Function) -> set[str]:
    """Names, attributes and what it asks for, which for a test are fixtures."""
    names = {part.id for part in ast.walk(function) if isinstance(part, ast.Name)}
    return names | {part.attr for part in ast.walk(function) if isinstance(part, ast.Attribute)} | asked(function)


def reached(noun: str) -> set[str]:
    """All that tests on every judge mention, and what the functions that they mention do."""
    known = list(functions(noun))
    on_judges = {function.name for function in known if "store" in asked(function)} | {"store"}
    waiting = {f.name for f in known if f.name.startswith("test_") and asked(f) & on_judges}
    seen = set[str]()
    while waiting:
        seen |= waiting
        waiting = {name for f in known if f.name in waiting for name in mentioned(f)} - seen
    return seen


@pytest.mark.parametrize("script", NAMES)
def test_every_script_meets_every_judge(script: str) -> None:
    assert constant(script) in reached(script.partition("/")[0])


def test_a_script_that_only_one_server_runs_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "SEEN" in reached("inbox")
    monkeypatch.setattr(f"{__name__}.files_of", lambda noun: [home(noun), "tests/lua/test_stock_crowds.py"])
    assert "SEEN" not in reached("inbox")
