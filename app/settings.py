"""Settings: one frozen Struct, decoded once from `TORG_*`; nothing else reads the environment.

A misspelt, malformed or out-of-bounds variable stops the start with one line that names it. A missing secret
does not: it disables the endpoint that needs it, and start-up says so (DESIGN law 5).
"""

import pkgutil
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from app.base import mailbox

PREFIX = "TORG_"

Port = Annotated[int, Meta(ge=0, le=65535)]
Secret = Annotated[str, Meta(extra={"secret": True})]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every setting with its default; the text of `Meta(description=…)` is its line in `.env.example`."""

    database_url: Annotated[
        str, Meta(description="Postgres 15 or newer; empty: the embedded one under TORG_DATA_DIR")
    ] = ""
    redis_url: Annotated[
        str, Meta(description="Redis 7 / Valkey 7.2 or newer; empty: the embedded one under TORG_DATA_DIR")
    ] = ""
    data_dir: Annotated[str, Meta(description="where the embedded servers live (mode 0700)")] = ".torg"
    host: Annotated[str, Meta(description="address that `torg web` listens on")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="port that `torg web` listens on; 0 takes a free one")] = 8000
    public_url: Annotated[
        str,
        Meta(
            pattern=r"^https?://[^/\s]+$", description="how gateways and buyers reach this service; no trailing slash"
        ),
    ] = "http://127.0.0.1:8000"

    telegram_bot_token: Annotated[
        Secret, Meta(description="from @BotFather; empty: nobody can sign in, no messages are sent")
    ] = ""
    telegram_bot_name: Annotated[
        str,
        Meta(pattern=r"^[A-Za-z0-9_]{0,64}$", description="the bot's user name; empty: referrals have a code, no link"),
    ] = ""
    telegram_api_url: Annotated[str, Meta(description="Bot API server")] = "https://api.telegram.org"
    telegram_webhook_secret: Annotated[
        Secret,
        Meta(
            pattern=r"^[A-Za-z0-9_-]{0,256}$",
            description="what Telegram proves itself with at /api/webhook, 32 characters or more; empty: a deaf bot",
        ),
    ] = ""
    whatsapp_phone_id: Annotated[
        str,
        Meta(pattern=r"^[0-9]{0,32}$", description="WhatsApp Cloud API: id of our phone number; empty: no WhatsApp"),
    ] = ""
    whatsapp_access_token: Annotated[Secret, Meta(description="WhatsApp Cloud API: access token that sends")] = ""
    whatsapp_app_secret: Annotated[Secret, Meta(description="WhatsApp Cloud API: app secret that signs webhooks")] = ""
    whatsapp_verify_token: Annotated[
        Secret, Meta(description="WhatsApp Cloud API: verify token of the webhook, of our choice")
    ] = ""
    whatsapp_api_url: Annotated[str, Meta(description="Graph API with its version")] = (
        "https://graph.facebook.com/v23.0"
    )
    model_url: Annotated[
        str,
        Meta(
            pattern=r"^(https?://[!-.0-~][!-~]*)?\Z",  # what is not ASCII would be refused by the first question only
            description="OpenAI-compatible endpoint, up to /v1; empty: OpenAI's own",
        ),
    ] = ""
    model_name: Annotated[str, Meta(description="model that answers buyers; empty: answers come from plain search")] = (
        ""
    )
    model_key: Annotated[Secret, Meta(description="API key of the model's endpoint")] = ""
    model_timeout_ms: Annotated[
        int, Meta(ge=100, le=120_000, description="longest wait for a whole answer of the model")
    ] = 20_000
    admins: Annotated[str, Meta(pattern=r"^[0-9, ]*$", description="Telegram user ids of admins, comma-separated")] = ""

    session_secret: Annotated[
        Secret, Meta(description="signs session tokens, at least 32 characters; empty: nobody can sign in")
    ] = ""
    session_ttl_s: Annotated[int, Meta(ge=60, le=86_400, description="life of a session token, seconds")] = 3600
    init_data_max_age_s: Annotated[int, Meta(ge=60, le=86_400, description="oldest initData accepted, seconds")] = 3600
    goods_keys: Annotated[
        Secret,
        Meta(
            description="seal goods at rest: id:base64 of 32 bytes, comma-separated, the first seals; empty: no goods"
        ),
    ] = ""

    limits: Annotated[
        str,
        Meta(description="rate limits that differ from docs/limits.md: search=50/60, orders=5:20/60/open"),
    ] = ""
    trusted_proxies: Annotated[
        str, Meta(description="networks whose X-Forwarded-For is believed: 10.0.0.0/8, ::1, unix (a unix socket)")
    ] = ""

    circuits: Annotated[
        str, Meta(description="failures/seconds after which a gateway, Telegram or mail is left alone for a while")
    ] = "5/30"
    telegram_pace: Annotated[
        str, Meta(description="messages/seconds that differ from docs/outside.md: chat=1/1, group=20/60, bot=30/1")
    ] = ""
    smtp_url: Annotated[
        str,
        Meta(
            description="mail server: smtp://user:password@host:587 (STARTTLS), smtps:// (TLS from the start), smtp+plain://"
            " (neither TLS nor password); empty: no e-mail",
        ),
    ] = ""
    smtp_from: Annotated[str, Meta(description="who writes: Shop <orders@shop.example>")] = ""
    webhook_networks: Annotated[
        str,
        Meta(
            description="networks that sellers' webhooks may point into, at any port, by http too; public ones always"
        ),
    ] = ""
    qstash_current_key: Annotated[
        Secret, Meta(description="verifies the signed calls of /api/workers, 32 characters or more; empty: not there")
    ] = ""
    qstash_next_key: Annotated[Secret, Meta(description="tried after the current one, while keys are rolled")] = ""

    payment_window_s: Annotated[int, Meta(ge=60, le=86_400, description="how long an unpaid order keeps its goods")] = (
        900
    )
    pending_orders: Annotated[
        int, Meta(ge=1, le=100, description="unpaid orders that one buyer may have at a time")
    ] = 5
    expiry_grace_s: Annotated[
        int, Meta(ge=0, le=3600, description="extra wait for a payment made in the window's last moment")
    ] = 60
    referral_bp: Annotated[
        str,
        Meta(
            pattern=r"^([0-9]{1,4}(,[0-9]{1,4}){0,2})?$",
            description="share of a sale for who brought the buyer, and the two above, in 1/100 %; 0: none",
        ),
    ] = "1000,700,300"
    cashback_bp: Annotated[
        int, Meta(ge=0, le=10_000, description="share of the price for a verified review, in 1/100 %; 0: none")
    ] = 500
    parallel: Annotated[bool, Meta(description="false: the same reads one after another, same results (E5)")] = True

    pg_pool_size: Annotated[
        int, Meta(ge=1, le=64, description="Postgres connections per process; 8-16 is best on small hosts")
    ] = 8
    pg_timeout_ms: Annotated[int, Meta(ge=100, le=60_000, description="longest wait for one statement")] = 10_000
    redis_timeout_ms: Annotated[
        int,
        Meta(
            ge=10, le=60_000, description="silence after which Redis counts as out; more for a Redis that is far away"
        ),
    ] = 50
    gateway_timeout_ms: Annotated[int, Meta(ge=100, le=60_000, description="longest wait for one gateway call")] = (
        10_000
    )
    worker_jobs: Annotated[int, Meta(ge=1, le=1000, description="jobs that one worker runs at a time")] = 32
    worker_poll_ms: Annotated[
        int, Meta(ge=10, le=10_000, description="arq's poll; only the fallback, the bell wakes the worker")
    ] = 500
    lease_s: Annotated[
        int, Meta(ge=1, le=600, description="a dead worker's job is free after this; a live one renews it")
    ] = 3
    job_timeout_s: Annotated[int, Meta(ge=1, le=600, description="longest run of one attempt of a job")] = 30
    relay_ms: Annotated[
        int, Meta(ge=50, le=60_000, description="how often the relay looks for jobs whose ring was lost")
    ] = 1000

    # TORG_<GATEWAY>_<FIELD> of every folder in app/gateways, whose Config says what they mean; no variable of its own.
    gateways: dict[str, dict[str, str]] = {}

    metrics_from: Annotated[
        str,
        Meta(
            description="networks that may read /metrics: 10.1.2.3/32, ::1, unix (a unix socket); none: by token only"
        ),
    ] = "127.0.0.0/8,::1"
    metrics_token: Annotated[
        Secret,
        Meta(description="bearer token that may read /metrics from anywhere, 32 characters or more; empty: none"),
    ] = ""
    metrics_port: Annotated[
        Port,
        Meta(description="port of a worker's own /metrics, at TORG_HOST; 0: none. One for each worker of a machine"),
    ] = 0

    log_level: Annotated[
        str, Meta(pattern="^(debug|info|warning|error)$", description="debug, info, warning or error")
    ] = "info"
    log_json: Annotated[bool, Meta(description="true: one JSON object a line; false: text for a terminal")] = True

    def secrets(self) -> tuple[str, ...]:
        """The values that must never reach a log: every secret that is set."""
        of_gateways = (v for given in self.gateways.values() for k, v in given.items() if SECRET_NAME.search(k) and v)
        return (*(value for name in SECRET_FIELDS if (value := getattr(self, name))), *of_gateways)

    def admin_ids(self) -> frozenset[int]:
        return frozenset(int(part) for part in self.admins.replace(",", " ").split())

    def referral_shares_bp(self) -> list[int]:
        """By level, the nearest first."""
        return [int(part) for part in self.referral_bp.split(",") if part]


def _is_secret(annotation: object) -> bool:
    metadata = getattr(annotation, "__metadata__", ())
    return any(isinstance(m, Meta) and (m.extra or {}).get("secret") for m in metadata)


VARIABLES = tuple(name for name in Settings.__struct_fields__ if name != "gateways")
SECRET_NAME = re.compile(r"secret|salt|token|key")  # a gateway's field with such a name never reaches a log
SECRET_FIELDS = tuple(name for name, annotation in Settings.__annotations__.items() if _is_secret(annotation))


class BadSettings(Exception):
    """The environment does not decode into Settings; the text names the variable."""


def load(environ: Mapping[str, str]) -> Settings:
    """Settings from the `TORG_*` variables of `environ`; an empty value is the default.

    Raises: BadSettings for an unknown variable, a wrong type, a value out of bounds, a secret too short.
    """
    given = {k.removeprefix(PREFIX).lower(): v for k, v in environ.items() if k.startswith(PREFIX)}
    own = {name: given.pop(name) for name in VARIABLES if name in given}
    gateways = _of_gateways(given)
    try:
        decoded: dict[str, object] = {k: v for k, v in own.items() if v != ""}
        settings = msgspec.convert(decoded | {"gateways": gateways}, Settings, strict=False)
        settings.admin_ids()
    except (msgspec.ValidationError, ValueError) as error:
        # msgspec ends with "… - at `$.name`"; the value itself is not in the text, so no secret is.
        text, _, path = str(error).partition(" - at `$.")
        raise BadSettings(f"{PREFIX}{path.rstrip('`').upper()}: {text}" if path else f"settings: {text}") from None
    for name in ("session_secret", "qstash_current_key", "qstash_next_key", "metrics_token", "telegram_webhook_secret"):
        if 0 < len(getattr(settings, name)) < 32:
            raise BadSettings(f"{PREFIX}{name.upper()}: at least 32 characters")
    _check_mail(settings)
    if settings.qstash_next_key and not settings.qstash_current_key:
        raise BadSettings(f"{PREFIX}QSTASH_NEXT_KEY: there is no current one")
    return settings


def _check_mail(settings: Settings) -> None:
    """Raises: BadSettings, without the URL, which has the password."""
    for name, parse in (("smtp_url", mailbox.server), ("smtp_from", mailbox.sender)):
        try:
            if given := getattr(settings, name):
                parse(given)
        except mailbox.BadMailbox as error:
            raise BadSettings(f"{PREFIX}{name.upper()}: {error}") from None
    if settings.smtp_url and not settings.smtp_from:
        raise BadSettings(f"{PREFIX}SMTP_FROM: nobody writes the mail that {PREFIX}SMTP_URL sends")


def _of_gateways(given: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Each gateway's variables by field; the gateway itself judges them. Raises: BadSettings for nobody's variable."""
    folders = [found.name for found in pkgutil.iter_modules([str(Path(__file__).parent / "gateways")]) if found.ispkg]
    found: dict[str, dict[str, str]] = {}
    for name, value in sorted(given.items()):
        gateway, _, field = name.partition("_")
        if gateway not in folders or not field:
            raise BadSettings(f"unknown setting {PREFIX}{name.upper()}")
        if value != "":
            found.setdefault(gateway, {})[field] = value
    return found


def env_example() -> str:
    """The text of `.env.example`: every setting, its meaning and its default (kept current by tests/house)."""
    head = "# Made by `torg settings` from app/settings.py. An unknown TORG_* variable is refused.\n\n"
    return head + field_lines(Settings, "")


def field_lines(kind: type[msgspec.Struct], prefix: str) -> str:
    """Every field of `kind` as a line with its default, under a line with its meaning."""
    lines = []
    for field in msgspec.inspect.type_info(kind).fields:  # type: ignore[attr-defined]
        if described := _description(field.type):
            default = str(field.default).lower() if isinstance(field.default, bool) else field.default
            lines += [f"# {described}", f"{PREFIX}{prefix.upper()}{field.name.upper()}={default}"]
    return "".join(f"{line}\n" for line in lines)


def _description(info: msgspec.inspect.Type) -> str:
    schema = info.extra_json_schema if isinstance(info, msgspec.inspect.Metadata) else None
    return str((schema or {}).get("description", ""))
