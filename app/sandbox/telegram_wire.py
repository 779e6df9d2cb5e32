"""The Bot API on the wire: how parameters arrive, and the checks on them that keep no state."""

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from app.sandbox import markup
from app.sandbox.party import Answer, Fault, Req

TEXT_LIMIT = 4096  # after entities parsing (Bot API "sendMessage"); counted here in UTF-16 units, the strictest reading
CALLBACK_DATA_LIMIT_BYTES = 64  # Bot API "InlineKeyboardButton"
ACTIONS = (  # Bot API "sendChatAction"
    "typing",
    "upload_photo",
    "record_video",
    "upload_video",
    "record_voice",
    "upload_voice",
    "upload_document",
    "choose_sticker",
    "find_location",
    "record_video_note",
    "upload_video_note",
)

Params = dict[str, Any]
COMMAND = re.compile(r"/[A-Za-z0-9_]{1,32}(@[A-Za-z0-9_]{1,32})?")


# What Telegram says with a status; a fault may say something else.
DESCRIPTIONS = {
    400: "Bad Request: chat not found",
    403: "Forbidden: bot was blocked by the user",
    500: "Internal Server Error",
    502: "Bad Gateway",
}


class BotFault(Fault, kw_only=True):
    """A fault of the Bot API; `on` is a method. `status` alone gets Telegram's own words and shape."""

    chat_id: int | None = None  # only calls about this chat
    retry_after_s: int | None = None  # 429 with this parameter
    description: str | None = None


class Webhook(msgspec.Struct, kw_only=True):
    """What setWebhook stored."""

    url: str
    secret_token: str = ""
    max_connections: int = 40
    allowed_updates: list[str] | None = None
    last_error_date: int | None = None
    last_error_message: str | None = None


class Chat(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`PUT /sandbox/chats`: how a chat takes messages from now on."""

    chat_id: int
    state: Literal["open", "blocked", "missing"]


class Say(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST /sandbox/say`: what the user of a private chat does: writes, presses a button, or sends something else."""

    chat_id: int
    text: str = ""
    data: str = ""  # of a button in this chat; the newest message that has it, or `message_id`
    message_id: int | None = None
    media: Literal["photo", "sticker", "voice"] | None = None
    album: str = ""  # of which the photo is one
    name: str = "Ann"
    username: str | None = None
    language: str | None = "en"
    tries: Annotated[int, Meta(ge=1, le=100)] = 1
    pause_ms: Annotated[int, Meta(ge=0, le=60_000)] = 0


class Push(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST /sandbox/updates`."""

    update: dict[str, Any]
    tries: Annotated[int, Meta(ge=1, le=100)] = 1


class BotError(Exception):
    """The Bot API refuses with this status and description."""

    def __init__(self, status: int, description: str) -> None:
        super().__init__(description)
        self.status = status
        self.description = description


async def read_params(request: Req) -> Params:
    """The parameters wherever they are: query, JSON, form or multipart (Bot API "Making requests")."""
    params: Params = dict(request.query_params.items())
    kind, _ = request.content_type
    if kind == "application/json":
        try:
            body = msgspec.json.decode(await request.body() or b"{}")
        except msgspec.DecodeError:
            return params
        return params | (body if isinstance(body, dict) else {})
    form = await request.form()
    params |= {name: value for name, value in form.items() if isinstance(value, str)}
    await form.close()
    return params


def numeric(value: Any) -> int | None:
    """An integer that came as itself or as its digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.removeprefix("-").isascii() and value.removeprefix("-").isdigit():
        return int(value)
    return None


def structure(value: Any) -> Any:
    """An object or array that came as itself or as JSON text; None when there is none.

    Raises: BotError for text that is no JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value) if value else None
    except msgspec.DecodeError:
        raise BotError(400, "Bad Request: can't parse JSON object") from None


def inline_keyboard(params: Params) -> dict[str, Any] | None:
    """The inline buttons of a message; other keyboards do not come back in the Message object.

    Raises: BotError for a button that Telegram refuses.
    """
    given = structure(params.get("reply_markup"))
    if not isinstance(given, dict) or "inline_keyboard" not in given:
        return None
    rows = given["inline_keyboard"]
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise BotError(400, "Bad Request: object expected as reply markup")
    for button in (button for row in rows for button in row):
        if not isinstance(button, dict) or not button.get("text"):
            raise BotError(
                400,
                "Bad Request: can't parse inline keyboard button: Text buttons are unallowed in the inline keyboard",
            )
        data = button.get("callback_data")
        if data is not None and not 1 <= len(str(data).encode()) <= CALLBACK_DATA_LIMIT_BYTES:
            raise BotError(400, "Bad Request: BUTTON_DATA_INVALID")
    return {"inline_keyboard": rows}


def formatted(params: Params) -> dict[str, Any]:
    """Text, entities and buttons of a message, as they stand in the Message object.

    Raises: BotError for an empty or long text, broken markup or broken buttons.
    """
    source = str(params.get("text") or "")
    try:
        text, entities = markup.parse(source, str(params.get("parse_mode") or "").lower())
    except markup.BadMarkup as error:
        raise BotError(400, f"Bad Request: can't parse entities: {error}") from None
    if not text.strip():
        raise BotError(400, "Bad Request: message text is empty")
    if markup.utf16_units(text) > TEXT_LIMIT:
        raise BotError(400, "Bad Request: message is too long")
    said: dict[str, Any] = {"text": text}
    if entities := entities or structure(params.get("entities")) or []:
        said["entities"] = entities
    if buttons := inline_keyboard(params):
        said["reply_markup"] = buttons
    return said


def user_of(say: Say) -> dict[str, Any]:
    """A User object, without what the user has not set."""
    told = {"id": say.chat_id, "is_bot": False, "first_name": say.name}
    return told | {k: v for k, v in (("username", say.username), ("language_code", say.language)) if v}


def written(say: Say, message_id: int, at_s: int) -> dict[str, Any]:
    """The Message object of what a user has sent."""
    user = user_of(say)
    chat = {k: v for k, v in user.items() if k in ("id", "first_name", "username")} | {"type": "private"}
    message: dict[str, Any] = {"message_id": message_id, "from": user, "chat": chat, "date": at_s}
    file = {"file_id": f"file-{message_id}", "file_unique_id": f"unique-{message_id}"}
    match say.media:
        case "photo":
            more = {"caption": say.text, "media_group_id": say.album}
            photo = {"photo": [file | {"width": 90, "height": 90}]}
            return message | photo | {name: value for name, value in more.items() if value}
        case "sticker":
            kind = {"type": "regular", "width": 512, "height": 512, "is_animated": False, "is_video": False}
            return message | {"sticker": file | kind}
        case "voice":
            return message | {"voice": file | {"duration": 3}}
    message["text"] = say.text
    if command := COMMAND.match(say.text):
        message["entities"] = [{"type": "bot_command", "offset": 0, "length": len(command[0])}]
    return message


def drafted(params: Params) -> tuple[int, str]:
    """The id and the text of a draft, which may be empty ("Thinking…").

    Raises: BotError. Telegram's own words for a bad draft_id are not documented.
    """
    draft_id = numeric(params.get("draft_id"))
    if not draft_id:
        raise BotError(400, "Bad Request: draft_id must be non-zero")
    if not str(params.get("text") or "").strip():
        return draft_id, ""
    return draft_id, str(formatted(params)["text"])


def buttons_of(message: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The rows of inline buttons under a message."""
    rows: list[list[dict[str, Any]]] = message.get("reply_markup", {}).get("inline_keyboard", [])
    return rows


def has_button(message: dict[str, Any], data: str) -> bool:
    return any(button.get("callback_data") == data for row in buttons_of(message) for button in row)


def chat_of(chat_id: int) -> dict[str, Any]:
    """A Chat object; the sign tells people from groups as it does at Telegram."""
    if chat_id > 0:
        return {"id": chat_id, "type": "private", "first_name": f"User {chat_id}"}
    return {
        "id": chat_id,
        "type": "supergroup" if str(chat_id).startswith("-100") else "group",
        "title": f"Group {-chat_id}",
    }


def refused(status: int, description: str, **parameters: int) -> Answer:
    told: dict[str, Any] = {"ok": False, "error_code": status, "description": description}
    return Answer(status, told | ({"parameters": parameters} if parameters else {}))


def worded(fault: BotFault | None) -> BotFault | None:
    """The fault with the body that Telegram would send for its status."""
    if fault is None or fault.body is not None:
        return fault
    if fault.retry_after_s is not None:
        text = fault.description or f"Too Many Requests: retry after {fault.retry_after_s}"
        answer = refused(fault.status or 429, text, retry_after=fault.retry_after_s)
    elif fault.status is not None:
        answer = refused(fault.status, fault.description or DESCRIPTIONS.get(fault.status, f"Error {fault.status}"))
    else:
        return fault
    return msgspec.structs.replace(fault, status=answer.status, body=answer.raw().decode())
