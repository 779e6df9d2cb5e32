"""The shared connection under what happens to connections; a real server judges, on both event loops."""

import asyncio
import itertools
import random
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.errors import RedisDown
from app.infra import embedded, lua, pipe
from app.infra.link import Call, Link
from app.infra.lua import BadScript, CommandFailed, Script, ScriptFailed
from app.infra.pipe import Pipe

# pytest-asyncio wants a hook instead, which only a conftest may have; there it would double every test of the folder.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy. fixture:DeprecationWarning")

PATIENCE_S = 5.0
SCRIPTS = {
    "test/echo": """\
#!lua flags=
-- test/echo: count the call and give its argument back.
-- reply  echoed word
-- cost   O(1), at most 1 command
-- slot   {t}
local calls = KEYS[1]  -- string  calls that ran
local word  = ARGV[1]  -- bytes   unique to the call
redis.call("INCR", calls)
return {"echoed", word}
""",
    "test/fail": """\
#!lua flags=
-- test/fail: raise the error of this name.
-- reply  never
-- cost   O(1), 0 commands
-- slot   {t}
local text = ARGV[1]  -- bytes  first word and text of the error
if text then
  return redis.error_reply(text)
end
return {"never"}
""",
}


class Echoed(msgspec.Struct, frozen=True):
    word: bytes


class Never(msgspec.Struct, frozen=True):
    pass


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], ids=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> object:
    return request.param()


class Server:
    """One valkey-server of this test alone, on a socket of its own; also to be killed and frozen."""

    def __init__(self) -> None:
        self.dir = tempfile.mkdtemp(prefix="t-")  # a unix socket's path has room for 107 bytes, tmp_path may be longer
        self.url = f"unix://{self.dir}/s?db=3"
        self.start()

    def start(self, *more: str) -> None:
        place = ["--port", "0", "--unixsocket", f"{self.dir}/s", "--dir", self.dir]
        options = ["--save", "", "--loglevel", "warning", "--enable-debug-command", "local"]
        self.process = subprocess.Popen([embedded._redis(), *place, *options, *more], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE_S
        with socket.socket(socket.AF_UNIX) as peer:
            while peer.connect_ex(f"{self.dir}/s"):
                assert time.monotonic() < deadline
                time.sleep(0.002)

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()  # also when frozen
        self.process.wait()
        Path(f"{self.dir}/s").unlink(missing_ok=True)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.kill()
    shutil.rmtree(server.dir)


class Dial(Protocol):
    """Opens one more Pipe, to this test's server unless told otherwise; it is closed whatever happens to the test."""

    def __call__(self, url: str = "", timeout_ms: int = 2000) -> Pipe: ...


@pytest.fixture
async def dial(server: Server) -> AsyncIterator[Dial]:
    opened: list[Pipe] = []

    def dial(url: str = "", timeout_ms: int = 2000) -> Pipe:
        opened.append(Pipe(url or server.url, timeout_ms=timeout_ms))
        return opened[-1]

    yield dial
    for one in opened:
        await one.aclose()


@pytest.fixture
def redis(dial: Dial) -> Pipe:
    return dial()


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


async def until(true: Callable[[], Awaitable[object]]) -> None:
    """Waits until `true` stops raising RedisDown."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await true()
                return
            except RedisDown:
                await asyncio.sleep(0.01)


async def settled(*calls: Awaitable[Any]) -> list[Any]:
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_commands_and_scripts_answer(redis: Pipe, echo: Script[Echoed]) -> None:
    assert await redis.command("PING") == b"PONG"
    assert await redis.command("SET", "{t}key", b"\x00\xff", "PX", 60_000) == b"OK"
    assert await redis.command("GET", "{t}key") == b"\x00\xff"
    assert await redis.command("GET", "{t}none") is None
    assert await echo(redis, keys=["{t}calls"], args=["слово"]) == Echoed(word="слово".encode())


async def test_the_database_of_the_url_is_used(redis: Pipe) -> None:
    assert b" db=3 " in bytes_of(await redis.command("CLIENT", "INFO"))


async def test_a_lost_script_is_sent_again_and_runs_once(redis: Pipe, echo: Script[Echoed]) -> None:
    for word in (b"first", b"second"):
        await redis.command("SCRIPT", "FLUSH")
        assert await echo(redis, keys=["{t}calls"], args=[word]) == Echoed(word=word)
    assert await redis.command("GET", "{t}calls") == b"2"


async def test_loaded_scripts_are_known_to_the_server(redis: Pipe, echo: Script[Echoed], fail: Script[Never]) -> None:
    await lua.load(redis, [echo, fail])
    assert await redis.command("SCRIPT", "EXISTS", echo.sha, fail.sha) == [1, 1]


async def test_a_script_that_does_not_compile_is_refused_at_load(redis: Pipe, tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test/echo.lua").write_text(SCRIPTS["test/echo"].replace("return {", "return return {"))
    with pytest.raises(BadScript, match=r"^lua/test/echo.lua: .*compiling"):
        await lua.load(redis, [Script("test/echo", Echoed, root=tmp_path)])


async def test_the_calls_of_one_turn_leave_in_one_write(redis: Pipe, echo: Script[Echoed], writes: list[int]) -> None:
    await lua.load(redis, [echo])
    writes.clear()
    assert await asyncio.gather(*(redis.command("ECHO", str(n)) for n in range(pipe.WRITE_CALLS))) == [
        str(n).encode() for n in range(pipe.WRITE_CALLS)
    ]
    assert writes == [pipe.WRITE_CALLS]


async def test_a_thousand_calls_leave_in_few_writes(redis: Pipe, echo: Script[Echoed], writes: list[int]) -> None:
    await lua.load(redis, [echo])
    writes.clear()
    outcomes = await asyncio.gather(*(echo(redis, ["{t}calls"], [n]) for n in range(1000)))
    assert outcomes == [Echoed(word=str(n).encode()) for n in range(1000)]
    assert sum(writes) == 1000
    assert len(writes) == -(-1000 // pipe.WRITE_CALLS)
    assert bytes_of(await redis.command("CLIENT", "LIST")).count(b"\n") == 1


async def test_an_error_reaches_only_its_caller(redis: Pipe, echo: Script[Echoed], fail: Script[Never]) -> None:
    before, between, after = ([echo(redis, ["{t}calls"], [n]) for n in range(part, part + 30)] for part in (0, 30, 60))
    outcomes = await settled(*before, fail(redis, args=["OOPS not today"]), *between, redis.command("HGETALL"), *after)
    refused, failed = outcomes.pop(61), outcomes.pop(30)
    assert isinstance(failed, ScriptFailed)
    assert str(failed).startswith("test/fail: OOPS not today")
    assert type(refused) is CommandFailed
    assert "wrong number of arguments" in str(refused)
    assert outcomes == [Echoed(word=str(n).encode()) for n in range(90)]


async def test_what_cannot_be_packed_reaches_only_its_caller(redis: Pipe) -> None:
    wrong: Any = [1]
    good, bad = await settled(redis.command("ECHO", "a"), redis.command("ECHO", wrong))
    assert good == b"a"
    assert isinstance(bad, TypeError)


@pytest.mark.parametrize("code", sorted(pipe.UNAVAILABLE))
async def test_a_server_that_cannot_serve_is_down(redis: Pipe, fail: Script[Never], code: str) -> None:
    with pytest.raises(RedisDown, match=f"^Redis answered {code}$"):
        await fail(redis, args=[f"{code} whatever it says"])
    assert await redis.command("PING") == b"PONG"


async def test_a_demoted_server_is_left_for_a_new_connection(redis: Pipe) -> None:
    before = await redis.command("CLIENT", "ID")
    await redis.command("REPLICAOF", "127.0.0.1", 1)
    with pytest.raises(RedisDown, match="READONLY"):
        await redis.command("SET", "{t}key", 1)
    await redis.command("REPLICAOF", "NO", "ONE")
    assert await redis.command("SET", "{t}key", 1) == b"OK"
    assert await redis.command("CLIENT", "ID") != before


async def test_cancelled_calls_leave_the_others_their_own_replies(redis: Pipe, echo: Script[Echoed]) -> None:
    chance = random.Random(7)
    await lua.load(redis, [echo])
    tasks = [asyncio.create_task(echo(redis, ["{t}calls"], [n])) for n in range(2000)]
    cancelled = set(chance.sample(range(2000), 600))
    for number, wave in enumerate([n for n in cancelled if n % 3 == part] for part in range(3)):
        # Before they are queued, before they are written, and in flight.
        for n in wave:
            tasks[n].cancel()
        if number < 2:
            await asyncio.sleep(0)
    outcomes = await settled(*tasks)
    for n, outcome in enumerate(outcomes):
        if n in cancelled and isinstance(outcome, asyncio.CancelledError):
            continue
        assert outcome == Echoed(word=str(n).encode())
    assert sum(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes) > 300
    assert await redis.command("ECHO", "aligned") == b"aligned"


async def test_a_call_cancelled_before_it_is_written_never_runs(redis: Pipe) -> None:
    await redis.command("PING")
    task = asyncio.create_task(redis.command("SET", "{t}key", 1))
    await asyncio.sleep(0)
    task.cancel()
    assert await redis.command("EXISTS", "{t}key") == 0


async def test_a_timed_out_caller_costs_the_others_nothing(redis: Pipe) -> None:
    await redis.command("PING")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await redis.command("DEBUG", "SLEEP", "0.2")
    assert await redis.command("ECHO", "next") == b"next"


async def test_killed_in_flight_fails_and_the_next_server_is_used(
    server: Server, redis: Pipe, echo: Script[Echoed]
) -> None:
    await lua.load(redis, [echo])
    server.freeze()
    calls = [asyncio.create_task(echo(redis, ["{t}calls"], [n])) for n in range(200)]
    await asyncio.sleep(0.05)
    server.kill()
    outcomes = await settled(*calls)
    assert {type(outcome) for outcome in outcomes} == {RedisDown}
    assert len({id(outcome) for outcome in outcomes}) == 200
    server.start()
    await until(lambda: redis.command("PING"))
    assert await echo(redis, ["{t}calls"], ["after"]) == Echoed(word=b"after")
    assert await redis.command("GET", "{t}calls") == b"1"  # nothing was repeated


async def test_a_killed_connection_is_replaced_at_once(redis: Pipe, dial: Dial) -> None:
    mine = await redis.command("CLIENT", "ID")
    assert await dial().command("CLIENT", "KILL", "ID", int(str(mine))) == 1
    await asyncio.sleep(0.02)
    assert await redis.command("ECHO", "again") == b"again"
    assert await redis.command("CLIENT", "ID") != mine


async def test_random_kills_never_mix_replies(redis: Pipe, dial: Dial, echo: Script[Echoed]) -> None:
    chance, other = random.Random(3), dial()

    async def killer() -> None:
        for _ in range(30):
            await other.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await asyncio.sleep(chance.random() / 50)

    async def caller(name: int) -> int:
        answered = 0
        for number in itertools.count():
            if killing.done():
                return answered
            word = f"{name}-{number}".encode()
            with suppress(RedisDown):
                assert await echo(redis, ["{t}calls"], [word]) == Echoed(word=word)
                answered += 1
        raise AssertionError

    killing = asyncio.create_task(killer())
    answered = sum(await asyncio.gather(*(caller(name) for name in range(50))))
    await killing
    await until(lambda: redis.command("PING"))
    assert answered <= int(bytes_of(await redis.command("GET", "{t}calls")))


async def test_a_frozen_server_is_down_in_time(server: Server, dial: Dial, echo: Script[Echoed]) -> None:
    redis = dial(timeout_ms=200)
    await redis.command("PING")
    server.freeze()
    start = time.monotonic()
    early = [asyncio.create_task(echo(redis, ["{t}calls"], [n])) for n in range(100)]
    await asyncio.sleep(0.1)
    late = asyncio.create_task(echo(redis, ["{t}calls"], ["late"]))
    outcomes = await settled(*early)
    assert {type(outcome) for outcome in outcomes} == {RedisDown}
    assert 0.19 < time.monotonic() - start < 1
    assert isinstance((await settled(late))[0], RedisDown)  # it was on the same connection
    # The breaker is open: nobody waits a second time, though the kernel still accepts for a frozen server.
    start = time.monotonic()
    for _ in range(100):
        with pytest.raises(RedisDown, match="Redis is out"):
            await redis.command("PING")
    assert time.monotonic() - start < 0.2
    server.thaw()
    await until(lambda: redis.command("PING"))
    words = [f"after-{n}" for n in range(100)]
    outcomes = await asyncio.gather(*(echo(redis, ["{t}calls"], [word]) for word in words))
    assert outcomes == [Echoed(word=word.encode()) for word in words]


async def test_a_thaw_is_heard_on_the_same_connection(server: Server, dial: Dial, echo: Script[Echoed]) -> None:
    redis = dial(timeout_ms=100)
    mine = await redis.command("CLIENT", "ID")
    for number in range(3):  # the next freeze is found out as soon as the first
        server.freeze()
        start = time.monotonic()
        outcomes = await settled(*(echo(redis, ["{t}calls"], [f"{number}-{n}"]) for n in range(50)))
        assert {type(outcome) for outcome in outcomes} == {RedisDown}
        assert time.monotonic() - start < 0.1 + pipe.LATE_S + 0.3
        server.thaw()
        await until(lambda: redis.command("PING"))
        word = f"after-{number}".encode()
        assert await echo(redis, ["{t}calls"], [word]) == Echoed(word=word)  # late replies went to nobody
    assert await redis.command("CLIENT", "ID") == mine


async def test_a_server_that_dies_frozen_is_replaced(server: Server, dial: Dial) -> None:
    redis = dial(timeout_ms=100)
    await redis.command("PING")
    server.freeze()
    assert isinstance((await settled(redis.command("PING")))[0], RedisDown)
    server.kill()
    server.start()
    await until(lambda: redis.command("PING"))


async def test_a_server_frozen_for_long_is_left_for_a_new_connection(server: Server, dial: Dial) -> None:
    redis = dial(timeout_ms=100)
    mine = await redis.command("CLIENT", "ID")
    server.freeze()
    assert isinstance((await settled(redis.command("PING")))[0], RedisDown)
    async with asyncio.timeout(PATIENCE_S):
        while redis._link:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    server.thaw()
    await until(lambda: redis.command("PING"))
    assert await redis.command("CLIENT", "ID") != mine


@asynccontextmanager
async def slow_peer(pause_s: float) -> AsyncIterator[str]:
    """Somebody who answers every command after a pause, one by one."""

    busy: set[asyncio.Task[None] | None] = set()

    async def come(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        busy.add(asyncio.current_task())
        try:
            while line := await reader.readline():
                if line.startswith(b"*"):
                    await asyncio.sleep(pause_s)
                    writer.write(b"+OK\r\n")
        finally:
            writer.close()

    async with await asyncio.start_server(come, "127.0.0.1", 0) as peer:
        yield f"redis://127.0.0.1:{peer.sockets[0].getsockname()[1]}"
    for task in filter(None, busy):
        task.cancel()
        await asyncio.wait([task])


async def test_a_slow_server_is_not_a_silent_one(dial: Dial) -> None:
    async with slow_peer(0.03) as url:
        redis = dial(url, timeout_ms=200)
        await redis.command("PING")
        assert await asyncio.gather(*(redis.command("PING") for _ in range(16))) == [b"OK"] * 16  # 480 ms
        await redis.aclose()


async def test_nobody_waits_for_ever_for_a_slow_server(dial: Dial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "SLOW_S", 0.3)
    async with slow_peer(0.03) as url:
        redis = dial(url, timeout_ms=200)
        await redis.command("PING")
        outcomes = await settled(*(redis.command("PING") for _ in range(40)))
        assert outcomes[0] == b"OK"
        assert isinstance(outcomes[-1], RedisDown)
        await redis.aclose()


async def test_a_server_that_is_frozen_from_the_start_is_waited_for_once(server: Server, dial: Dial) -> None:
    server.freeze()
    redis = dial(timeout_ms=100)
    start = time.monotonic()
    assert isinstance((await settled(redis.command("PING")))[0], RedisDown)
    for _ in range(100):
        with pytest.raises(RedisDown, match="Redis is out"):
            await redis.command("PING")
    assert time.monotonic() - start < pipe.SETUP_S
    server.thaw()
    await until(lambda: redis.command("PING"))


@pytest.mark.parametrize("turns", [1, 2], ids=["queued", "written"])
async def test_a_stalled_loop_is_not_a_silent_server(dial: Dial, turns: int) -> None:
    redis = dial(timeout_ms=100)
    await redis.command("PING")
    call = asyncio.create_task(redis.command("ECHO", "in time"))
    for _ in range(turns):
        await asyncio.sleep(0)
    time.sleep(0.3)  # noqa: ASYNC251 # somebody's slow code: nothing is written or read meanwhile
    assert await call == b"in time"


async def test_a_dead_server_is_refused_quickly(server: Server, redis: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    server.kill()
    attempts = 0
    open_link = Link.open

    async def counted(*args: Any) -> Link:
        nonlocal attempts
        attempts += 1
        return await open_link(*args)

    monkeypatch.setattr(Link, "open", counted)
    start = time.monotonic()
    for _ in range(30):
        outcomes = await settled(*(redis.command("PING") for _ in range(50)))
        assert {type(outcome) for outcome in outcomes} == {RedisDown}
        await asyncio.sleep(0.01)
    assert 2 <= attempts <= 7 + (time.monotonic() - start) / pipe.LAST_BACKOFF_S
    server.start()
    await until(lambda: redis.command("PING"))


async def test_too_many_waiting_calls_are_refused_at_once(
    server: Server, redis: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipe, "MOST_CALLS", 100)
    await redis.command("PING")
    server.freeze()
    waiting = [asyncio.create_task(redis.command("ECHO", str(n))) for n in range(100)]
    await asyncio.sleep(0)
    with pytest.raises(RedisDown, match="100 calls wait"):
        await redis.command("PING")
    server.thaw()
    assert await asyncio.gather(*waiting) == [str(n).encode() for n in range(100)]
    assert await redis.command("PING") == b"PONG"


async def test_what_does_not_fit_the_socket_waits_and_arrives(server: Server, redis: Pipe, writes: list[int]) -> None:
    await redis.command("PING")
    server.freeze()
    big = b"x" * 1_000_000
    first = [asyncio.create_task(redis.command("ECHO", big)) for _ in range(5)]
    await asyncio.sleep(0.05)
    writes.clear()
    later = [asyncio.create_task(redis.command("ECHO", str(n))) for n in range(50)]
    await asyncio.sleep(0.05)
    assert writes == []
    server.thaw()
    assert await asyncio.gather(*first) == [big] * 5
    assert await asyncio.gather(*later) == [str(n).encode() for n in range(50)]


async def test_calls_not_yet_written_go_out_on_the_next_connection(server: Server, redis: Pipe) -> None:
    await redis.command("PING")
    server.freeze()
    first = asyncio.create_task(redis.command("SET", "{t}big", b"x" * 5_000_000))
    await asyncio.sleep(0.05)
    later = [asyncio.create_task(redis.command("INCR", "{t}later")) for _ in range(50)]
    await asyncio.sleep(0.05)
    server.kill()
    server.start()
    assert isinstance((await settled(first))[0], RedisDown)
    assert sorted(int(str(n)) for n in await asyncio.gather(*later)) == list(range(1, 51))


async def test_closing_fails_what_is_in_flight(server: Server, redis: Pipe) -> None:
    await redis.command("PING")
    server.freeze()
    calls = [asyncio.create_task(redis.command("PING")) for _ in range(50)]
    await asyncio.sleep(0.02)
    calls.append(asyncio.create_task(redis.command("PING")))
    await asyncio.sleep(0)
    links = tuple(redis._links)
    await redis.aclose()
    assert [link.gone.is_set() for link in links] == [True]
    assert {type(outcome) for outcome in await settled(*calls)} == {RedisDown}
    with pytest.raises(RedisDown, match="closed"):
        await redis.command("PING")
    await redis.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_closing_while_connecting_leaves_nothing(server: Server, redis: Pipe) -> None:
    server.freeze()
    call = asyncio.create_task(redis.command("PING"))
    await asyncio.sleep(0.05)
    await redis.aclose()
    assert isinstance((await settled(call))[0], RedisDown)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_closing_unused_is_nothing(redis: Pipe) -> None:
    await redis.aclose()


async def test_a_password_is_proved(server: Server, dial: Dial) -> None:
    server.kill()
    server.start("--requirepass", "s3 cret")
    assert await dial(server.url + "&password=s3%20cret").command("PING") == b"PONG"
    with pytest.raises(RedisDown) as caught:
        await dial(server.url + "&password=guess").command("PING")
    assert "invalid" in str(caught.value.__cause__)
    assert "guess" not in repr(caught.value) + repr(caught.value.__cause__)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+PONG\r\n+PONG\r\n"])
async def test_a_peer_that_answers_out_of_turn_is_left(server: Server, dial: Dial, answer: bytes) -> None:
    connections, strays = 0, []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: strays.append(context))

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with suppress(OSError):
            while asked := await reader.read(1000):
                writer.write(answer if b"PING" in asked else b"+OK\r\n" * asked.count(b"*"))
        writer.close()

    listening = await asyncio.start_unix_server(peer, f"{server.dir}/peer")
    redis = dial(f"unix://{server.dir}/peer")
    for number in (1, 2):
        outcome = (await settled(redis.command("PING")))[0]
        assert outcome == b"PONG" if b"PONG" in answer else isinstance(outcome, RedisDown)
        await asyncio.sleep(0.02)
        assert (connections, strays) == (number, [])
    await redis.aclose()
    listening.close()
    await asyncio.sleep(0.02)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    today = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(today).not_valid_after(today + timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    pem = tmp_path / "both.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    )
    return pem


async def test_tls_is_spoken(server: Server, dial: Dial, certificate: Path, echo: Script[Echoed]) -> None:
    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(65536):
                writer.write(chunk)
        writer.close()

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(f"{server.dir}/s")
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listening = await asyncio.start_server(proxy, "localhost", 0, ssl=context)
    port = listening.sockets[0].getsockname()[1]
    redis = dial(f"rediss://localhost:{port}/2?ssl_ca_certs={certificate}")
    await lua.load(redis, [echo])
    outcomes = await asyncio.gather(*(echo(redis, ["{t}calls"], [n]) for n in range(500)))
    assert outcomes == [Echoed(word=str(n).encode()) for n in range(500)]
    assert b" db=2 " in bytes_of(await redis.command("CLIENT", "INFO"))
    await redis.aclose()
    with pytest.raises(RedisDown):
        await dial(f"rediss://localhost:{port}/2").command("PING")
    listening.close()
    await asyncio.sleep(0.05)


def bytes_of(reply: object) -> bytes:
    assert isinstance(reply, bytes)
    return reply
