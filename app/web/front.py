"""The Mini App's page: static files, read once, with headers that let nothing else in."""

from pathlib import Path

from litestar import Response, get
from litestar.types import ControllerRouterHandler

from app.web.handler import Req

PAGE = Path(__file__).parent / "page"
MEDIA = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

# Telegram shows Mini Apps in its own frame on the web, so framing is allowed to it and to nobody else.
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'self' https://web.telegram.org; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def handlers() -> list[ControllerRouterHandler]:
    """`/` and a path for each file beside it."""
    files = {f"/{path.name}": (_media(path), path.read_bytes()) for path in PAGE.iterdir() if path.suffix in MEDIA}
    files["/"] = files["/index.html"]

    @get(sorted(files), include_in_schema=False)
    async def page(request: Req) -> Response[bytes]:
        media, content = files[request.url.path]
        return Response(content, media_type=media, headers=HEADERS)

    return [page]


def _media(path: Path) -> str:
    return f"{MEDIA[path.suffix]}; charset=utf-8"
