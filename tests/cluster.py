"""A real cluster of three nodes, and the connection to it that takes each call to the node of its key."""

import asyncio
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis
from redis.crc import key_slot

from app.infra.lua import Part, Script
from app.infra.pipe import Pipe

NODES = 3
SLOTS = 16_384
HOST = "127.0.0.1"
START_S = 20.0  # two of them are the server's own: a master waits so long before it says `ok`
POLL_S = 0.01
ATTEMPTS = 3  # somebody may take a free port before the node does
# A node that is silent for less than a minute is slow, not dead: nobody takes over here.
CLUSTERED = "--cluster-enabled yes --cluster-node-timeout 60000"
OPTIONS = f"--bind {HOST} {CLUSTERED} --appendonly no --loglevel warning --save".split()
# The end of its input without a word means that we were killed.
LEASH = 'home=$1; shift; read -r _ || { kill -9 "$@"; rm -rf "$home"; }'

EVERYWHERE = {"FLUSHALL", "KEYS", "SCRIPT"}
KEYLESS = {"INFO", "PING", "TIME"}
SCRIPTED = {"EVAL", "EVALSHA"}


class ClusterFailed(Exception):
    """The nodes did not become one cluster; the text has the last lines of their logs."""


class Node:
    """One server process and a blocking connection to it."""

    def __init__(self, binary: str, folder: Path, port: int, bus: int) -> None:
        folder.mkdir()
        self.port, self.bus, self.log = port, bus, folder / "log"
        self.client = redis.Redis(HOST, port)
        place = ["--dir", str(folder), "--port", str(port), "--cluster-port", str(bus)]
        with self.log.open("wb") as log:
            # In a session of its own: a Ctrl-C in the terminal is for us, and we end the node.
            self.process = subprocess.Popen([binary, *place, *OPTIONS, ""], stdout=log, start_new_session=True)

    def ask(self, *parts: Part) -> Any:
        return self.client.execute_command(*parts)  # type: ignore[no-untyped-call]

    def answers(self) -> bool:
        """Raises: ClusterFailed when it never will."""
        try:
            return bool(self.ask("PING"))
        except redis.ConnectionError:
            if self.process.poll() is None:
                return False
            raise ClusterFailed(f"a node ended: {self.log.read_text()[-500:]}") from None

    def agrees(self) -> bool:
        return bool(self.ask("CLUSTER INFO")["cluster_state"] == "ok")

    def kill(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait()


@contextmanager
def serve(binary: str) -> Iterator[list[str]]:
    """The URLs of the nodes, in the order of their slots; all of them agree that every slot is served.

    Raises: ClusterFailed.
    Cost:   about 2.1 s; blocks the thread.
    """
    for attempt in range(1, ATTEMPTS + 1):
        with ExitStack() as stack:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="torg-cluster-")))
            nodes = stack.enter_context(_started(binary, home))
            try:
                _join(nodes)
            except ClusterFailed:
                if attempt == ATTEMPTS:
                    raise
                continue
            yield [f"redis://{HOST}:{node.port}" for node in nodes]
            return


@contextmanager
def _started(binary: str, home: Path) -> Iterator[list[Node]]:
    """Three nodes that know nothing of each other; they end with this block, or with this process however it ends."""
    with ExitStack() as stack:
        ports = _free_ports(2 * NODES)
        nodes: list[Node] = []
        for number in range(NODES):
            nodes.append(Node(binary, home / str(number), ports[2 * number], ports[2 * number + 1]))
            stack.callback(nodes[-1].kill)
        command = ["/bin/sh", "-c", LEASH, "sh", str(home), *(str(node.process.pid) for node in nodes)]
        leash = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True))
        try:
            yield nodes
        finally:
            leash.communicate(b"let go\n")  # before the nodes' pids are anybody's


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago. The bus gets its own: the default, port + 10000, may not exist."""
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [int(one.getsockname()[1]) for one in taken]


def _join(nodes: Sequence[Node]) -> None:
    """Each node has its third of the slots and knows the others. Raises: ClusterFailed."""
    deadline = time.monotonic() + START_S

    def wait_for(true: Callable[[Node], bool]) -> None:
        for node in nodes:
            while not true(node):
                if time.monotonic() > deadline:
                    raise ClusterFailed(f"no cluster after {START_S:.0f} s: {node.log.read_text()[-500:]}")
                time.sleep(POLL_S)

    wait_for(Node.answers)
    for number, node in enumerate(nodes):
        node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)  # or they would have to settle a clash
        node.ask("CLUSTER", "ADDSLOTSRANGE", first_slot(number), first_slot(number + 1) - 1)
        for other in nodes[:number]:
            node.ask("CLUSTER", "MEET", HOST, other.port, other.bus)
    wait_for(Node.agrees)


def first_slot(number: int) -> int:
    return -(-number * SLOTS // NODES)


class Cluster:
    """`lua.Redis` over a connection to each node. Whether the keys of a call belong together is the server's to say."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.pipes = [Pipe(url, timeout_ms=5000) for url in urls]

    async def evalsha(self, script: Script[Any], keys: Sequence[Part], args: Sequence[Part]) -> object:
        return await self.at(keys[0] if keys else "").evalsha(script, keys, args)

    async def command(self, *parts: Part) -> object:
        """The reply of the node that has the key, which stands where it does in most commands; KEYS: of all nodes."""
        name = str(parts[0]).upper()
        if name in EVERYWHERE:
            replies: list[Any] = await asyncio.gather(*(pipe.command(*parts) for pipe in self.pipes))
            return [found for reply in replies for found in reply] if name == "KEYS" else replies[0]
        key = parts[3 if name in SCRIPTED else 1] if name not in KEYLESS else ""
        return await self.at(key).command(*parts)

    def at(self, key: Part) -> Pipe:
        """The connection to the node that serves this key."""
        return self.pipes[key_slot(key if isinstance(key, bytes) else str(key).encode()) * NODES // SLOTS]

    async def aclose(self) -> None:
        for pipe in self.pipes:
            await pipe.aclose()
