"""No secret reaches a log line: whoever logs it, however it is wrapped, as JSON or as text."""

import asyncio
import base64
import io
import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr
from typing import Any

import httpx
import msgspec
import pytest
import structlog

from app.infra import observe
from app.infra.observe import MASK, masker
from app.settings import SECRET_FIELDS, Settings

CANARY = "CANARY"
HEX = "c0ffee" * 11  # what stands for the canary where only hex digits fit
BOT_TOKEN = "1234567890:AA-CANARY-token-of-the-configured-bot"
STRANGER = "9876543210:AA-CANARY-token-of-somebody-elses-bot"
LIBRARIES = ("httpx", "httpcore", "aiogram", "uvicorn.access", "asyncio", "arq.worker")

SETTINGS = Settings(
    database_url="postgresql://torg:CANARY%40p%2Fw@db/torg?sslmode=require",
    redis_url="rediss://:CANARY-redis@cache:6379/0",
    smtp_url="smtp://shop:CANARY%2Fmail%3A@mx.example:587",
    telegram_bot_token=BOT_TOKEN,
    session_secret="CANARY \"double\" 'single' \\ back 0123456789",
    goods_keys=f"new:{base64.b64encode(b'CANARY+/' * 4).decode()}, old:CANARYaaaa+/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa=",
    gateways={"crystalpay": {"login": "desk", "secret": "CANARY-сек/рет?&=", "salt": "CANARY+of/the=salt"}},
)
SECRETS = (
    *SETTINGS.secrets(),
    "CANARY@p/w",
    "CANARY%40p%2Fw",
    "CANARY-redis",
    "CANARY/mail:",
    "CANARY%2Fmail%3A",
    "CANARYaaaa+/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa=",
)

Said = Callable[[], str]


@pytest.fixture(params=["json", "text"])
def said(request: pytest.FixtureRequest) -> Iterator[Said]:
    """What was logged since the last look, with the configuration of a real process."""
    root = logging.getLogger()
    before = structlog.get_config(), structlog.is_configured(), root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in LIBRARIES}
    stderr = io.StringIO()
    with redirect_stderr(stderr):
        observe.configure(msgspec.structs.replace(SETTINGS, log_json=request.param == "json"))

    def look() -> str:
        text = stderr.getvalue()
        stderr.truncate(0)
        stderr.seek(0)
        return text

    yield look
    structlog.configure(**before[0]) if before[1] else structlog.reset_defaults()
    root.handlers[:], root.level = before[2], before[3]
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def check_hidden(text: str, times: int) -> None:
    """`times` lines were logged, each with a mask and none with a secret. Raises: AssertionError."""
    assert text.count("marker") == times
    assert text.count(MASK) >= times
    assert CANARY not in text
    assert HEX[:12] not in text
    for shift in range(3):  # how base64 spells the canary depends on where it begins
        assert base64.b64encode(b"\0" * shift + CANARY.encode())[shift + (shift > 0) : 8].decode() not in text


# ---- our own lines


class Row(msgspec.Struct):
    """Something with a secret in it."""

    secret: str
    sealed: bytes


class Odd:
    """Nothing that JSON knows."""

    def __init__(self, secret: str) -> None:
        self.secret = secret

    def __repr__(self) -> str:
        return f"Odd({self.secret!r})"


def fail(secret: str) -> None:
    """Raises: RuntimeError with one cause and one note, each of which tells."""
    try:
        raise KeyError(secret)
    except KeyError as error:
        error.add_note(f"note {secret}")
        raise RuntimeError(f"cannot use {secret}") from error


def with_traceback(secret: str) -> None:
    try:
        fail(secret)
    except RuntimeError:
        structlog.get_logger().warning("marker", exc_info=True)


def with_context(secret: str) -> None:
    with structlog.contextvars.bound_contextvars(bound=secret):
        structlog.get_logger().warning("marker")


WAYS: dict[str, Callable[[str], object]] = {
    "the event": lambda s: structlog.get_logger().warning(f"marker {s}"),
    "a value": lambda s: structlog.get_logger().warning("marker", value=s),
    "a key": lambda s: structlog.get_logger().warning("marker", **{s: 1}),
    "deep inside": lambda s: structlog.get_logger().warning("marker", value={"a": [{s: (s, {"b": s})}]}),
    "bytes": lambda s: structlog.get_logger().warning("marker", value=s.encode()),
    "bytes inside": lambda s: structlog.get_logger().warning("marker", value=[(b"x", b"prefix " + s.encode())]),
    "a struct": lambda s: structlog.get_logger().warning("marker", value=Row(s, s.encode())),
    "an object": lambda s: structlog.get_logger().warning("marker", value=Odd(s)),
    "a repr": lambda s: structlog.get_logger().warning("marker", error=repr(ValueError(s))),
    "a repr of a repr": lambda s: structlog.get_logger().warning("marker", error=repr(ValueError(repr(s)))),
    "a bound value": lambda s: structlog.get_logger().bind(value=s).warning("marker"),
    "a context": with_context,
    "a traceback": with_traceback,
    "stdlib arguments": lambda s: logging.getLogger("lib").warning("marker %s %r", s, s),
    "stdlib extra": lambda s: logging.getLogger("lib").warning("marker", extra={"value": [s]}),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_configured_secret_is_hidden(said: Said, way: str) -> None:
    secrets = [secret for secret in SECRETS if way not in ("bytes", "bytes inside", "a struct") or secret.isascii()]
    for secret in secrets:
        WAYS[way](secret)
    check_hidden(said(), len(secrets))


def test_the_settings_themselves_may_be_logged(said: Said) -> None:
    structlog.get_logger().warning("marker", settings=SETTINGS, shown=repr(SETTINGS))
    text = said()
    check_hidden(text, 1)
    assert "desk" in text


# ---- the libraries' lines


def library_lines() -> Sequence[Callable[[], object]]:
    token_url = f"https://api.telegram.org/bot{STRANGER}/sendMessage"
    request = httpx.Request("POST", token_url, headers={"Authorization": "Bearer CANARY.abc"})
    init_data = f"query_id=A&user=%7B%22id%22%3A7%7D&auth_date=1&hash={HEX[:64]}"

    def chained() -> None:
        try:
            try:
                raise httpx.ConnectError(f"All connection attempts failed for {request.url}", request=request)
            except httpx.ConnectError as error:
                raise OSError("postgresql://torg:CANARY@elsewhere/db does not answer") from error
        except OSError:
            logging.getLogger("aiogram.dispatcher").exception("marker failed to fetch updates from %s", token_url)

    return [
        lambda: logging.getLogger("httpx").warning('marker HTTP Request: %s %s "%s"', "POST", request.url, "401 No"),
        lambda: logging.getLogger("httpx").warning("marker %s", dict(request.headers)),
        lambda: logging.getLogger("httpcore.http11").warning("marker %r", request.headers.raw),
        lambda: logging.getLogger("aiogram.event").error("marker %r", {"file": f"/file/bot{STRANGER}/photo.jpg"}),
        lambda: logging.getLogger("uvicorn.error").error("marker GET /?%s", init_data),
        lambda: logging.getLogger("uvicorn.error").error("marker %s", httpx.QueryParams({"d": init_data})),
        lambda: logging.getLogger("web").error("marker", extra={"init_data": {"hash": HEX[:64], "auth_date": 1}}),
        lambda: logging.getLogger("redis").error("marker redis://:CANARY@cache:6379/0 refused"),
        chained,
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(len(library_lines())))
def test_what_libraries_log_is_masked(said: Said, number: int) -> None:
    library_lines()[number]()
    check_hidden(said(), 1)


async def test_a_task_that_nobody_waited_for_is_masked(said: Said) -> None:
    loop = asyncio.get_running_loop()
    task = loop.create_task(asyncio.to_thread(fail, BOT_TOKEN))
    await asyncio.wait([task])
    loop.default_exception_handler({"message": "marker", "exception": task.exception(), "task": task})
    check_hidden(said(), 1)


def test_libraries_do_not_tell_of_each_request(said: Said) -> None:
    for name in ("httpx", "httpcore", "aiogram.event", "uvicorn.access"):
        logging.getLogger(name).info("one request")
    assert said() == ""


def test_a_masked_line_is_still_one_line_of_json(said: Said, request: pytest.FixtureRequest) -> None:
    for secret in SECRETS:
        WAYS["a traceback"](secret)
        WAYS["deep inside"](secret)
        WAYS["a repr of a repr"](f"http://a:1 {secret} b@c")
    lines = said().splitlines()
    if "json" in request.node.callspec.id:
        assert [json.loads(line)["event"] for line in lines] == ["marker"] * (3 * len(SECRETS))


# ---- the mask alone


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"https://api.telegram.org/bot{STRANGER}/getMe", "https://api.telegram.org/bot***/getMe"),
        (f"token={STRANGER}", "token=***"),
        ("Authorization: Bearer CANARY.a-b", "Authorization: Bearer ***"),
        ('{"authorization": "bearer CANARY"}', '{"authorization": "bearer ***"}'),
        (f"v1.7.buyer.1790000000.{CANARY}_-x", "v1.7.buyer.1790000000.***"),
        (f"auth_date=1&hash={HEX[:64]}&x=1", "auth_date=1&hash=***&x=1"),
        (f"auth_date%3D1%26hash%3D{HEX[:64]}%26x", "auth_date%3D1%26hash%3D***%26x"),
        (f"hash%3d{HEX[:64]}", "hash%3d***"),
        (f"%2526hash%253D{HEX[:64]}", "%2526hash%253D***"),
        (f"{{'hash': '{HEX[:64]}'}}", "{'hash': '***'}"),
        ("postgresql://torg:CANARY@db:5432/torg", "postgresql://torg:***@db:5432/torg"),
        ("redis://:CANARY@cache", "redis://:***@cache"),
        ("the secret is whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw.", "the secret is ***."),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, masked: str) -> None:
    assert masker(Settings())(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "order 1042 paid 1490.50 RUB at 2026-01-02T03:04:05.678901Z",
        "http://127.0.0.1:8000/api/orders/0193f0a0-0000-7000-8000-000000000000?x=a@b",
        '{"url":"http://127.0.0.1:8000","mail":"a@b.example"}',
        "postgresql:///torg?host=/run/torg&port=5432",
        "3 bearers of 12:30:45 news, sha256 " + "ab" * 32,
        "hash of the request differs",
        "request_hash=" + "ab" * 32,
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert masker(Settings())(text) == text


def test_a_secret_inside_another_leaves_nothing_behind() -> None:
    mask = masker(
        Settings(gateways={"crystalpay": {"secret": "abcd", "salt": "abcdefgh"}}, telegram_bot_token="xxabcdxx")
    )
    assert mask("abcdefgh abcd xxabcdxx") == "*** *** ***"


def test_without_secrets_there_is_nothing_to_hide() -> None:
    assert masker(Settings())("text") == "text"


def test_every_setting_that_sounds_secret_is_one() -> None:
    sounds = {name for name in Settings.__struct_fields__ if re.search("secret|token|salt|key|password", name)}
    assert sounds == set(SECRET_FIELDS)
    for name in SECRET_FIELDS:
        given: dict[str, Any] = {name: "CANARY-of-one"}
        assert masker(Settings(**given))("a CANARY-of-one b") == "a *** b"
