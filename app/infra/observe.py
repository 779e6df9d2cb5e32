"""Structured logs: one line per event, with the request id, and every secret masked once, here.

The mask works on the finished line, after exceptions were written out, so no code path can go around it.
"""

import json
import logging
import re
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import msgspec
import structlog

from app.settings import Settings

MASK = "***"

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")  # structlog's own binding costs 7 us a request

# What must not be logged even when it is nobody's configured secret: bot tokens (they are in Bot API URLs),
# bearer tokens, the proof in Telegram's initData, what signs a seller's webhooks, and passwords in URLs.
_PATTERNS = re.compile(
    r"(?<!\d)\d{5,}:[A-Za-z0-9_-]{30,}"
    r"|(?P<bearer>(?i:bearer)\s+)[^\s\"']+"
    r"|(?P<hash>(?<![A-Za-z_])hash(?:%(?:25)*3[Dd]|\W{1,6}))[0-9a-f]{64}"
    r"|(?P<token>\bv1\.\d+\.[a-z]+\.\d+\.)[A-Za-z0-9_-]+"
    r"|\bwhsec_[A-Za-z0-9+/=]{20,}"
    r"|(?P<url>://[^\s/:@\"'\\]*:)[^\s/@\"'\\]+(?=@)"
)


def masker(settings: Settings) -> Callable[[str], str]:
    """A function that takes every configured secret, and whatever looks like one, out of a text."""
    secrets = set(settings.secrets())
    for part in settings.goods_keys.split(","):
        secrets.add(part.partition(":")[2].strip())
    for url in (settings.database_url, settings.redis_url, settings.smtp_url):
        secrets.add(urlsplit(url).password or "")
    spelt = {form for secret in secrets for form in (secret, unquote(secret), quote(secret, safe=""))}
    # The longest first, so that a secret which contains another leaves nothing behind.
    known = sorted((form for form in spelt if len(form) >= 4), key=len, reverse=True)
    literal = re.compile("|".join(map(_escaped, known))) if known else None

    def mask(text: str) -> str:
        if literal:
            text = literal.sub(MASK, text)
        return _PATTERNS.sub(lambda m: (m["bearer"] or m["hash"] or m["token"] or m["url"] or "") + MASK, text)

    return mask


def _escaped(secret: str) -> str:
    """A pattern of the secret, also as JSON and repr write its quotes and backslashes, one inside the other or not."""
    return "".join(r"\\+" if char == "\\" else rf"\\*{char}" if char in "\"'" else re.escape(char) for char in secret)


def configure(settings: Settings) -> None:
    """Every log line of this process, ours and the libraries', goes through one formatter and one mask to stderr."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _named,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    render = [_Masked(_json if settings.log_json else _text, masker(settings))]
    level = getattr(logging, settings.log_level.upper())
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.INFO))
    # Their INFO lines carry a request or a job each: ours say the same with more context.
    for name in ("httpx", "httpx2", "httpcore", "openai", "aiogram", "uvicorn.access", "asyncio"):
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    # It warns of jobs that another worker has finished; the outbox tells what really failed.
    logging.getLogger("arq.worker").setLevel(logging.ERROR)


def _named(_logger: Any, _name: str, event: Any) -> Any:
    """With the id of the request in which it was logged."""
    if request_id := REQUEST_ID.get():
        event["request_id"] = request_id
    return event


class _Masked:
    """A structlog renderer whose output went through the mask."""

    def __init__(self, render: Callable[[Any, str, Any], str], mask: Callable[[str], str]) -> None:
        self.render, self.mask = render, mask

    def __call__(self, logger: Any, name: str, event: Any) -> str:
        return self.mask(self.render(logger, name, event))


_console = structlog.dev.ConsoleRenderer(
    colors=False, pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
)


def _json(_logger: Any, _name: str, event: Any) -> str:
    # Bytes as Python shows them: JSON's base64 would carry a secret past the mask.
    plain = msgspec.to_builtins(event, builtin_types=(bytes, bytearray, memoryview), str_keys=True, enc_hook=repr)
    return json.dumps(plain, default=repr, ensure_ascii=False)


def _text(logger: Any, name: str, event: Any) -> str:
    return str(_console(logger, name, event))
