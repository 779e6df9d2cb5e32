"""Calls to strangers' addresses: to the one that was judged and to no other, and nothing that answers holds us up."""

import asyncio
import gzip
import socket
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from app.base.target import Rules
from app.errors import ProviderDown
from app.infra import deps, outbound
from app.infra.outbound import Crowded, Outbound, Reply
from app.settings import BadSettings, Settings
from tests.infra.rawserver import OK, Raw, certified, listening

OWN = "127.0.0.0/8, ::1"


class Names:
    """A resolver whose answers change from one question to the next."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers, self.asked = list(answers), list[str]()

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@asynccontextmanager
async def calling(networks: str = OWN, **parts: Any) -> AsyncIterator[Outbound]:
    client = Outbound(Rules(networks), **parts)
    yield client
    await client.aclose()
    assert not client.running


async def post(client: Outbound, url: str, body: bytes = b"{}") -> Reply:
    return await client.post(url, body, {"webhook-id": "evt_1", "Content-Type": "application/json"}, party="one")


async def refused(client: Outbound, url: str) -> str:
    """What the failure says, which is nothing of the URL."""
    with pytest.raises(ProviderDown) as failure:
        await post(client, url)
    assert "secret-path" not in str(failure.value)
    return str(failure.value)


# ---- where it goes


async def test_the_request_is_what_was_asked_for() -> None:
    async with listening(Raw()) as raw, calling(resolve=Names(["127.0.0.1"])) as client:
        url = f"http://erp.example:{raw.port}/a/b/%7E;c=d?e=f&g=%2F"
        assert await post(client, url, b'{"a":1}') == Reply(200, None)
    head, body = raw.requests[0].split(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    assert (line, body) == (b"POST /a/b/%7E;c=d?e=f&g=%2F HTTP/1.1", b'{"a":1}')
    assert sorted(header.lower() for header in headers) == [
        b"accept-encoding: identity", b"accept: */*", b"connection: close", b"content-length: 7",
        b"content-type: application/json", f"host: erp.example:{raw.port}".encode(), b"user-agent: torg",
        b"webhook-id: evt_1",
    ]  # fmt: skip


async def test_a_name_that_turns_private_between_judgement_and_call_is_called_where_it_was_judged() -> None:
    """DNS rebinding: the second answer is never asked for."""
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    async with listening(Raw()) as judged, listening(Raw(), "127.0.0.2") as other, calling(resolve=names) as client:
        await post(client, f"http://rebind.example:{judged.port}/")
        assert (names.asked, len(judged.requests), other.requests) == (["rebind.example"], 1, [])
        assert names.answers == [["127.0.0.2"]]


@pytest.mark.parametrize(
    "answer",
    [["10.0.0.1"], ["169.254.169.254"], ["127.0.0.1", "10.0.0.1"], ["::ffff:127.0.0.1"], ["fe80::1%lo"], ["2130706433"],
     ["64:ff9b::7f00:1"], ["nonsense"], []],
    ids=str,
)  # fmt: skip
async def test_a_name_with_any_address_that_is_not_for_strangers_is_not_called(answer: list[str]) -> None:
    async with listening(Raw()) as raw, calling(resolve=Names(answer)) as client:
        said = await refused(client, f"http://mixed.example:{raw.port}/secret-path")
        assert said in ("not called: no public address", "not called: https only")
        assert raw.requests == []


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:{}/", "http://localhost:{}/", "http://2130706433:{}/", "http://0x7f000001:{}/", "http://127.1:{}/",
     "http://0177.0.0.1:{}/", "http://[::ffff:127.0.0.1]:{}/", "http://[::1]:{}/", "http://0:{}/", "http://a@127.0.0.1:{}/",
     "https://127.0.0.1:{}/", "https://localhost:8443/secret-path", "https://[::1]:8443/secret-path", "file:///etc/hosts"],
)  # fmt: skip
async def test_without_networks_of_our_own_nothing_at_home_is_called(url: str) -> None:
    async with listening(Raw()) as raw, calling("") as client:
        assert (await refused(client, url.format(raw.port))).startswith("not called: ")
        assert raw.requests == []


async def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    async with listening(Raw()) as inside, calling() as client:
        for status in (301, 302, 303, 307, 308):
            head = f"HTTP/1.1 {status} Go\r\nLocation: http://127.0.0.1:{inside.port}/\r\nContent-Length: 0\r\n\r\n"
            async with listening(Raw(head.encode())) as raw:
                assert await post(client, f"http://127.0.0.1:{raw.port}/") == Reply(status, None)
        assert inside.requests == []


async def test_proxies_and_passwords_of_the_environment_are_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with listening(Raw()) as proxy, listening(Raw()) as raw:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        async with calling() as client:
            await post(client, f"http://127.0.0.1:{raw.port}/")
        assert (len(raw.requests), proxy.requests) == (1, [])
        assert b"authorization" not in raw.requests[0].lower()


async def test_nothing_is_remembered_from_one_call_to_the_next() -> None:
    """Neither a connection, whose certificate was another name's, nor a cookie."""
    connections = 0

    async def answer(writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()

    async with listening(Raw(answer)) as raw, calling(resolve=Names(["127.0.0.1"])) as client:
        for name in ("one.example", "two.example", "one.example"):
            await post(client, f"http://{name}:{raw.port}/")
        assert connections == 3
        assert not any(b"cookie" in request.lower() for request in raw.requests)


async def test_the_next_address_is_tried_where_nothing_was_sent() -> None:
    async with listening(Raw(), "127.0.0.3") as raw:
        async with calling(resolve=Names(["127.0.0.2", "127.0.0.3"])) as client:
            assert (await post(client, f"http://two.example:{raw.port}/")).status == 200
        async with calling(resolve=Names(["127.0.0.2", "127.0.0.2", "127.0.0.4"])) as client:
            assert await refused(client, f"http://two.example:{raw.port}/") == "no answer (ConnectError)"
    assert len(raw.requests) == 1


async def test_an_ipv6_address_is_called() -> None:
    try:
        server = listening(Raw(), "::1")
        raw = await server.__aenter__()
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with calling() as client:
        await post(client, f"http://[::1]:{raw.port}/")
    assert f"host: [::1]:{raw.port}\r\n".encode() in raw.requests[0].lower()
    await server.__aexit__(None, None, None)


# ---- TLS


async def test_the_certificate_is_the_names_though_the_address_is_called(tmp_path: Path) -> None:
    server, trusts = certified(str(tmp_path), "shop.example")
    async with listening(Raw(), tls=server) as raw, calling(resolve=Names(["127.0.0.1"]), tls=trusts) as client:
        assert (await post(client, f"https://shop.example:{raw.port}/")).status == 200
        assert raw.names == ["shop.example"]
        assert f"host: shop.example:{raw.port}\r\n".encode() in raw.requests[0].lower()
        assert await refused(client, f"https://evil.example:{raw.port}/") == "no answer (ConnectError)"
        assert await refused(client, f"https://127.0.0.1:{raw.port}/") == "no answer (ConnectError)"
        assert len(raw.requests) == 1


async def test_a_certificate_of_nobody_we_trust_is_refused(tmp_path: Path) -> None:
    server, _ = certified(str(tmp_path), "shop.example")
    async with listening(Raw(), tls=server) as raw, calling(resolve=Names(["127.0.0.1"])) as client:
        assert await refused(client, f"https://shop.example:{raw.port}/") == "no answer (ConnectError)"
        assert raw.requests == []


# ---- what comes back


@pytest.mark.parametrize("status", [200, 204, 299, 304, 400, 401, 404, 410, 418, 500, 503])
async def test_any_status_is_an_answer(status: int) -> None:
    async with listening(Raw(f"HTTP/1.1 {status} So\r\n\r\n".encode())) as raw, calling() as client:
        assert (await post(client, f"http://127.0.0.1:{raw.port}/")).status == status


@pytest.mark.parametrize(
    ("status", "said", "wait_s"),
    [(503, "120", 120), (429, "0", 0), (502, " 7 ", 7), (504, "99999999999999999999", 86_400), (503, "-1", None),
     (503, "soon", None), (503, "1.5", None), (503, "٣", None), (500, "120", None), (200, "120", None),
     (503, "Wed, 21 Oct 2015 07:28:00 GMT", 0), (503, "Fri, 31 Dec 9999 23:59:59 GMT", 86_400),
     (503, "Fri, 31 Dec 99999 23:59:59 GMT", None), (503, "Wed, 21 Oct 2015 07:28:00", 0)],
)  # fmt: skip
async def test_the_wait_that_is_asked_for_is_believed_within_reason(status: int, said: str, wait_s: int | None) -> None:
    head = f"HTTP/1.1 {status} So\r\nRetry-After: {said}\r\nContent-Length: 0\r\n\r\n"
    async with listening(Raw(head.encode())) as raw, calling() as client:
        assert await post(client, f"http://127.0.0.1:{raw.port}/") == Reply(status, wait_s)


@pytest.mark.parametrize(
    "answer",
    [b"", b"\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200", b"HTTP/1.1 9 OK\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", b"\0" * 1000, b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 100_000,
     b"HTTP/1.1 200 OK\r\na: " + b"b" * 1_000_000, b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
     b"HTTP/1.1 101 Switching Protocols\r\n"],
    ids=lambda answer: repr(answer[:40]),
)  # fmt: skip
async def test_an_answer_that_is_no_http_is_none(answer: bytes) -> None:
    async with listening(Raw(answer)) as raw, calling() as client:
        assert (await refused(client, f"http://127.0.0.1:{raw.port}/")).startswith("no answer (")


@pytest.mark.parametrize("drop", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nx: y\r\n"])
async def test_an_answer_that_drips_is_cut(drop: bytes) -> None:
    """A phase's own timeout begins anew with each byte; ours does not."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(drop if len(drop) > 1 else b"H")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with listening(Raw(answer)) as raw, calling(timeout_s=0.5) as client:
        began = time.monotonic()
        assert (await refused(client, f"http://127.0.0.1:{raw.port}/")).startswith("no answer (")
        assert time.monotonic() - began < 5


async def test_a_body_that_drips_or_never_ends_does_not_change_what_was_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbound, "COURTESY_S", 0.2)
    sent = 0

    async def drips(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async def never_ends(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
            await writer.drain()
            sent += 0x8000

    for answer in (drips, never_ends):
        async with listening(Raw(answer)) as raw, calling() as client:
            assert await post(client, f"http://127.0.0.1:{raw.port}/") == Reply(200, None)
    assert sent < 20_000_000  # what fits into the buffers between us, and no more was read


async def test_a_gzip_bomb_stays_packed() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n".encode()
    async with listening(Raw(head + bomb)) as raw, calling() as client:
        await post(client, f"http://127.0.0.1:{raw.port}/")
        tracemalloc.start()
        assert await post(client, f"http://127.0.0.1:{raw.port}/") == Reply(200, None)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < 5_000_000


# ---- what it takes of us


async def test_a_party_that_hangs_holds_up_itself_alone() -> None:
    async def hangs(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with listening(Raw(hangs)) as slow, listening(Raw(OK)) as quick, calling(timeout_s=30) as client:
        stuck = [asyncio.create_task(post(client, f"http://127.0.0.1:{slow.port}/")) for _ in range(outbound.MOST_EACH)]
        await asyncio.sleep(0)  # each has taken its place, whether or not it has been heard
        with pytest.raises(Crowded):
            await post(client, f"http://127.0.0.1:{quick.port}/")
        for n in range(outbound.MOST):
            reply = await client.post(f"http://127.0.0.1:{quick.port}/", b"", {}, party=str(n))
            assert reply.status == 200
        for task in stuck:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        assert (await post(client, f"http://127.0.0.1:{quick.port}/")).status == 200


async def test_all_parties_together_are_bounded_too() -> None:
    gate = asyncio.Event()

    async def waits(writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        writer.write(OK)

    async with listening(Raw(waits)) as raw, calling(timeout_s=30) as client:
        url = f"http://127.0.0.1:{raw.port}/"
        tasks = [asyncio.create_task(client.post(url, b"", {}, party=str(n))) for n in range(outbound.MOST)]
        await asyncio.sleep(0)
        with pytest.raises(Crowded):
            await post(client, url)
        gate.set()
        assert {reply.status for reply in await asyncio.gather(*tasks)} == {200}


async def test_a_name_server_that_hangs_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    answered, real = threading.Event(), socket.getaddrinfo

    def ask(host: str, *args: Any, **more: Any) -> Any:
        if host == "slow.example":
            answered.wait(30)
            raise socket.gaierror("late")
        return real(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    async with listening(Raw()) as raw, calling(timeout_s=0.3) as client:
        slow = [refused(client, f"http://slow.example:{raw.port}/") for _ in range(outbound.MOST_EACH)]
        waiting = asyncio.gather(*slow)
        await asyncio.sleep(0)
        reply = await client.post(f"http://localhost:{raw.port}/", b"", {}, party="another")
        assert reply.status == 200
        assert set(await waiting) == {"no answer (TimeoutError)"}
    answered.set()


async def test_a_process_that_calls_nobody_makes_no_client() -> None:
    client = Outbound(Rules())
    await client.aclose()
    assert "transport" not in vars(client)


async def test_networks_that_are_none_stop_the_start() -> None:
    with pytest.raises(BadSettings, match="TORG_WEBHOOK_NETWORKS"):
        async with deps.opened(Settings(webhook_networks="10.0.0.1/8")):
            pass
