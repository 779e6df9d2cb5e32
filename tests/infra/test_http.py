"""What an outside party's answer is worth: told on, refused, or no answer at all."""

from collections.abc import AsyncIterator

import httpx
import pytest

from app.errors import ProviderDown, ProviderRefused
from app.infra.http import MAX_ANSWER_BYTES, call, post_json

URL = "http://gate.invalid/secret-path"


class Gate:
    """A party that answers what a test wrote down."""

    def __init__(self) -> None:
        self.answer: httpx.Response | Exception = httpx.Response(200)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
async def http(gate: Gate) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(gate), timeout=1) as client:
        yield client


@pytest.mark.parametrize("status", [200, 201, 400, 404, 422])
async def test_an_answer_is_told_on(gate: Gate, http: httpx.AsyncClient, status: int) -> None:
    gate.answer = httpx.Response(status, content=b"{}")
    answer = await call(http, "POST", URL, party="Gate")
    assert (answer.status, answer.body) == (status, b"{}")


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500), httpx.Response(503), httpx.Response(302), httpx.Response(429),
        httpx.Response(200, content=b"x" * (MAX_ANSWER_BYTES + 1)), httpx.ReadTimeout("slow"),
        httpx.ConnectError("gone"),
    ],
)  # fmt: skip
async def test_anything_else_is_the_partys_fault(
    gate: Gate, http: httpx.AsyncClient, answer: httpx.Response | Exception
) -> None:
    gate.answer = answer
    with pytest.raises(ProviderDown) as caught:
        await call(http, "POST", URL, party="Gate")
    assert not isinstance(caught.value, ProviderRefused)
    assert caught.value.retry_after_s is None
    assert "secret-path" not in str(caught.value)


@pytest.mark.parametrize(
    ("told", "asked_s"),
    [
        ("7", 7),
        ("0", 0),
        ("99999", 3600),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("-1", None),
        ("٧", None),
        ("", None),
    ],
)
async def test_a_party_that_says_how_long_is_believed_for_an_hour_at_most(
    gate: Gate, http: httpx.AsyncClient, told: str, asked_s: int | None
) -> None:
    gate.answer = httpx.Response(429, headers=[(b"retry-after", told.encode())])
    with pytest.raises(ProviderDown) as caught:
        await call(http, "POST", URL, party="Gate")
    assert caught.value.retry_after_s == asked_s


async def test_a_refusal_is_an_answer(gate: Gate, http: httpx.AsyncClient) -> None:
    gate.answer = httpx.Response(403)
    with pytest.raises(ProviderRefused, match="Gate answered 403"):
        await post_json(http, URL, b"{}", party="Gate")
