"""HTTP to outside parties: bounded in time and size, never following redirects, one failure type."""

import asyncio
from collections.abc import Mapping

import httpx
import msgspec

from app.errors import ProviderDown, ProviderRefused

JSON = {"Content-Type": "application/json"}
MAX_ANSWER_BYTES = 256 * 1024


def client(timeout_ms: int) -> httpx.AsyncClient:
    """The process's one client; connections are kept, so that a call costs one round trip."""
    return httpx.AsyncClient(
        timeout=timeout_ms / 1000,
        follow_redirects=False,
        limits=httpx.Limits(max_connections=50, max_keepalive_connections=20, keepalive_expiry=60),
        headers={"User-Agent": "torg"},
    )


# With these the request never left.
UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


class Answer(msgspec.Struct, frozen=True):
    """What an outside party answered, whole."""

    status: int
    body: bytes
    retry_after_s: int | None = None  # the wait that it asks for


async def call(
    http: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    party: str,
    body: bytes = b"",
    headers: Mapping[str, str] = {},
    any_status: bool = False,
) -> Answer:
    """A 2xx or 4xx answer, but for 429; with `any_status` whatever was answered.

    Raises: ProviderDown for anything else, with `retry_after_s` if the party says so, `unsure` if the request may have
    left; neither body, headers nor URL are in its text.
    """
    try:
        # httpx's own timeout is per phase and per chunk: a trickle would outlive it for ever.
        whole = asyncio.timeout(http.timeout.read)
        async with whole, http.stream(method, url, content=body, headers=dict(headers)) as response:
            status, asked_s = response.status_code, _asked_s(response)
            if not any_status and (status == 429 or not (response.is_success or response.is_client_error)):
                raise ProviderDown(f"{party} answered {status}", retry_after_s=asked_s, unsure=status >= 500)
            answer = bytearray()
            async for chunk in response.aiter_bytes():
                answer += chunk
                if len(answer) > MAX_ANSWER_BYTES:
                    raise ProviderDown(f"{party} answered more than {MAX_ANSWER_BYTES} bytes", unsure=True)
            return Answer(status, bytes(answer), asked_s)
    except (httpx.HTTPError, TimeoutError) as error:
        unsure = not isinstance(error, UNSENT)
        raise ProviderDown(f"{party} does not answer ({type(error).__name__})", unsure=unsure) from error


async def post_json(http: httpx.AsyncClient, url: str, body: bytes, *, party: str) -> bytes:
    """The body of a 2xx answer. Raises: ProviderRefused for a 4xx, ProviderDown for anything else; as `call`."""
    answer = await call(http, "POST", url, party=party, body=body, headers=JSON)
    if answer.status >= 400:
        raise ProviderRefused(f"{party} answered {answer.status}")
    return answer.body


def _asked_s(response: httpx.Response) -> int | None:
    """The wait that the party asks for, an hour at most; a date, which is allowed too, is nobody's habit."""
    asked = response.headers.get("retry-after", "")
    return min(int(asked), 3600) if asked.isascii() and asked.isdigit() and len(asked) < 10 else None
