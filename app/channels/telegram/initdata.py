"""Mini App initData: what Telegram signs for its user, verified with our bot's token (PROTOCOLS §7.2)."""

import hmac
from urllib.parse import parse_qsl

import msgspec

from app.errors import BadInitData

MAX_BYTES = 8192
MAX_FUTURE_S = 60  # clocks differ a little; more is a forgery


class TelegramUser(msgspec.Struct, frozen=True):
    """The signed `user` field."""

    id: int
    first_name: str
    last_name: str = ""
    username: str | None = None
    language_code: str = "en"
    is_bot: bool = False

    @property
    def name(self) -> str:
        # Postgres text cannot hold NUL; a name that has one is still a name.
        return f"{self.first_name} {self.last_name}".replace("\0", "").strip()[:200]


def verify(init_data: str, bot_token: str, *, now_s: int, max_age_s: int) -> TelegramUser:
    """The user whom Telegram vouches for.

    Blank fields count and repeated keys are refused: both are part of what was signed. `signature` (Telegram's
    Ed25519 proof for third parties) stays in the string that the HMAC covers.

    Raises: BadInitData.
    """
    fields = _fields(init_data)
    claimed = fields.pop("hash", "")
    text = "\n".join(f"{key}={fields[key]}" for key in sorted(fields))
    secret = hmac.digest(b"WebAppData", bot_token.encode(), "sha256")
    expected = hmac.digest(secret, text.encode(), "sha256").hex()
    if not hmac.compare_digest(claimed.encode(), expected.encode()):
        raise BadInitData("the hash is missing or wrong")
    auth_date = fields.get("auth_date", "")
    if not (auth_date.isascii() and auth_date.isdigit() and len(auth_date) <= 12):
        raise BadInitData("auth_date is missing or not a number")
    age_s = now_s - int(auth_date)
    if age_s > max_age_s:
        raise BadInitData(f"older than {max_age_s} s")
    if age_s < -MAX_FUTURE_S:
        raise BadInitData("from the future")
    try:
        user = msgspec.json.decode(fields.get("user", ""), type=TelegramUser)
    except (msgspec.MsgspecError, UnicodeError):
        raise BadInitData("no user in it") from None
    if user.is_bot or not 0 < user.id < 2**52:  # Bot API: at most 52 significant bits
        raise BadInitData("not a user's")
    if "\0" in f"{user.username}{user.language_code}":  # Postgres text cannot hold it, and neither has one
        raise BadInitData("holds NUL")
    return user


def start_param(init_data: str) -> str:
    """What the link that opened the Mini App carried; empty when nothing. Only for what `verify` has let pass."""
    return _fields(init_data).get("start_param", "")


def _fields(init_data: str) -> dict[str, str]:
    try:
        if len(init_data.encode()) > MAX_BYTES:
            raise BadInitData("too long")
        pairs = parse_qsl(init_data, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=64)
    except ValueError:  # UnicodeError is one too
        raise BadInitData("not a query string") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise BadInitData("a key is repeated")
    return fields
