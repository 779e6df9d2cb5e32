"""A Redis server of the test's own, connections to it, and two scripts for it."""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.infra.link import Call, Link
from app.infra.lua import Script
from app.infra.pipe import Pipe
from tests.infra.one_redis import SCRIPTS, Dial, Echoed, Never, Server


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.kill()
    shutil.rmtree(server.dir)


@pytest.fixture
async def dial(server: Server) -> AsyncIterator[Dial]:
    opened: list[Pipe] = []

    def dial(url: str = "", timeout_ms: int = 2000) -> Pipe:
        opened.append(Pipe(url or server.url, timeout_ms=timeout_ms))
        return opened[-1]

    yield dial
    for one in opened:
        await one.aclose()


@pytest.fixture(scope="session")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lua")
    (root / "test").mkdir()
    for name, text in SCRIPTS.items():
        (root / f"{name}.lua").write_text(text)
    return root


@pytest.fixture(scope="session")
def echo(scripts: Path) -> Script[Echoed]:
    return Script("test/echo", Echoed, root=scripts)


@pytest.fixture(scope="session")
def fail(scripts: Path) -> Script[Never]:
    return Script("test/fail", Never, root=scripts)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many calls each write carried."""
    counts: list[int] = []
    send = Link.send

    def counted(link: Link, calls: list[Call]) -> None:
        counts.append(len(calls))
        send(link, calls)

    monkeypatch.setattr(Link, "send", counted)
    return counts
