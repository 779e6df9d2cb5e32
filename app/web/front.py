"""The Mini App's page: static files, read once, with headers that let nothing else in."""

import hashlib
from pathlib import Path

from litestar import Response, get
from litestar.types import ControllerRouterHandler

from app.web.handler import Req

PAGE = Path(__file__).parent / "page"
# Litestar adds the charset to text.
MEDIA = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

# Telegram shows Mini Apps in its own frame on the web, so framing is allowed to it and to nobody else.
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'self' https://*.telegram.org; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def handlers() -> list[ControllerRouterHandler]:
    """`/` and a path for each file beside it."""
    files = {
        f"/{path.name}": (MEDIA[path.suffix], path.read_bytes()) for path in PAGE.iterdir() if path.suffix in MEDIA
    }
    files["/"] = files["/index.html"]
    # Names carry no version: a browser asks every time, and is told "unchanged".
    etags = {path: f'"{hashlib.sha256(content).hexdigest()[:16]}"' for path, (_, content) in files.items()}

    @get(sorted(files), include_in_schema=False)
    async def page(request: Req) -> Response[bytes]:
        path = request.scope["path"]  # request.url would parse the Host header, which is anybody's
        media, content = files[path]
        headers = HEADERS | {"ETag": etags[path]}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(b"", status_code=304, media_type=media, headers=headers)
        return Response(content, media_type=media, headers=headers)

    return [page]
