"""The one place where failures become responses: RFC 9457 `application/problem+json`.

`title` names the type and `detail` tells this occurrence. Litestar's own plugin has the two the other way round.
"""

from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException

from app.base import tally
from app.errors import (
    BadToken,
    Forbidden,
    Internal,
    Malformed,
    MethodNotAllowed,
    NotFound,
    Problem,
    TooLarge,
    TooSlow,
    Unavailable,
    UnsupportedMedia,
)
from app.infra import observe

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"

# A refused body up to this long is read and dropped: closing on a client that still sends may cost it the answer.
SKIPPED_BYTES = 8 * 1024 * 1024

# What Litestar itself refuses, in our words: its own details may carry the URL or a parser's text.
_BY_STATUS: dict[int, tuple[type[Problem], str]] = {
    400: (Malformed, "the request does not decode"),
    401: (BadToken, ""),
    403: (Forbidden, ""),
    404: (NotFound, "no such path"),
    405: (MethodNotAllowed, "this path does not take this method"),
    413: (TooLarge, "the body is larger than this endpoint reads"),
    415: (UnsupportedMedia, ""),
}


def respond(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """The response for whatever a handler raised; what nobody expected is logged once and hides its text."""
    problem = judged(error, request.scope["path"])
    if "path_template" not in request.scope:  # no handler is meant, so no middleware has seen it
        tally.REQUESTS.of(tally.UNKNOWN, tally.UNKNOWN, tally.CLASSES[problem.status // 100]).observe(0)
    headers = {}
    if problem.retry_after_s is not None:
        headers["Retry-After"] = str(problem.retry_after_s)
    if isinstance(error, HTTPException) and error.headers:
        headers |= {name: value for name, value in error.headers.items() if name.lower() == "allow"}
    if isinstance(problem, BadToken):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(problem, TooSlow) or _more_may_come(request):
        headers["Connection"] = "close"
    return Response(encode(problem), status_code=problem.status, media_type=MEDIA_TYPE, headers=headers)


def judged(error: Exception, path: str) -> Problem:
    """The problem that this is to the caller, logged where somebody should know of it."""
    problem = _problem(error)
    if isinstance(problem, Internal):
        log.error("unexpected failure", path=path, exc_info=error)
    elif isinstance(problem, Unavailable):
        log.warning("unavailable", type=problem.type, detail=problem.detail, path=path)
    return problem


def encode(problem: Problem) -> bytes:
    """The problem's JSON; `facts` are members beside the standard ones."""
    body: dict[str, object] = {"type": problem.type, "title": problem.title, "status": problem.status}
    if problem.detail:
        body["detail"] = problem.detail
    request_id = observe.REQUEST_ID.get()
    if isinstance(problem, Internal) and request_id:
        body["request_id"] = request_id
    return msgspec.json.encode(body | problem.facts)


def _more_may_come(request: Request[Any, Any, Any]) -> bool:
    """A refused body that may be long or endless: on an open connection uvicorn would read it all, for nobody."""
    announced = request.headers.get("content-length", "0")
    return "transfer-encoding" in request.headers or not (announced.isdigit() and int(announced) <= SKIPPED_BYTES)


def _problem(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException) and error.status_code in _BY_STATUS:
        kind, detail = _BY_STATUS[error.status_code]
        if isinstance(error, ValidationException):
            detail = _what_is_wrong(error) or detail
        return kind(detail)
    return Internal("a defect of ours; its request_id is in the log")


def _what_is_wrong(error: ValidationException) -> str:
    """The broken rules, `key: message` each; they come from the Structs, values are not among them."""
    entries = error.extra if isinstance(error.extra, list) else []
    lines = [f"{entry.get('key', 'body')}: {entry.get('message', '')}" for entry in entries if isinstance(entry, dict)]
    return "; ".join(lines)[:500]
