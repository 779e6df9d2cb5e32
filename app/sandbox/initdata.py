"""Mini App launch data as Telegram's server signs it for one bot (PROTOCOLS §7.2)."""

import hashlib
import hmac
from typing import Any
from urllib.parse import quote, urlencode

import msgspec


def sign_init_data(bot_token: str, user: dict[str, Any], *, auth_date: int, **extra: str) -> str:
    """The initData query string that Telegram's client hands to the Mini App of this bot.

    Units:   auth_date in Unix seconds.
    Shape:   `extra` are further fields (query_id, start_param, signature, …) as plain text; `signature` is under
             the hash like any other, `hash` comes last.
    Source:  core.telegram.org/bots/webapps "Validating data received via the Mini App".
    """
    if "hash" in extra:
        raise ValueError("hash is what this computes")
    fields = {"user": msgspec.json.encode(user).decode(), "auth_date": str(auth_date), **extra}
    text = "\n".join(f"{name}={fields[name]}" for name in sorted(fields))
    secret = hmac.digest(b"WebAppData", bot_token.encode(), hashlib.sha256)
    proof = hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()
    return urlencode({**fields, "hash": proof}, quote_via=quote, safe="")
