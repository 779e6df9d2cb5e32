"""The judges themselves: they are the server that was asked for, and the cluster refuses what does not share a slot."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from redis.crc import key_slot

from app.base import keys
from app.infra import embedded
from app.infra.lua import Script, ScriptFailed
from app.infra.pipe import Pipe
from app.shop import SCRIPTS
from tests.cluster import HOST, NODES, SLOTS, Cluster, first_slot
from tests.conftest import redis_7

SEVERAL_KEYS = [script for script in SCRIPTS if len(script.keys) + bool(script.keys_tail) > 1]
HERE, ELSEWHERE = keys.stock_free(7), keys.stock_free(8)  # of two sellers
ROOT = Path(__file__).parents[2]
RUN = """
import sys
from app.infra import embedded
from tests.cluster import serve
with serve(embedded._redis()) as urls:
    print(*(url.rpartition(":")[2] for url in urls), flush=True)
    sys.stdin.read()
"""
STRAY = """\
#!lua flags=
-- test/stray: write a key that is not declared.
-- reply  written
-- cost   O(1), 2 commands
-- slot   {s:<seller>}
local own   = KEYS[1]  -- string  declared
local stray = ARGV[1]  -- bytes   a key
redis.call("SET", own, 1, "PX", 60000)
redis.call("SET", stray, 1, "PX", 60000)
return {"written"}
"""
Written = msgspec.defstruct("Written", [], frozen=True)


async def info(pipe: Pipe) -> dict[str, str]:
    told = cast(bytes, await pipe.command("INFO")).decode().splitlines()
    return dict(line.split(":", 1) for line in told if ":" in line)


def neighbour(key: str) -> str:
    """A key of another slot that the same node serves."""
    node = key_slot(key.encode()) * NODES // SLOTS
    names = (keys.stock_free(seller) for seller in range(100, 200))
    return next(name for name in names if key_slot(name.encode()) * NODES // SLOTS == node)


async def test_the_judges_are_the_server_that_was_asked_for(redis: Pipe, cluster: Cluster) -> None:
    told = [await info(pipe) for pipe in (redis, *cluster.pipes)]
    assert [one["cluster_enabled"] for one in told] == ["0", *"1" * NODES]
    wanted = os.environ.get("TORG_TEST_REDIS")
    assert {real(one["executable"]) for one in told} == {real(redis_7(wanted) if wanted else embedded._redis())}


def real(path: str) -> Path:
    return Path(path).resolve()


async def test_every_slot_has_its_node_and_every_key_is_found_again(cluster: Cluster) -> None:
    assert [first_slot(number) for number in range(NODES + 1)] == [0, 5462, 10923, SLOTS]
    written = [keys.stock_free(seller) for seller in range(300)]
    for name in written:
        await cluster.command("HSET", name, 1, 1)
        await cluster.command("PEXPIRE", name, 60_000)
    sizes = [cast(int, await pipe.command("DBSIZE")) for pipe in cluster.pipes]
    assert sum(sizes) == 300
    assert min(sizes) > 50
    found = cast(list[bytes], await cluster.command("KEYS", "*"))
    assert sorted(name.decode() for name in found) == sorted(written)
    await cluster.command("FLUSHALL")
    assert await cluster.command("KEYS", "*") == []


@pytest.mark.parametrize("script", SEVERAL_KEYS, ids=[script.name for script in SEVERAL_KEYS])
async def test_a_script_with_keys_of_two_slots_is_refused(cluster: Cluster, script: Script[Any]) -> None:
    apart = [HERE] * (max(2, len(script.keys)) - 1) + [ELSEWHERE]
    with pytest.raises(ScriptFailed, match=rf"^{script.name}: CROSSSLOT "):
        await script(cluster, keys=apart, args=[1] * len(script.args))


def test_some_script_has_several_keys() -> None:
    assert {"stock/reserve", "queue/ring"} <= {script.name for script in SEVERAL_KEYS}


async def test_the_shebang_also_catches_a_key_that_is_not_declared(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test/stray.lua").write_text(STRAY)
    stray = Script("test/stray", Written, root=tmp_path)
    with pytest.raises(ScriptFailed, match="do not hash to the same slot"):
        await stray(cluster, keys=[HERE], args=[neighbour(HERE)])
    bare = STRAY.partition("\n")[2]  # without the shebang the server lets it pass, as long as both keys are its own
    assert await cluster.command("EVAL", bare, 1, HERE, neighbour(HERE)) == [b"written"]


def test_a_killed_run_leaves_nothing(tmp_path: Path) -> None:
    command, environ, pipe = [sys.executable, "-c", RUN], os.environ | {"TMPDIR": str(tmp_path)}, subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdin=pipe, stdout=pipe, text=True) as run:
        assert run.stdout is not None
        ports = [int(port) for port in run.stdout.readline().split()]
        assert [listens(port) for port in ports] == [True] * NODES
        run.kill()
    deadline = time.monotonic() + 5
    while (any(map(listens, ports)) or any(tmp_path.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [listens(port) for port in ports] == [False] * NODES
    assert list(tmp_path.iterdir()) == []


def listens(port: int) -> bool:
    with socket.socket() as peer:
        return peer.connect_ex((HOST, port)) == 0


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("Redis server v=6.2.14 sha=00000000:0", "Redis server v=6.2.14"),
        ("Redis server v=5.0.7 bits=64", "v=5.0.7"),
        ("something else", "something else"),
        (None, "not there"),
    ],
)
def test_an_unfit_server_fails_every_test_with_one_line(tmp_path: Path, says: str | None, told: str) -> None:
    path = tmp_path / "redis-server"
    if says:
        path.write_text(f"#!/bin/sh\necho {says}\n")
        path.chmod(0o755)
    with pytest.raises(pytest.fail.Exception) as caught:
        redis_7(str(path))
    assert "apt-get install redis-server, or set TORG_TEST_REDIS" in str(caught.value)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
