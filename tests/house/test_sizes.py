"""Sizes that a reader can hold, and names that say something. An exception stands here with its reason."""

import ast
import re

import pytest

from tests.house.tree import below, files, parsed, text
from tests.sql.noun import written

MOST_FUNCTION_LINES = 40
MOST_PYTHON_LINES = 300
MOST_TEST_LINES = 400
MOST_LUA_LINES = 60
MOST_STATEMENT_LINES = 50

# path or path:function -> why it may be larger
LARGER: dict[str, str] = {
    "tests/sandbox/test_crystalpay.py": "a gateway's whole protocol, call by call, in the order of its documentation",
}

EMPTY_NAMES = re.compile(
    r"(?i:(?:^|[_/.])(?:utils?|helpers?|managers?|services?|common)(?:[_/.]|$))|[a-z](?:Utils?|Helper|Manager|Service)$"
)
UNFINISHED = re.compile(r"\b(?:TODO|FIXME)\b")

PYTHON = below("app", "workers", "tests", "bench", "chaos")


def too_long(sizes: dict[str, int], most: int) -> dict[str, int]:
    return {name: size for name, size in sizes.items() if size > most and name not in LARGER}


def lines(*folders: str, suffix: str = ".py") -> dict[str, int]:
    return {name: len(text(name).splitlines()) for name in below(*folders, suffix=suffix)}


def functions() -> dict[str, int]:
    """The lines of each function, its decorators left out."""
    return {
        f"{name}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for name in PYTHON
        for node in ast.walk(parsed(name))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_functions() -> None:
    assert too_long(functions(), MOST_FUNCTION_LINES) == {}


def test_python_files() -> None:
    assert too_long(lines("app", "workers"), MOST_PYTHON_LINES) == {}


def test_tests_and_benchmarks() -> None:
    assert too_long(lines("tests", "bench", "chaos"), MOST_TEST_LINES) == {}


def test_scripts() -> None:
    assert too_long(lines("lua", suffix=".lua"), MOST_LUA_LINES) == {}


def test_statements() -> None:
    code = {
        path: len([line for line in query.text.splitlines() if line.strip() and not line.strip().startswith("--")])
        for path, query in written().items()
    }
    assert too_long(code, MOST_STATEMENT_LINES) == {}


def test_every_exception_is_still_needed() -> None:
    sizes = functions() | lines("app", "workers", "tests", "bench", "chaos")
    most = dict.fromkeys(lines("app", "workers"), MOST_PYTHON_LINES) | dict.fromkeys(
        lines("tests", "bench", "chaos"), MOST_TEST_LINES
    )
    assert [name for name in LARGER if sizes.get(name, 0) <= most.get(name, MOST_FUNCTION_LINES)] == []


def test_files_are_named_by_what_they_hold() -> None:
    assert [name for name in files() if EMPTY_NAMES.search(name)] == []


def test_functions_and_classes_are_named_by_what_they_do() -> None:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    named = {f"{name}:{node.name}" for name in PYTHON for node in ast.walk(parsed(name)) if isinstance(node, kinds)}
    assert {name for name in named if EMPTY_NAMES.search(name.partition(":")[2])} == set()


@pytest.mark.parametrize(
    ("name", "empty"),
    [
        ("app/infra/utils.py", True),
        ("tests/helpers.py", True),
        ("app/common/x.py", True),
        ("OrderManager", True),
        ("http_util", True),
        ("docker_common.py", True),
        ("app/infra/messenger.py", False),
        ("contextmanager", False),
        ("is_serviceable", False),
    ],
)
def test_an_empty_name_would_be_seen(name: str, empty: bool) -> None:
    assert bool(EMPTY_NAMES.search(name)) is empty


def test_nothing_is_left_for_later() -> None:
    code = [*PYTHON, *below("lua", suffix=".lua"), *below("sql", suffix=".sql"), *below("app", suffix=".js")]
    mine = "tests/house/test_sizes.py"  # it spells the words
    assert [name for name in code if name != mine and UNFINISHED.search(text(name))] == []


def test_packages_export_nothing() -> None:
    assert [name for name in PYTHON if name.endswith("/__init__.py") and text(name).strip()] == []
