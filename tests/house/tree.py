"""The house as a reader finds it: the files that git has or would add, and the strings that our code spells."""

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


@cache
def files() -> tuple[str, ...]:
    """Every file of the house, relative to its root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return tuple(sorted(name for name in set(told.split("\0")) if name and (ROOT / name).is_file()))


def below(*folders: str, suffix: str = ".py") -> list[str]:
    """The files with this suffix in these folders."""
    return [name for name in files() if name.partition("/")[0] in folders and name.endswith(suffix)]


def text(name: str) -> str:
    return (ROOT / name).read_text()


@cache
def parsed(name: str) -> ast.Module:
    return ast.parse(text(name), filename=name)


def strings(name: str) -> Iterator[tuple[int, str]]:
    """Each string literal with its line, also the fixed parts of f-strings; docstrings are prose and left out."""
    tree = parsed(name)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.lineno, node.value
