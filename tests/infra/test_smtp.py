"""The mail server's adapter: what it is told in which words, and what each answer of the server means."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.base import mailbox
from app.errors import ProviderDown
from app.infra import smtp
from app.infra.smtp import Accepted, Deferred, Refused, Smtp
from tests.infra.rawserver import certified
from tests.infra.smtpserver import Mailroom, receiving

SENDER = mailbox.sender("Shop <orders@shop.example>")
MAIL = b"Subject: one\r\n\r\n.a line that begins with a dot\r\n"


@asynccontextmanager
async def sending(url: str, *, tls: ssl.SSLContext | None = None, timeout_s: float = 5) -> AsyncIterator[Smtp]:
    client = Smtp(mailbox.server(url), SENDER, timeout_s=timeout_s, tls=tls)
    yield client
    await client.aclose()


@pytest.fixture
async def room() -> AsyncIterator[Mailroom]:
    async with receiving(Mailroom()) as room:
        yield room


@pytest.fixture
async def client(room: Mailroom) -> AsyncIterator[Smtp]:
    async with sending(f"smtp+plain://127.0.0.1:{room.port}") as client:
        yield client


async def test_a_mail_arrives_as_it_was_written(room: Mailroom, client: Smtp) -> None:
    assert await client.send("ann@x.example", MAIL) == Accepted()
    assert room.taken == [("ann@x.example", MAIL)]


async def test_one_connection_carries_many_mails_and_as_many_as_are_under_way_are_open(
    room: Mailroom, client: Smtp
) -> None:
    for _ in range(5):
        await client.send("ann@x.example", MAIL)
    assert (len(room.taken), room.connections) == (5, 1)
    await asyncio.gather(*(client.send("ann@x.example", MAIL) for _ in range(4)))
    assert (len(room.taken), room.connections) == (9, 4)


async def test_a_connection_is_left_before_the_server_is_tired_of_it(
    room: Mailroom, client: Smtp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp, "MOST_MAILS", 2)
    for _ in range(5):
        await client.send("ann@x.example", MAIL)
    assert room.connections == 3
    monkeypatch.setattr(smtp, "KEPT_S", 0.0)
    await client.tidy()
    await client.send("ann@x.example", MAIL)
    assert room.connections == 4


async def test_a_connection_that_has_died_is_replaced_and_the_mail_goes_once(room: Mailroom, client: Smtp) -> None:
    await client.send("ann@x.example", MAIL)
    async with receiving(Mailroom()) as other:
        client.server = mailbox.server(f"smtp+plain://127.0.0.1:{other.port}")
        client._idle[-1].client.close()
        assert await client.send("ann@x.example", MAIL) == Accepted()
        assert (len(room.taken), len(other.taken)) == (1, 1)


@pytest.mark.parametrize("step", ["says", "says_of_data"])
@pytest.mark.parametrize(
    ("said", "means"),
    [("450 4.2.2 full", Deferred("450 4.2.2 full")), ("451 try later", Deferred("451 try later")),
     ("550 5.1.1 no such user", Refused("550 5.1.1 no such user")), ("554 spam", Refused("554 spam"))],
)  # fmt: skip
async def test_what_the_server_says_of_one_mail(
    room: Mailroom, client: Smtp, step: str, said: str, means: Deferred | Refused
) -> None:
    setattr(room, step, lambda to: said)
    assert await client.send("ann@x.example", MAIL) == means
    setattr(room, step, lambda to: "250 OK")
    assert await client.send("ann@x.example", MAIL) == Accepted()
    assert (len(room.taken), room.connections) == (1, 1)  # the connection is as good as new


@pytest.mark.parametrize("step", ["says", "says_of_data"])
@pytest.mark.parametrize("said", ["421 4.3.2 closing", "454 4.7.0 later", "530 5.7.0 log in first"])
async def test_what_the_server_says_of_itself_is_no_mails_fault(
    room: Mailroom, client: Smtp, step: str, said: str
) -> None:
    setattr(room, step, lambda to: said)
    with pytest.raises(ProviderDown, match=said[:3]):
        await client.send("ann@x.example", MAIL)


async def test_a_sender_whom_the_server_does_not_want_is_no_mails_fault(room: Mailroom, client: Smtp) -> None:
    room.says_to_sender = "550 5.7.1 who are you"
    with pytest.raises(ProviderDown, match=r"550 5\.7\.1 who are you"):
        await client.send("ann@x.example", MAIL)


async def test_a_server_that_is_away_or_says_nothing_is_down(room: Mailroom, client: Smtp) -> None:
    async with receiving(Mailroom()) as gone:
        pass
    async with sending(f"smtp+plain://127.0.0.1:{gone.port}") as to_nobody:
        with pytest.raises(ProviderDown, match="no mail server"):
            await to_nobody.send("ann@x.example", MAIL)
    room.gate = asyncio.Event()
    client.timeout_s = 0.3
    with pytest.raises(ProviderDown, match="no mail server"):
        await client.send("ann@x.example", MAIL)
    room.gate.set()


async def test_a_mail_that_is_cut_leaves_no_connection_half_way(room: Mailroom, client: Smtp) -> None:
    room.gate = asyncio.Event()
    cut = asyncio.create_task(client.send("ann@x.example", MAIL))
    await room.came.wait()
    cut.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cut
    room.gate.set()
    assert await client.send("bob@x.example", MAIL) == Accepted()
    assert (room.taken[-1][0], room.connections) == ("bob@x.example", 2)


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
async def test_a_password_goes_over_tls_alone(tmp_path: Path, scheme: str) -> None:
    server, trusting = certified(str(tmp_path), "127.0.0.1")
    room = Mailroom()
    room.password = b"p@ss/w:rd"
    how: dict[str, Any] = {"tls": server} if scheme == "smtps" else {"starttls": server}
    async with receiving(room, **how):
        url = f"{scheme}://shop:p%40ss%2Fw%3Ard@127.0.0.1:{room.port}"
        async with sending(url, tls=trusting) as client:
            assert await client.send("ann@x.example", MAIL) == Accepted()
        assert room.logins[-1] == (b"shop", b"p@ss/w:rd")
        async with sending(url) as client:  # the system's certificates do not know this one
            with pytest.raises(ProviderDown, match=r"(?i)certificate"):
                await client.send("ann@x.example", MAIL)
        async with sending(url.replace("p%40ss", "wrong"), tls=trusting) as client:
            with pytest.raises(ProviderDown, match="535") as failure:
                await client.send("ann@x.example", MAIL)
        assert "wrong" not in str(failure.value)
        assert len(room.taken) == 1


async def test_nothing_is_sent_to_a_server_that_takes_starttls_away(room: Mailroom) -> None:
    async with sending(f"smtp://shop:secret@127.0.0.1:{room.port}") as client:
        with pytest.raises(ProviderDown, match="STARTTLS"):
            await client.send("ann@x.example", MAIL)
    assert (room.taken, room.logins) == ([], [])
