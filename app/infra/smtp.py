"""The mail server: takes one message for one recipient at a time, over a few connections that are kept for a while.

A connection carries one mail at a time, so as many are open as mails are under way. One that rested is asked first
whether it is still there. The only file that names aiosmtplib.
"""

import asyncio
import ssl
from contextlib import suppress
from functools import cached_property
from time import monotonic

import aiosmtplib
import msgspec
from aiosmtplib import SMTPException, SMTPResponseException

from app.base.mailbox import Sender, Server
from app.errors import ProviderDown

KEPT_S = 20.0  # how long an idle connection is kept; servers hang up after some minutes (RFC 5321 §4.5.3.2)
MOST_MAILS = 50  # over one connection: servers have limits, and say 421 when one is over
GOODBYE_S = 0.5  # for all connections together
AWAY = frozenset({421, 454, 530, 535})  # said of the server or of us, never of one mail


class Accepted(msgspec.Struct, frozen=True):
    """The server has taken the mail over."""


class Deferred(msgspec.Struct, frozen=True):
    """Not now, says the server of this mail (4xx)."""

    said: str


class Refused(msgspec.Struct, frozen=True):
    """Never, says the server of this mail (5xx)."""

    said: str


Outcome = Accepted | Deferred | Refused


class _Line:
    """One connection."""

    def __init__(self, client: aiosmtplib.SMTP) -> None:
        self.client, self.mails, self.rests_since_s = client, 0, 0.0


class Smtp:
    """The mail server as one process uses it."""

    def __init__(self, server: Server, sender: Sender, *, timeout_s: float, tls: ssl.SSLContext | None = None) -> None:
        self.server, self.sender, self.timeout_s = server, sender, timeout_s
        self._given_tls = tls
        self._idle: list[_Line] = []  # the one that rests for the shortest time is the last

    @cached_property
    def tls(self) -> ssl.SSLContext | None:
        """Made with the first connection, if ever: reading the system's certificates takes a while."""
        return self._given_tls or (None if self.server.scheme == "smtp+plain" else ssl.create_default_context())

    async def send(self, to: str, message: bytes) -> Outcome:
        """What the server says of this mail, which goes to this one address.

        Raises: ProviderDown when there is no server that would have us, or none within `timeout_s`. Then nobody knows
        whether the server has the mail.
        """
        try:
            async with asyncio.timeout(self.timeout_s):
                line = await self._line()
                return await self._told(line, to, message)
        except SMTPResponseException as error:  # at the door: no recipient is known yet
            raise ProviderDown(f"the mail server says {_said(error)}") from error
        except (SMTPException, OSError, TimeoutError) as error:
            raise ProviderDown(f"no mail server: {str(error)[:200] or type(error).__name__}") from error

    async def tidy(self) -> None:
        """Connections that rested for too long are closed."""
        oldest_s = monotonic() - KEPT_S
        stale = [line for line in self._idle if line.rests_since_s < oldest_s]
        self._idle = [line for line in self._idle if line.rests_since_s >= oldest_s]
        await _goodbye(stale)

    async def aclose(self) -> None:
        lines, self._idle = self._idle, []
        await _goodbye(lines)

    async def _told(self, line: _Line, to: str, message: bytes) -> Outcome:
        kept = False
        try:
            try:
                await line.client.sendmail(self.sender.address, [to], message)
                outcome: Outcome = Accepted()
            except aiosmtplib.SMTPRecipientsRefused as error:
                outcome = _judged(error.recipients[0])
            except aiosmtplib.SMTPDataError as error:
                outcome = _judged(error)
            except aiosmtplib.SMTPSenderRefused as error:  # nobody's mail would be taken
                raise ProviderDown(f"the mail server does not take mail from us: {_said(error)}") from error
            line.mails += 1
            kept = line.client.is_connected and line.mails < MOST_MAILS
        finally:
            if kept:
                line.rests_since_s = monotonic()
                self._idle.append(line)
            else:
                line.client.close()
        return outcome

    async def _line(self) -> _Line:
        """A connection that the server answers on."""
        await self.tidy()
        while self._idle:
            line = self._idle.pop()
            alive = False
            try:
                with suppress(SMTPException, OSError):
                    await line.client.rset()
                    alive = True
            finally:
                if not alive:
                    line.client.close()
            if alive:
                return line
        return await self._connected()

    async def _connected(self) -> _Line:
        server = self.server
        client = aiosmtplib.SMTP(
            hostname=server.host, port=server.port, username=server.user, password=server.password,
            timeout=self.timeout_s, use_tls=server.scheme == "smtps", start_tls=server.scheme == "smtp",
            tls_context=self.tls,
            local_hostname=self.sender.domain(),  # or it would ask the name server for our own name
        )  # fmt: skip
        try:
            await client.connect()
        except BaseException:
            client.close()
            raise
        return _Line(client)


async def _goodbye(lines: list[_Line]) -> None:
    async def quit(line: _Line) -> None:
        try:
            with suppress(SMTPException, OSError):
                await line.client.quit()
        finally:
            line.client.close()

    if lines:
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await asyncio.gather(*map(quit, lines))


def _judged(error: SMTPResponseException) -> Outcome:
    """Raises: ProviderDown for what is not about this mail."""
    if error.code in AWAY or not 400 <= error.code <= 599:
        raise ProviderDown(f"the mail server says {error.code}") from error
    return Refused(_said(error)) if error.code >= 500 else Deferred(_said(error))


def _said(error: SMTPResponseException) -> str:
    """The server's words on one line."""
    return f"{error.code} {' '.join(''.join(c if c.isprintable() else ' ' for c in error.message).split())}"[:300]
