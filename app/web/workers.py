"""The signed way to jobs, for a hosted queue such as QStash: verified, looked up, answered; then a worker is rung."""

import msgspec
from litestar import Response, post
from litestar.background_tasks import BackgroundTask
from litestar.params import FromPath
from litestar.types import ControllerRouterHandler

from app.base.strictjson import BadJson, decode_object
from app.errors import BadSignature, Malformed, NotFound, UnsupportedMedia
from app.flows import summon
from app.settings import Settings
from app.web.handler import Req, TheShop

MAX_BODY_BYTES = 64 * 1024


class Summoned(msgspec.Struct, frozen=True):
    """The job is durably owed, or done already; its own tries and waits take over."""

    outbox_id: int
    state: str
    ok: bool = True


def handlers(settings: Settings) -> list[ControllerRouterHandler]:
    """The route, where there is a key to verify by."""
    return [run_job] if settings.qstash_current_key else []


@post("/api/workers/{job:str}", status_code=200, limits=("webhooks",), request_max_body_size=MAX_BODY_BYTES)
async def run_job(request: Req, job: FromPath[str], shop: TheShop) -> Response[Summoned]:
    """A job that is owed is looked at now: `{"order_id": …}` or `{"outbox_id": …}`, signed in `Upstash-Signature`.

    401 for a wrong signature, and nothing runs; 404 for a job that is not owed; 409 for a dead letter. A repeat of the
    call gets the same answer and rings nobody.
    """
    body = await request.body()
    proven = shop.deps.qstash.verify(_signature(request), body, f"{shop.deps.settings.public_url}/api/workers/{job}")
    work = summon.WORKS.get(job)
    if work is None:
        raise NotFound("no such job")
    _check_media(request)
    heard = await summon.summon(shop, work, _named(body), proven)
    due = heard.first and heard.state == "owed"
    ring = BackgroundTask(summon.ring, shop, heard) if due else None
    return Response(Summoned(heard.outbox_id, heard.state), background=ring)


def _signature(request: Req) -> str:
    """Raises: BadSignature for none, or two of which one might hide behind the other."""
    given = request.headers.getall("upstash-signature", [])
    if len(given) != 1:
        raise BadSignature("send one Upstash-Signature")
    return given[0]


def _check_media(request: Req) -> None:
    media, _, params = request.headers.get("content-type", "application/json").partition(";")
    if media.strip().lower() != "application/json" or "utf-16" in params.lower():
        raise UnsupportedMedia("send application/json in UTF-8")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMedia("send the body without Content-Encoding")


def _named(body: bytes) -> summon.Named:
    try:
        return msgspec.convert(decode_object(body), summon.Named)
    except BadJson as error:
        raise Malformed(f"the body is {error}") from None
    except msgspec.ValidationError as error:
        raise Malformed(str(error)[:200]) from None
