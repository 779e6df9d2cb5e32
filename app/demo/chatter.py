"""A scripted buyer who writes to the bot: asks, gets an offer, pays by its button, all in the chat."""

import time
from typing import Any

import httpx
import msgspec

from app.demo.buyer import NotDelivered, Step, Tell, paid_on_page

ASKED = "Hello! Do you have the Lumen Editor?"
WANTED = "I want to buy the Lumen Editor"
PATIENCE_S = 30.0
POLL_S = 0.02
HEAD = 60  # characters of a reply that the timeline shows


class Talk(msgspec.Struct, frozen=True):
    """What came of the talk."""

    offer: str
    told: str  # the message with the goods


class Phone:
    """The buyer's side of the chat."""

    def __init__(self, telegram_url: str, buyer: dict[str, Any]) -> None:
        self.http = httpx.Client(base_url=telegram_url, timeout=10)
        self.chat_id = buyer["id"]
        self.me = {"chat_id": self.chat_id, "name": buyer["first_name"], "language": buyer["language_code"]}
        self.read = 0  # the id of the newest message that was read

    def say(self, **what: str) -> None:
        """The message or the pressed button has reached the shop. Raises: NotDelivered."""
        told = self.http.post("/sandbox/say", json=self.me | what | {"tries": 3, "pause_ms": 200}).json()
        if told.get("status") != 200:
            raise NotDelivered(f"the shop answered the bot's webhook with {told.get('status') or told.get('error')}")

    def heard(self, what: str) -> dict[str, Any]:
        """The next message of the bot. Raises: NotDelivered."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for message in self.http.get("/sandbox/messages", params={"chat_id": self.chat_id}).json():
                if message["message_id"] > self.read:
                    self.read = message["message_id"]
                    found: dict[str, Any] = message
                    return found
            time.sleep(POLL_S)
        raise NotDelivered(f"the bot said nothing for {PATIENCE_S:.0f} s: no {what}")

    def skip(self) -> None:
        """Everything that is in the chat by now has been read."""
        for message in self.http.get("/sandbox/messages", params={"chat_id": self.chat_id}).json():
            self.read = max(self.read, message["message_id"])


def listen(telegram_url: str, bot_token: str, webhook_url: str, secret: str) -> None:
    """The Bot API sends what is written to the bot to the shop, as `torg telegram webhook set` has it."""
    order = {"url": webhook_url, "secret_token": secret, "allowed_updates": ["message", "callback_query"]}
    httpx.post(f"{telegram_url}/bot{bot_token}/setWebhook", json=order, timeout=10).raise_for_status()


def talk(telegram_url: str, buyer: dict[str, Any], tell: Tell) -> Talk:
    """From a question to goods, all of it in the chat. Raises: NotDelivered."""
    phone = Phone(telegram_url, buyer)
    with phone.http:
        phone.skip()

        def step(what: str, phone_does: dict[str, str], wanted: str) -> dict[str, Any]:
            started = time.perf_counter()
            phone.say(**phone_does)
            message = phone.heard(wanted)
            head = message["text"].partition("\n")[0]
            shown = head if len(head) <= HEAD else head[: HEAD - 1] + "…"
            tell(Step(what, (time.perf_counter() - started) * 1000, shown))
            return message

        step("asks", {"text": ASKED}, "answer")
        offered = step("wants it", {"text": WANTED}, "offer")
        ways = step("presses the pay button", {"data": _button(offered, "callback_data")}, "ways to pay")
        order = step("chooses CrystalPay", {"data": _button(ways, "callback_data", "CrystalPay")}, "payment link")
        paid_on_page(_button(order, "url"))
        started = time.perf_counter()
        told = phone.heard("goods")
        tell(Step("pays; the bot brings it", (time.perf_counter() - started) * 1000, told["text"].partition("\n")[0]))
        return Talk(offered["text"], told["text"])


def _button(message: dict[str, Any], kind: str, label: str = "") -> str:
    """What the first button of the message, or the one with this label, does. Raises: NotDelivered."""
    for row in message.get("reply_markup", {}).get("inline_keyboard", []):
        for button in row:
            if kind in button and label in button["text"]:
                return str(button[kind])
    raise NotDelivered(f"no button in {message['text'][:200]!r}")
