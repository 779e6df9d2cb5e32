"""The Cloud API's webhook: its proof, what users wrote, and which of our messages failed. Pure; the door calls it.

One POST may hold several entries, changes and messages (PROTOCOLS §6). A field, an object or a kind of message that we
do not know is skipped, so that what Meta adds tomorrow stops nothing; a part that contradicts its own shape is left out
and told, because Meta would repeat the whole for days, and the messages beside it would wait for nothing.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator, Mapping
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


class Told(msgspec.Struct, frozen=True):
    """What one webhook says."""

    messages: list[tuple[str, str, Heard]]  # our phone number's id, the sender's phone; in the order of the body
    failed: list[Failed]
    odd: list[str]  # why a part was left out, and never what it holds


class Change(msgspec.Struct, frozen=True):
    field: str = ""
    value: dict[str, Any] = {}


class Entry(msgspec.Struct, frozen=True):
    changes: list[Any] | None = None


class Body(msgspec.Struct, frozen=True):
    object: str
    entry: list[Any] | None = None


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
    contacts: list[Any] | None = None
    messages: list[Any] | None = None
    statuses: list[Any] | None = None


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


def read(body: bytes) -> Told:
    """What the webhook says, as far as it can be read. Raises: Malformed, when nothing of it can."""
    told = Told([], [], [])
    for value in _values(body, told.odd):
        names = {one.wa_id: one.profile.name.strip()[:MAX_NAME] for one in _each(Contact, value.contacts, told.odd)}
        for given in value.messages or ():
            for message in _each(Message, [given], told.odd):
                if _PHONE.fullmatch(message.sender):
                    heard = _heard(message, given, names.get(message.sender, ""), told.odd)
                    told.messages.append((value.metadata.phone_number_id, message.sender, heard))
        told.failed.extend(
            Failed(_digest(status.id), status.errors[0].code if status.errors else 0)
            for status in _each(Status, value.statuses, told.odd)
            if status.status == "failed"  # sent, delivered and read come in any order
        )
    return told


def language(text: str) -> str:
    """The language of what somebody wrote, as far as its letters tell: uk, ru, or empty."""
    if _UKRAINIAN.search(text):
        return "uk"
    return "ru" if _CYRILLIC.search(text) else ""


def _heard(message: Message, given: dict[str, Any], name: str, odd: list[str]) -> Heard:
    at_s = int(message.timestamp)
    if message.type == "text":
        for text in _each(Text, [given.get("text")], odd):
            if words := text.body.strip()[:MAX_TEXT]:
                return Heard(message.id, at_s, name, text=words, language=language(words))
    raw = msgspec.json.encode(given).decode()
    if len(raw) > MAX_RAW:
        raw = msgspec.json.encode({"type": message.type[:40]}).decode()
    return Heard(message.id, at_s, name, raw=raw)


def _values(body: bytes, odd: list[str]) -> Iterator[Value]:
    """What the changes that we know say. Raises: Malformed."""
    try:
        given = msgspec.convert(decode_object(body, mend=True), Body)
    except BadJson as error:
        raise Malformed(f"the body is {error}") from None
    except msgspec.ValidationError as error:
        raise Malformed(f"not a WhatsApp webhook: {error}") from None
    if given.object != OBJECT:
        return
    messages = told = 0
    changes = (change for entry in _each(Entry, given.entry, odd) for change in _each(Change, entry.changes, odd))
    for value in _each(Value, (change.value for change in changes if change.field == FIELD), odd):
        messages, told = messages + len(value.messages or ()), told + len(value.statuses or ())
        if max(messages, told) > MOST:
            raise Malformed(f"more than {MOST} messages or statuses")
        yield value


def _each(kind: type[T], given: Iterable[Any] | None, odd: list[str]) -> Iterator[T]:
    """Those of this kind; of the others the place of what does not fit, and never the value."""
    for one in given or ():
        try:
            yield msgspec.convert(one, kind)
        except msgspec.ValidationError as error:
            odd.append(f"{kind.__name__}: {error}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _bytes(text: str) -> bytes:
    return text.encode(errors="replace")
