"""The key map is whole: each key that a script, a builder or arq writes has its row, and nobody else spells one."""

import inspect
import re
from typing import Any, cast

import pytest

from app.base import keys
from app.base.keys import KEYS, Key
from app.infra.lua import Script
from app.settings import Settings
from app.shop import SCRIPTS
from tests.conftest import _regex
from tests.house.tree import below, strings, text
from tests.lua.measure import life_ms
from workers import main as worker_main
from workers.post import Post
from workers.talk import Talk

TYPES = {"string", "hash", "list", "set", "zset", "stream"}
SAMPLES: dict[Any, Any] = {int: 7, str: "word"}
JOB_PREFIX = "arq:job:"  # arq puts it before the id that we give

BUILDERS = {
    name: made for name, made in vars(keys).items() if inspect.isfunction(made) and made.__module__ == keys.__name__
}
NAMES = {name: value for name, value in vars(keys).items() if name.isupper() and isinstance(value, str)}

# How every pattern of the map begins: literally, up to what is filled in.
BEGINNINGS = sorted({re.split(r"[<}]", key.pattern)[0] for key in KEYS})


def rows_of(name: str) -> list[Key]:
    return [key for key in KEYS if re.fullmatch(_regex(key.pattern), name)]


def tag(pattern: str) -> str:
    """The hash tag: what stands between the first braces."""
    found = re.search(r"\{.+?\}", pattern)
    return found[0] if found else ""


def test_each_row_is_one_key_fully_told() -> None:
    assert len({key.pattern for key in KEYS}) == len(KEYS)
    for key in KEYS:
        assert key.type in TYPES, key
        assert key.ttl == "permanent" or life_ms(key.pattern) > 0, key
        assert key.meaning, key
        assert tag(key.pattern) or key.pattern.startswith("arq:"), key  # arq's own: their job id carries the tag


def test_each_row_has_an_owner() -> None:
    for key in KEYS:
        assert text(f"app/domain/{key.owner}.py" if key.owner != "queue" else "app/infra/queue.py"), key


@pytest.mark.parametrize("name", BUILDERS)
def test_each_builder_builds_a_key_of_the_map(name: str) -> None:
    kinds = [parameter.annotation for parameter in inspect.signature(BUILDERS[name]).parameters.values()]
    built = BUILDERS[name](*(SAMPLES[kind] for kind in kinds))
    assert len(rows_of(JOB_PREFIX + built if name == "arq_job_id" else built)) == 1


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_a_key_of_the_map(name: str) -> None:
    assert len(rows_of(NAMES[name])) == 1


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.name for script in SCRIPTS])
def test_each_key_of_each_script_has_a_row_of_its_noun(script: Script[Any]) -> None:
    noun = script.name.partition("/")[0]
    owned = [key for key in KEYS if key.owner == noun]
    assert script.slot in {tag(key.pattern) for key in owned}
    kinds = [key.type for key in owned if tag(key.pattern) in (script.slot, "")]
    for binding in script.keys:
        assert binding.kind in kinds, f"{script.name}: no row of {noun} is a {binding.kind}"
    assert len({binding.name for binding in script.keys}) == len(script.keys) <= len(owned)


def test_a_stock_script_names_its_keys_as_the_map_does() -> None:
    """`free` is `{s:<seller>}free`, wherever it is bound."""
    spelt = {key.pattern: key.type for key in KEYS}
    for script in (script for script in SCRIPTS if script.name.startswith("stock/")):
        for binding in script.keys:
            assert spelt[script.slot + binding.name] == binding.kind


def test_only_the_map_spells_a_key() -> None:
    assert "{s:" in BEGINNINGS
    spelt = re.compile("|".join(map(re.escape, BEGINNINGS)))
    found = [
        (name, line, string)
        for name in below("app", "workers")
        if name != "app/base/keys.py"
        for line, string in strings(name)
        if spelt.search(string)
    ]
    assert found == []


async def test_arqs_own_keys_live_as_long_as_the_map_says() -> None:
    settings = Settings(redis_url="redis://nowhere")
    worker = worker_main._worker(settings, cast(Any, None), Post(), Talk(settings))  # connects when it runs
    assert life_ms("arq:in-progress:<job>") == worker.in_progress_timeout_s * 1000
    assert life_ms("{arq}queue:health-check") == (worker.health_check_interval + 1) * 1000
    assert rows_of(worker.health_check_key)
