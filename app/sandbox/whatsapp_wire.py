"""The Cloud API on the wire: what a send may hold, how the Graph API refuses, and how webhooks look."""

import base64
import hashlib
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from app.sandbox.party import Answer, Fault

MAX_TEXT, MAX_BODY, MAX_BUTTONS, MAX_TITLE, MAX_ID = 4096, 1024, 3, 20, 256

# What the Graph API says with a code: HTTP status, words (developers.facebook.com, Cloud API error codes).
ERRORS = {
    4: (400, "(#4) Application request limit reached"),
    100: (400, "(#100) Invalid parameter"),
    190: (401, "Error validating access token: the session has been invalidated"),
    368: (403, "(#368) Temporarily blocked for policies violations"),
    470: (400, "(#470) Message failed to send because more than 24 hours have passed since the customer last replied"),
    130429: (429, "(#130429) Rate limit hit"),
    131000: (500, "(#131000) Something went wrong"),
    131009: (400, "(#131009) Parameter value is not valid"),
    131026: (400, "(#131026) Message undeliverable"),
    131042: (400, "(#131042) Business eligibility payment issue"),
    131047: (400, "(#131047) Re-engagement message"),
    131051: (400, "(#131051) Unsupported message type"),
    131056: (400, "(#131056) (Business Account, Consumer Account) pair rate limit hit"),
}


class GraphFault(Fault, kw_only=True):
    """A fault of the Graph API; `on` is `messages`. `code` alone gets Meta's own status, words and shape."""

    to: str | None = None  # only sends to this user
    code: int | None = None
    retry_after_s: int | None = None  # a Retry-After header beside it


class Said(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a user sends: words, a pressed button by its id, or something else by its type."""

    sender: Annotated[str, Meta(pattern=r"^[0-9]{5,20}$")] = msgspec.field(name="from")
    name: str = ""
    text: str = ""
    button: str = ""
    type: str = ""  # image, audio, reaction …
    id: str = ""  # of its own; empty: a new one
    at_s: int | None = None  # None: now


class Say(Said, kw_only=True):
    """`POST /sandbox/say`."""

    tries: Annotated[int, Meta(ge=1, le=100)] = 1


class Batch(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST /sandbox/batch`: entries of changes of messages, in one webhook."""

    entries: list[list[list[Said]]]
    tries: Annotated[int, Meta(ge=1, le=100)] = 1


class User(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`PUT /sandbox/users`: whether a user can be reached, and how long ago they wrote."""

    wa_id: str
    state: Literal["open", "unreachable"] = "open"
    silent_s: int | None = None


class GraphError(Exception):
    """The Graph API refuses with this code."""

    def __init__(self, code: int, details: str = "") -> None:
        super().__init__(f"{code} {details}")
        self.code, self.details = code, details


def refused(code: int, details: str = "", retry_after_s: int | None = None) -> Answer:
    status, words = ERRORS.get(code, (400, f"(#{code})"))
    error: dict[str, Any] = {"message": words, "type": "OAuthException", "code": code, "fbtrace_id": "Asandbox"}
    if details:
        error["error_data"] = {"messaging_product": "whatsapp", "details": details}
    headers = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}
    return Answer(status, {"error": error}, headers=headers)


def wamid(name: str) -> str:
    """An id as long and as odd as Meta's."""
    digest = hashlib.sha256(name.encode()).digest()
    return "wamid." + base64.b64encode(b"\x1d\x02\x0f" + digest).decode()


def checked(message: dict[str, Any]) -> dict[str, Any]:
    """The content of a message to be sent, as its user will see it.

    Raises: GraphError for what the Cloud API does not take.
    """
    kind = message.get("type", "text")
    content = message.get(kind) if isinstance(kind, str) else None
    if kind not in ("text", "interactive"):
        raise GraphError(131051)
    if not isinstance(content, dict):
        raise GraphError(100, f"{kind} is required")
    if kind == "text":
        return {"type": "text", "text": {"body": text_of(content.get("body"), MAX_TEXT, "text.body")}}
    return {"type": "interactive", "interactive": buttons_of(content)}


def buttons_of(content: dict[str, Any]) -> dict[str, Any]:
    """Raises: GraphError."""
    body, action = content.get("body"), content.get("action")
    if content.get("type") != "button" or not isinstance(body, dict) or not isinstance(action, dict):
        raise GraphError(131009, "interactive message of type button, with a body and an action")
    text = text_of(body.get("text"), MAX_BODY, "body.text")
    buttons = action.get("buttons")
    if not isinstance(buttons, list) or not 1 <= len(buttons) <= MAX_BUTTONS:
        raise GraphError(131009, "buttons: between 1 and 3")
    told = []
    for button in buttons:
        reply = button.get("reply") if isinstance(button, dict) and button.get("type") == "reply" else None
        if not isinstance(reply, dict):
            raise GraphError(131009, "button: of type reply")
        told.append(
            {
                "id": text_of(reply.get("id"), MAX_ID, "button id"),
                "title": text_of(reply.get("title"), MAX_TITLE, "button title"),
            }
        )
    for name in ("id", "title"):
        if len({one[name] for one in told}) != len(told):
            raise GraphError(131009, f"button {name}: duplicated")
    return {"body": text, "buttons": told}


def text_of(value: Any, most: int, name: str) -> str:
    """Raises: GraphError unless it is 1 to `most` characters."""
    if not isinstance(value, str) or not value.strip() or len(value) > most:
        raise GraphError(131009, f"{name}: between 1 and {most} characters")
    return value


def message_of(said: Said, message_id: str, at_s: int) -> dict[str, Any]:
    """What a user sent, as the webhook has it."""
    told: dict[str, Any] = {"from": said.sender, "id": message_id, "timestamp": str(at_s)}
    if said.button:
        reply = {"type": "button_reply", "button_reply": {"id": said.button, "title": "Pay"}}
        return told | {
            "type": "interactive",
            "interactive": reply,
            "context": {"id": wamid("the message with the button")},
        }
    if said.type and said.type != "text":
        return told | {"type": said.type, said.type: {"id": "1", "mime_type": "application/octet-stream"}}
    return told | {"type": "text", "text": {"body": said.text}}


def status_of(message_id: str, to: str, status: str, at_s: int, code: int | None = None) -> dict[str, Any]:
    """What became of a message of the shop's, as the webhook has it."""
    told: dict[str, Any] = {"id": message_id, "status": status, "timestamp": str(at_s), "recipient_id": to}
    if code is not None:
        told["errors"] = [{"code": code, "title": ERRORS.get(code, (0, "?"))[1]}]
    return told
