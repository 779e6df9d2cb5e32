"""Imports only go down: the contracts of pyproject.toml hold, leave nothing out, and would catch what they forbid."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.house.tree import ROOT, below, text

CONTRACTS: list[dict[str, Any]] = tomllib.loads(text("pyproject.toml"))["tool"]["importlinter"]["contracts"]
LINTER = Path(sys.executable).with_name("lint-imports")

# What a hurried hand might write: where, what, and the contract that it breaks.
PLANTED = [
    ("app/base/money.py", "from app import errors", "Imports only go down"),
    ("app/infra/sql.py", "from app.domain import stock", "Imports only go down"),
    ("app/domain/stock.py", "from app.flows import checkout", "Imports only go down"),
    ("app/flows/settle.py", "from app.web import hooks", "Imports only go down"),
    ("app/channels/telegram/texts.py", "from app.domain import orders", "Imports only go down"),
    ("app/web/guards.py", "from workers import jobs", "Imports only go down"),
    ("workers/relay.py", "from app import main", "Imports only go down"),
    ("app/domain/orders.py", "from app.domain import stock", "A noun never imports a noun"),
    ("app/gateways/new/gateway.py", "from app.gateways.crystalpay import wire", "A provider never imports a provider"),
    ("app/gateways/base.py", "from app.gateways.crystalpay import wire", "A provider never imports a provider"),
    ("app/flows/browse.py", "from app.sandbox import telegram", "The outside world is nobody's part"),
    ("app/sandbox/markup.py", "from app import settings", "The outside world knows nothing of the shop"),
    ("app/flows/browse.py", "import litestar", "litestar stays at the doors"),
    ("app/domain/catalog.py", "import redis", "redis stays in infra"),
    ("workers/jobs.py", "import redis", "redis stays in infra"),
    ("app/flows/expire.py", "import asyncpg", "asyncpg stays in infra"),
    ("app/infra/deps.py", "import arq", "arq stays behind the bell"),
    ("app/flows/deliver.py", "import aiogram", "aiogram stays in its adapter"),
    ("app/infra/lua.py", "import prometheus_client", "prometheus_client only prints"),
    ("app/flows/mail.py", "import aiosmtplib", "aiosmtplib stays in its adapter"),
    ("app/flows/consult.py", "import openai", "openai stays in its adapter"),
    ("app/flows/sign_in.py", "import httpx", "httpx stays with those who speak to outside parties"),
    ("app/gateways/new/gateway.py", "import aiosend", "A provider's own client is only for the tests"),
    ("app/sandbox/yookassa.py", "import yookassa", "A provider's own client is only for the tests"),
]


def linted(root: Path) -> str:
    """What the linter says of the house at `root`."""
    command = [str(LINTER), "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return done.stdout


def verdicts(told: str) -> dict[str, str]:
    """Each contract's verdict, by its name."""
    return dict(re.findall(r"(?m)^(.+?) (KEPT|BROKEN)(?: \(.*\))?$", told))


def test_every_contract_is_kept() -> None:
    told = linted(ROOT)
    assert verdicts(told) == {contract["name"]: "KEPT" for contract in CONTRACTS}, told


def test_every_part_of_the_house_has_a_floor() -> None:
    layers = next(contract["layers"] for contract in CONTRACTS if contract["type"] == "layers")
    floors = {name.strip() for layer in layers for name in layer.split("|")}
    parts = {"workers"} | {
        ".".join(("app", *name.removesuffix(".py").split("/")[1:2]))
        for name in below("app")
        if name != "app/__init__.py"
    }
    assert parts - {"app.sandbox"} == floors  # the sandbox stands outside, with two contracts of its own


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the linter says of a copy of the house with everything planted in it."""
    root = tmp_path_factory.mktemp("house")
    for folder in ("app", "workers"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    for name, line, _ in PLANTED:
        path = root / name
        path.parent.mkdir(exist_ok=True)
        (path.parent / "__init__.py").touch()
        with path.open("a") as file:
            file.write(f"{line}\n")
    return linted(root)


def test_every_contract_has_a_fault_to_see() -> None:
    assert {contract for _, _, contract in PLANTED} == {contract["name"] for contract in CONTRACTS}


@pytest.mark.parametrize(("name", "line", "contract"), PLANTED)
def test_a_planted_import_is_seen(told: str, name: str, line: str, contract: str) -> None:
    assert verdicts(told)[contract] == "BROKEN"
    _, _, faults = told.partition(f"\n{contract}\n---")
    found = re.fullmatch(r"(?:from ([\w.]+) )?import (\w+)", line)
    assert found
    arrow = f"{name.removesuffix('.py').replace('/', '.')} -> {'.'.join(filter(None, found.groups()))} (l."
    others = "|".join(re.escape(other["name"]) for other in CONTRACTS)
    assert arrow in re.split(rf"\n(?:{others})\n---", faults)[0]
