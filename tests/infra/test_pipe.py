"""The shared connection: calls, errors, cancelling and closing; a real server judges, on both event loops."""

import asyncio
import random
import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.errors import RedisDown
from app.infra import lua, pipe
from app.infra.lua import BadScript, CommandFailed, Script, ScriptFailed
from app.infra.pipe import Pipe
from tests.infra.one_redis import SCRIPTS, Dial, Echoed, Never, Server, bytes_of, settled

# pytest-asyncio wants a hook instead, which only a conftest may have; there it would double every test of the folder.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy. fixture:DeprecationWarning")


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], ids=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> object:
    return request.param()


@pytest.fixture
def redis(dial: Dial) -> Pipe:
    return dial()


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
