"""Where a buyer's news go by mail: the address, and the page behind the link that confirms it."""

from html import escape
from typing import Annotated

import msgspec
from litestar import MediaType, Response, get, post, put
from litestar.params import JSONBody, QueryParameter
from msgspec import Meta

from app.channels.email import texts
from app.channels.telegram.texts import language
from app.flows import confirm
from app.flows.mail import CONFIRM_PATH
from app.web.guards import signed_in
from app.web.handler import Req, TheShop

MAX_TOKEN = 500

Token = Annotated[str, QueryParameter(max_length=MAX_TOKEN)]

# The page holds a token and needs nothing: no script, no frame around it, no word to anybody that it was opened.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

_PAGE = """\
<!doctype html>
<html lang="{language}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="robots" content="noindex"><title>{text}</title></head>
<body style="margin:0;padding:24px;background:#f4f3ee;color:#1b1e1b;font:16px/1.5 system-ui,sans-serif">
<main style="max-width:480px;margin:0 auto;padding:24px;background:#fff;border-radius:12px">
<p style="margin:0;overflow-wrap:anywhere">{text}</p>
{form}</main></body></html>
"""
_FORM = """\
<form method="post" action="{path}?token={token}" style="margin:24px 0 0">
<button style="padding:12px 24px;border:0;border-radius:8px;background:#17694f;color:#fff;font:inherit">{yes}</button>
</form>
"""


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where news go; null: nowhere."""

    email: Annotated[str, Meta(max_length=320)] | None


class Addresses(msgspec.Struct, frozen=True):
    """Where news go by mail, and the address that is still to be confirmed by the link that was sent there."""

    email: str | None
    email_asked: str | None


@put(CONFIRM_PATH.removesuffix("/confirm"), limits=("address",))
async def put_email(request: Req, data: JSONBody[Wanted], shop: TheShop) -> Addresses:
    """News of orders go to this address, too, once it is confirmed by the link that is sent there; null: no longer."""
    user_id = signed_in(request, shop).user_id
    if data.email is None:
        found = await confirm.forget(shop, user_id)
    else:
        found = await confirm.ask(shop, user_id, data.email)
    return Addresses(found.email, found.email_asked)


@get(CONFIRM_PATH, limits=("address",), include_in_schema=False)
async def show_confirmation(shop: TheShop, token: Token = "") -> Response[str]:
    """The page that asks whether the address is to be confirmed; it changes nothing."""
    heard = await confirm.look(shop, token)
    return _page(heard, "ask", token)


@post(CONFIRM_PATH, status_code=200, limits=("address",), include_in_schema=False)
async def confirm_address(shop: TheShop, token: Token = "") -> Response[str]:
    """The page's button."""
    return _page(await confirm.confirm(shop, token), "done")


def _page(heard: confirm.Heard, word: str, token: str = "") -> Response[str]:
    words = texts.page(heard.language)
    text = words[word if heard.good else "gone"].format(address=heard.address)
    form = ""
    if heard.good and token:
        form = _FORM.format(path=CONFIRM_PATH, token=escape(token), yes=escape(words["yes"]))
    page = _PAGE.format(language=language(heard.language), text=escape(text), form=form)
    return Response(page, media_type=MediaType.HTML, status_code=200 if heard.good else 410, headers=HEADERS)
