"""One word, four trees: whoever looks for stock finds all of it by the word, and only its noun speaks for it."""

import re

import pytest

from app.shop import SCRIPTS
from tests.house.tree import below, files, strings
from tests.sql.noun import written

HOMES = {"queue": "app/infra/queue.py"}  # not a noun of the shop: the doorbell of its jobs
SCRIPT_FILES = {name.removeprefix("lua/").removesuffix(".lua") for name in below("lua", suffix=".lua")}
# Who spells what Postgres runs, though it is no noun.
SPEAKS = {
    "app/infra/migrate.py": "its own ledger",
    "app/web/health.py": "whether Postgres answers",
}
NAMED = sorted(SCRIPT_FILES | written().keys())


def home(noun: str) -> str:
    return HOMES.get(noun, f"app/domain/{noun}.py")


def test_there_is_something_to_look_at() -> None:
    assert {"stock/reserve", "inbox/seen", "queue/ring", "orders/create_order"} <= set(NAMED)


@pytest.mark.parametrize("noun", sorted({name.partition("/")[0] for name in NAMED}))
def test_a_noun_has_a_home(noun: str) -> None:
    assert home(noun) in files()


def test_only_its_noun_names_a_script_or_a_statement() -> None:
    known = set(NAMED)
    spelt = {(string, name) for name in below("app", "workers") for _, string in strings(name) if string in known}
    assert {(string, name) for string, name in spelt if name != home(string.partition("/")[0])} == set()
    assert {string for string, _ in spelt} == known


def test_every_script_is_loaded_at_the_start() -> None:
    assert sorted(script.name for script in SCRIPTS) == sorted(SCRIPT_FILES)


def test_no_one_else_runs_sql_or_lua() -> None:
    speaks = re.compile(r"^\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH)\s|redis\.call\(")
    spoken = {name for name in below("app", "workers") for _, string in strings(name) if speaks.search(string)}
    assert spoken == SPEAKS.keys()


def test_every_scripted_noun_has_its_tests() -> None:
    nouns = {name.partition("/")[0] for name in SCRIPT_FILES}
    assert {f"tests/lua/test_{noun}.py" for noun in nouns} <= set(files())
