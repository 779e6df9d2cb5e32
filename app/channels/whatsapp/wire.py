"""The Cloud API's webhook: its proof, what users wrote, and which of our messages failed. Pure; the door calls it.

One POST may hold several entries, changes and messages (PROTOCOLS §6). A field, an object or a kind of message that we
do not know is skipped, so that what Meta adds tomorrow stops nothing; what contradicts its own shape is refused whole.
"""

import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from app.base.heard import Heard
from app.base.strictjson import BadJson, decode_object
from app.errors import Malformed
from app.infra.secrets import same

OBJECT, FIELD = "whatsapp_business_account", "messages"
PREFIX = "sha256="
MOST = 1000  # messages, and statuses, of one POST: more than Meta puts into one
MAX_TEXT = 4096  # characters of one message (Cloud API, text messages)
MAX_RAW = 8192  # of what is no words: of more, only its kind is kept
MAX_NAME = 100

_PHONE = re.compile(r"[0-9]{5,20}", re.ASCII)
_CYRILLIC = re.compile(r"[\u0400-\u04ff]")
_UKRAINIAN = re.compile(r"[іїєґІЇЄҐ]")

Digits = Annotated[str, Meta(pattern=r"^[0-9]{1,32}$(?!\n)")]
MessageId = Annotated[str, Meta(pattern=r"^[!-~]{1,200}$(?!\n)")]
Moment = Annotated[str, Meta(pattern=r"^[0-9]{1,11}$(?!\n)")]
T = TypeVar("T")


class Failed(msgspec.Struct, frozen=True):
    """A message of ours that did not arrive; `code` is Meta's word for why, 0 when it gave none."""

    external_id: str  # a digest of Meta's id, which spells its user's phone (base64) and has no place in a log
    code: int


class Change(msgspec.Struct, frozen=True):
    field: str = ""
    value: dict[str, Any] = {}


class Entry(msgspec.Struct, frozen=True):
    changes: list[Change] = []


class Body(msgspec.Struct, frozen=True):
    object: str
    entry: list[Entry] = []


class Metadata(msgspec.Struct, frozen=True):
    phone_number_id: Digits


class Profile(msgspec.Struct, frozen=True):
    name: str = ""


class Contact(msgspec.Struct, frozen=True):
    wa_id: str = ""
    profile: Profile = Profile()


class Text(msgspec.Struct, frozen=True):
    body: str


class Message(msgspec.Struct, frozen=True):
    """What every message has; `from` is missing where a user hides the phone behind a user name."""

    id: MessageId
    timestamp: Moment
    type: str
    sender: str = msgspec.field(default="", name="from")


class Cause(msgspec.Struct, frozen=True):
    code: int = 0


class Status(msgspec.Struct, frozen=True):
    id: MessageId
    status: str
    errors: list[Cause] = []


class Value(msgspec.Struct, frozen=True):
    metadata: Metadata
    contacts: list[Contact] = []
    messages: list[dict[str, Any]] = []
    statuses: list[Status] = []


def challenge(query: Mapping[str, str], verify_token: str) -> str | None:
    """What proves to Meta that this address is ours; None without the verify token, or when none is set."""
    given = query.get("hub.verify_token", "")
    if not verify_token or query.get("hub.mode") != "subscribe" or not same(_bytes(given), verify_token.encode()):
        return None
    return query.get("hub.challenge")


def signed(body: bytes, header: str, app_secret: str) -> bool:
    """Whether `X-Hub-Signature-256` was made from these very bytes with the app's secret; never without one."""
    proof = PREFIX + hmac.digest(app_secret.encode(), body, "sha256").hex()
    return bool(app_secret) and same(_bytes(header), proof.encode())


def read(body: bytes) -> list[tuple[str, str, Heard]]:
    """Each message with our phone number's id and its sender's phone, in the order of the body. Raises: Malformed."""
    found: list[tuple[str, str, Heard]] = []
    for value in _values(body):
        names = {one.wa_id: one.profile.name.strip()[:MAX_NAME] for one in value.contacts}
        for given in value.messages:
            message = _as(Message, given)
            if _PHONE.fullmatch(message.sender):
                told = _heard(message, given, names.get(message.sender, ""))
                found.append((value.metadata.phone_number_id, message.sender, told))
    return found


def statuses(body: bytes) -> list[Failed]:
    """Our messages that failed; the other statuses (sent, delivered, read) come in any order. Raises: Malformed."""
    failed = (status for value in _values(body) for status in value.statuses if status.status == "failed")
    return [Failed(_digest(status.id), status.errors[0].code if status.errors else 0) for status in failed]


def language(text: str) -> str:
    """The language of what somebody wrote, as far as its letters tell: uk, ru, or empty."""
    if _UKRAINIAN.search(text):
        return "uk"
    return "ru" if _CYRILLIC.search(text) else ""


def _heard(message: Message, given: dict[str, Any], name: str) -> Heard:
    at_s = int(message.timestamp)
    if message.type == "text" and (text := _as(Text, given.get("text")).body.strip()[:MAX_TEXT]):
        return Heard(message.id, at_s, name, text=text, language=language(text))
    raw = msgspec.json.encode(given).decode()
    if len(raw) > MAX_RAW:
        raw = msgspec.json.encode({"type": message.type[:40]}).decode()
    return Heard(message.id, at_s, name, raw=raw)


def _values(body: bytes) -> Iterator[Value]:
    """What the changes that we know say. Raises: Malformed."""
    try:
        given = _as(Body, decode_object(body))
    except BadJson as error:
        raise Malformed(f"the body is {error}") from None
    if given.object != OBJECT:
        return
    messages = told = 0
    for change in (change for entry in given.entry for change in entry.changes if change.field == FIELD):
        value = _as(Value, change.value)
        messages, told = messages + len(value.messages), told + len(value.statuses)
        if max(messages, told) > MOST:
            raise Malformed(f"more than {MOST} messages or statuses")
        yield value


def _as(kind: type[T], given: object) -> T:
    """Raises: Malformed, with the place and never the value."""
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise Malformed(f"not a WhatsApp webhook: {error}") from None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _bytes(text: str) -> bytes:
    return text.encode(errors="replace")
