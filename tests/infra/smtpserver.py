"""A real mail server in the test's own loop (aiosmtpd), which says what a test wants and remembers what it took."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

OK = "250 OK"


class Mailroom:
    """What was taken, who was there, and how each step is answered."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, bytes]] = []  # recipient and message, in the order of their end
        self.says: Callable[[str], str] = lambda to: OK  # to a recipient
        self.says_of_data: Callable[[str], str] = lambda to: OK
        self.says_to_sender = OK
        self.logins: list[tuple[bytes, bytes]] = []
        self.password = b""
        self.connections = 0
        self.at_once = self.most_at_once = 0  # between DATA and its answer
        self.gate: asyncio.Event | None = None  # DATA is answered once it is set
        self.came = asyncio.Event()  # somebody waits at the gate
        self.port = 0

    def mails(self) -> list[EmailMessage]:
        return [read(message) for _, message in self.taken]

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        return responses

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.mail_from = address
        return self.says_to_sender

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        said = self.says(address)
        if said == OK:
            envelope.rcpt_tos.append(address)
        return said

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        (to,) = envelope.rcpt_tos
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self.came.set()
            if self.gate:
                await self.gate.wait()
            said = self.says_of_data(to)
            if said == OK:
                assert isinstance(envelope.content, bytes)
                self.taken.append((to, envelope.content))
            return said
        finally:
            self.at_once -= 1

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, data: LoginPassword) -> AuthResult:
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == self.password, handled=False)


def read(message: bytes) -> EmailMessage:
    found = message_from_bytes(message, policy=default)
    assert isinstance(found, EmailMessage)
    return found


def parts(mail: EmailMessage) -> tuple[str, str]:
    """What it says as text and as HTML."""
    text, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert text
    assert html
    return str(text.get_content()), str(html.get_content())


@asynccontextmanager
async def receiving(
    room: Mailroom, port: int = 0, *, tls: ssl.SSLContext | None = None, starttls: ssl.SSLContext | None = None
) -> AsyncIterator[Mailroom]:
    """The mail server, on a free port or on this one. With `starttls` nothing is taken in the clear."""
    loop = asyncio.get_running_loop()
    open_ones: list[SMTP] = []

    def made() -> SMTP:
        room.connections += 1
        open_ones.append(SMTP(
            room, loop=loop, hostname="mx.example", tls_context=starttls, require_starttls=starttls is not None,
            auth_required=starttls is not None, auth_require_tls=starttls is not None,
            authenticator=room.authenticate if room.password else None, enable_SMTPUTF8=False,
        ))  # fmt: skip
        return open_ones[-1]

    server = await loop.create_server(made, "127.0.0.1", port, ssl=tls)
    room.port = server.sockets[0].getsockname()[1]
    try:
        yield room
    finally:
        server.close()
        for one in open_ones:
            if one.transport:
                one.transport.abort()  # type: ignore[attr-defined]
