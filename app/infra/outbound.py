"""Calls to addresses that strangers chose: resolved once, judged, and made to that very address.

A name that is looked up twice can be public for the judge and private for the call (DNS rebinding). So the URL that the
client is given holds the judged address, while `Host` and the TLS name, against which the certificate is checked, stay
the name. No redirects, no proxies, no connection kept; an answer's body is read only so that its sender may finish.
"""

import asyncio
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cached_property
from ipaddress import ip_address

import httpx
import msgspec

from app.base import clock
from app.base.target import NOWHERE, Address, Refused, Rules, Target, parse
from app.errors import ProviderDown

TIMEOUT_S = 15.0  # of one call, from the look-up to the head of the answer
CONNECT_S = 5.0
COURTESY_S = 1.0  # for the rest of an answer whose head is there
MOST_BODY = 64 * 1024  # read of an answer
MOST_ADDRESSES = 3  # tried of one name
MOST, MOST_EACH = 12, 3  # calls of one process at a time, and of one party: a slow one must not hold the others up
LONGEST_S = 86_400  # that a Retry-After is believed
PAUSES = frozenset({429, 502, 503, 504})  # whose Retry-After counts

Resolve = Callable[[str, int], Awaitable[list[str]]]


class Crowded(Exception):
    """As many calls as may run at a time do."""


class Reply(msgspec.Struct, frozen=True):
    """What came back."""

    status: int
    retry_after_s: int | None


class Outbound:
    """The guarded client of one process."""

    def __init__(
        self, rules: Rules, *, resolve: Resolve | None = None, tls: ssl.SSLContext | bool = True,
        timeout_s: float = TIMEOUT_S,
    ) -> None:  # fmt: skip
        self.rules, self.timeout_s, self.tls = rules, timeout_s, tls
        self.resolve = resolve or look_up
        self.running: Counter[str] = Counter()

    @cached_property
    def transport(self) -> httpx.AsyncHTTPTransport:
        """Bare, so that there are neither redirects nor cookies nor netrc; made with the first call, if ever.

        A kept connection would be found by its address alone, whatever name its certificate was checked for.
        """
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        return httpx.AsyncHTTPTransport(verify=self.tls, trust_env=False, limits=limits)

    async def aclose(self) -> None:
        if "transport" in self.__dict__:
            await self.transport.aclose()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], *, party: str) -> Reply:
        """Whatever was answered. Raises: Crowded; ProviderDown for no answer, and for where nobody is sent.

        Neither the URL nor anything from inside our network is in the failure's text: its owner reads it.
        """
        with self._room(party):
            try:
                async with asyncio.timeout(self.timeout_s):
                    response = await self._answered(parse(url), body, headers)
            except Refused as refused:
                raise ProviderDown(f"not called: {refused}") from refused
            except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
                raise ProviderDown(f"no answer ({type(error).__name__})") from error
            await _hear_out(response)
            return Reply(response.status_code, _wait_s(response))

    @contextmanager
    def _room(self, party: str) -> Iterator[None]:
        if self.running.total() >= MOST or self.running[party] >= MOST_EACH:
            raise Crowded
        self.running[party] += 1
        try:
            yield
        finally:
            self.running[party] -= 1
            self.running += Counter()  # forgets whoever has none left

    async def _answered(self, target: Target, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
        """The head of the answer."""
        addresses = await self._judged(target)
        for place, address in enumerate(addresses, 1):
            try:
                return await self.transport.handle_async_request(self._request(target, address, body, headers))
            except (httpx.ConnectError, httpx.ConnectTimeout):  # nothing was sent
                if place == len(addresses):
                    raise
        raise AssertionError("there is an address")

    async def _judged(self, target: Target) -> list[Address]:
        """Where the target may be called. Raises: Refused if any of its addresses is not for strangers."""
        self.rules.check(target)
        if target.address:
            return [target.address]
        try:
            found = [ip_address(text) for text in await self.resolve(target.host, target.port)]
        except (OSError, UnicodeError, ValueError):
            found = []
        if not found:
            raise Refused(NOWHERE)
        for address in found:
            self.rules.judge(target, address)
        return list(dict.fromkeys(found))[:MOST_ADDRESSES]

    def _request(self, target: Target, address: Address, body: bytes, headers: Mapping[str, str]) -> httpx.Request:
        url = httpx.URL(scheme=target.scheme, host=str(address), port=target.port, raw_path=target.path.encode())
        phases = dict.fromkeys(("read", "write", "pool"), self.timeout_s) | {"connect": min(CONNECT_S, self.timeout_s)}
        extensions = {"sni_hostname": target.host, "timeout": phases}
        return httpx.Request("POST", url, content=body, extensions=extensions, headers={
            "Host": target.authority(), "User-Agent": "torg", "Accept": "*/*", "Accept-Encoding": "identity",
            "Connection": "close", **headers,
        })  # fmt: skip


async def _hear_out(response: httpx.Response) -> None:
    """What was answered is known; its sender may finish, as it came and not unpacked, within reason."""
    left = MOST_BODY
    try:
        with suppress(httpx.HTTPError, TimeoutError):
            async with asyncio.timeout(COURTESY_S):
                async for chunk in response.aiter_raw():
                    left -= len(chunk)
                    if left <= 0:
                        break
    finally:
        await response.aclose()


def _wait_s(response: httpx.Response) -> int | None:
    """How long the answer asks us to wait, in seconds or until a date, where that means anything."""
    text = response.headers.get("retry-after", "").strip()
    if response.status_code not in PAUSES or not text:
        return None
    if text.isascii() and text.isdigit():
        return min(int(text[:9]), LONGEST_S)
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return min(max(0, int((until - clock.now()).total_seconds())), LONGEST_S)


async def look_up(host: str, port: int) -> list[str]:
    """The addresses of a name, by the system's resolver.

    In a thread of its own that nobody waits for: a name server that hangs must not hold up the other look-ups of this
    process, nor its end.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()

    def settle(found: list[str] | OSError | UnicodeError) -> None:
        if answer.done():
            return
        if isinstance(found, list):
            answer.set_result(found)
        else:
            answer.set_exception(found)

    def ask() -> None:
        found: list[str] | OSError | UnicodeError
        try:
            found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except (OSError, UnicodeError) as error:
            found = error
        with suppress(RuntimeError):  # the loop may have closed meanwhile
            loop.call_soon_threadsafe(settle, found)

    threading.Thread(target=ask, name="look-up", daemon=True).start()
    return await answer
