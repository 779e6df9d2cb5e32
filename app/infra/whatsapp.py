"""The Cloud API as Torg uses it: messages from one phone number, behind typed outcomes.

Meta allows 80 messages a second, and to one user 45 at once and then one every six seconds; here its refusals are
obeyed, and nothing is counted before (docs/whatsapp.md).
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import httpx
import msgspec
import structlog

from app.errors import ProviderDown
from app.infra import http as http_parts
from app.infra.messenger import Sent

log = structlog.get_logger(__name__)

PARTY = "WhatsApp"
MAX_TEXT = 4096  # characters: text messages
MAX_BODY = 1024  # characters: the text above buttons
MAX_BUTTONS, MAX_TITLE, MAX_ID = 3, 20, 256

PAIR = 131056  # too much to this one user
TOO_FAST = frozenset({4, 80007, 130429, 131048, PAIR})
PAUSE_S, PAIR_PAUSE_S = 5, 6  # where Meta asks for no wait of its own
OUTSIDE_WINDOW = frozenset({470, 131047})  # silent for 24 hours: only templates may be sent
UNREACHABLE = frozenset({131026, 131030})  # has no WhatsApp, has blocked us; is not on a test number's list
# What an operator must mend: token, permissions, account, its payments, the phone number.
OURS = frozenset({0, 3, 10, 33, 190, 368, 131005, 131031, 131042, 131045, *range(200, 300)})
MAYBE = frozenset({1, 2, 131000, 131016, 131057, 133004})  # theirs, whatever the HTTP status


class Button(msgspec.Struct, frozen=True):
    """What a user can press, and what we are told then."""

    id: str
    title: str


class Message(msgspec.Struct, frozen=True):
    id: str


class Accepted(msgspec.Struct, frozen=True):
    messages: list[Message]


class Error(msgspec.Struct, frozen=True):
    code: int


class Refused(msgspec.Struct, frozen=True):
    error: Error


T = TypeVar("T", Accepted, Refused)


class WhatsApp:
    """The shop's phone number. A send is tried once; DELIVERED means that Meta has it."""

    def __init__(self, http: httpx.AsyncClient, api_url: str, phone_id: str, token: str) -> None:
        self.http, self.url = http, f"{api_url.rstrip('/')}/{phone_id}/messages"
        self.headers = http_parts.JSON | {"Authorization": f"Bearer {token}"}

    async def text(self, to: str, text: str) -> Sent:
        """The text as it is, links without a preview. Raises: ProviderDown, `unsure` when it may have arrived."""
        return await self._send(to, "text", {"body": text, "preview_url": False})

    async def ask(self, to: str, text: str, buttons: Sequence[Button]) -> Sent:
        """The text with one to three buttons under it. Raises: as `text`."""
        action = {"buttons": [{"type": "reply", "reply": {"id": one.id, "title": one.title}} for one in buttons]}
        return await self._send(to, "interactive", {"type": "button", "body": {"text": text}, "action": action})

    async def _send(self, to: str, kind: str, content: dict[str, Any]) -> Sent:
        message = {"messaging_product": "whatsapp", "recipient_type": "individual", "to": to, "type": kind}
        body = msgspec.json.encode(message | {kind: content})
        return _outcome(
            await http_parts.call(
                self.http, "POST", self.url, party=PARTY, body=body, headers=self.headers, any_status=True
            )
        )


def _outcome(answer: http_parts.Answer) -> Sent:
    """Raises: ProviderDown."""
    if 200 <= answer.status < 300:
        if _decoded(Accepted, answer.body) is None:
            raise ProviderDown(f"{PARTY} answered what is not its protocol", unsure=True)
        return Sent.DELIVERED
    refused = _decoded(Refused, answer.body)
    code = refused.error.code if refused else None
    if answer.status == 429 or code in TOO_FAST:
        pause_s = PAIR_PAUSE_S if code == PAIR else PAUSE_S
        raise ProviderDown(f"{PARTY} asks to wait", retry_after_s=answer.retry_after_s or pause_s)
    if code in OUTSIDE_WINDOW:
        log.warning("WhatsApp: outside the window of 24 hours")
        return Sent.REFUSED
    if code in UNREACHABLE:
        return Sent.BLOCKED
    if answer.status in (401, 403) or code in OURS:
        log.error("WhatsApp refuses us: token, permissions or account", status=answer.status, code=code)
        raise ProviderDown(f"{PARTY} refuses us ({answer.status}, {code})")
    if refused is None or code in MAYBE or answer.status >= 500:
        raise ProviderDown(f"{PARTY} answered {answer.status} ({code})", unsure=answer.status >= 500)
    log.warning("WhatsApp calls a message wrong", status=answer.status, code=code)
    return Sent.REFUSED


def _decoded(kind: type[T], body: bytes) -> T | None:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError:
        return None
