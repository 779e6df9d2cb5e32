"""Updates as Telegram's webhook brings them: what of them concerns the shop, and the reply that a webhook may carry.

Pure; the door calls it. The shop talks in private chats only. An update that is none of ours, or of a shape that we do
not know, is nothing: refused it would come again for days.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from app.base.heard import Heard
from app.errors import Malformed

MAX_RAW_BYTES = 65_536  # of an update that is no words
MAX_TEXT, MAX_NAME = 4096, 100  # characters

OK = b'{"ok":true}'
KINDS = ("message", "callback_query")  # of updates, all that Telegram is asked for

Id = Annotated[int, Meta(ge=1, lt=2**53)]


class User(msgspec.Struct, frozen=True):
    id: Id
    is_bot: bool = False
    first_name: str = ""
    last_name: str = ""
    username: str = ""
    language_code: str = ""


class Chat(msgspec.Struct, frozen=True):
    id: Annotated[int, Meta(gt=-(2**53), lt=2**53)]
    type: str


class Message(msgspec.Struct, frozen=True):
    chat: Chat
    date: Annotated[int, Meta(ge=0, lt=2**40)] = 0
    sender: User | None = msgspec.field(default=None, name="from")
    text: str = ""


class Query(msgspec.Struct, frozen=True):
    """A button was pressed; under a message that is too old there is no more than its chat."""

    id: str
    sender: User = msgspec.field(name="from")
    message: Message | None = None


class Update(msgspec.Struct, frozen=True):
    update_id: Annotated[int, Meta(ge=0, lt=2**53)]
    message: Message | None = None
    callback_query: Query | None = None


class Told(msgspec.Struct, frozen=True):
    """What somebody wrote or pressed in a private chat."""

    peer: str
    heard: Heard
    reply: bytes  # for the webhook's own answer: a call of the Bot API, which tells nobody how it went


_decoder = msgspec.json.Decoder(Update)


def read(body: bytes, now_s: int) -> Told | None:
    """What the update tells; None: nothing that concerns us. Raises: Malformed when it is no JSON."""
    try:
        raw, update = body.decode(), _decoder.decode(body)
    except msgspec.ValidationError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Malformed("the body is not JSON in UTF-8, or nested too deep") from None
    if update.message is not None:
        return _message(update.update_id, update.message, raw)
    if update.callback_query is not None:
        return _query(update.update_id, update.callback_query, raw, now_s)
    return None


def _message(update_id: int, message: Message, raw: str) -> Told | None:
    sender = message.sender
    if message.chat.type != "private" or sender is None or sender.is_bot:
        return None
    words = _clean(message.text, MAX_TEXT)
    if not words or words.startswith("/"):
        return _told(message.chat.id, update_id, sender, message.date, raw, OK)
    heard = _heard(update_id, sender, message.date, text=words)
    # Seen at once, while the message waits for others.
    typing = {"method": "sendChatAction", "chat_id": message.chat.id, "action": "typing"}
    return Told(str(message.chat.id), heard, msgspec.json.encode(typing))


def _query(update_id: int, query: Query, raw: str, now_s: int) -> Told | None:
    if query.message is not None and query.message.chat.type != "private":
        return None
    # Until it is answered the button shows that it is at work.
    answer = {"method": "answerCallbackQuery", "callback_query_id": query.id}
    return _told(query.sender.id, update_id, query.sender, now_s, raw, msgspec.json.encode(answer))


def _told(chat_id: int, update_id: int, sender: User, at_s: int, raw: str, reply: bytes) -> Told | None:
    if len(raw) > MAX_RAW_BYTES:
        return None
    return Told(str(chat_id), _heard(update_id, sender, at_s, raw=raw), reply)


def _heard(update_id: int, sender: User, at_s: int, *, text: str = "", raw: str = "") -> Heard:
    name = _clean(f"{sender.first_name} {sender.last_name}", MAX_NAME)
    username, language = _clean(sender.username, MAX_NAME), _clean(sender.language_code, 16)
    return Heard(f"u{update_id}", at_s, name, username, language, text, raw)


def _clean(text: str, most: int) -> str:
    """Without what Postgres cannot hold."""
    return text.replace("\0", "").strip()[:most]
