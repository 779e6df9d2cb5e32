"""The Graph API's WhatsApp on loopback, for one phone number: users that keep what was sent, and a signed webhook.

Free text reaches only who has written within 24 hours: by default the send itself is refused (131047); with `late` =
"status" it is accepted and fails by a webhook, which Meta does too. Tests make it misbehave through `faults`,
`unreachable` and `heard_s`.
"""

import asyncio
import hashlib
import hmac
import time
from collections import deque
from typing import Any, Literal

import msgspec
from litestar import Litestar, Response, get, post, put

from app.base import clock
from app.sandbox import whatsapp_wire as wire
from app.sandbox.party import Answer, Entry, Party, Req, play, reply

JOURNAL = 2000  # entries kept
KEPT_MESSAGES = 1000  # per user, the newest
WINDOW_S = 86_400
STATUSES = ("delivered", "sent", "read")  # Meta promises no order


class WhatsApp(Party[wire.GraphFault]):
    """One phone number of the Cloud API."""

    fault_type = wire.GraphFault

    def __init__(
        self, token: str, phone_id: str, *, app_secret: str = "", callback_url: str = "", keep: int = JOURNAL
    ) -> None:
        if not token or not phone_id.isdecimal():
            raise ValueError("an access token and the digits of a phone number's id")
        super().__init__(keep)
        self.token, self.phone_id, self.app_secret, self.callback_url = token, phone_id, app_secret, callback_url
        self.messages: dict[str, deque[dict[str, Any]]] = {}
        self.heard_s: dict[str, int] = {}  # when each user last wrote
        self.unreachable: set[str] = set()
        self.late: Literal["answer", "status"] = "answer"
        self.statuses: tuple[str, ...] = STATUSES  # told of each message, in this order; empty: none
        self.pause_ms = 50.0  # between two tries of a webhook
        self.last_id, self.born = 0, time.time_ns()  # ids of an earlier run never come again

    def app(self) -> Litestar:
        """The Graph API and the control surface as one ASGI app."""
        return self.litestar(
            [
                post("/{version:str}/{phone_id:str}/messages", status_code=200)(self.take_message),
                get("/sandbox/messages")(self.show_messages),
                put("/sandbox/users")(self.set_user),
                post("/sandbox/say", status_code=200)(self.order_say),
                post("/sandbox/batch", status_code=200)(self.order_batch),
            ],
            bad_order=wire.GraphError,
        )

    def sent_to(self, to: str) -> list[dict[str, Any]]:
        """What a user has got, oldest first: `text` and, with buttons, `interactive`."""
        return [dict(message) for message in self.messages.get(to, ())]

    def texts_to(self, to: str) -> list[str]:
        """The words of it."""
        said = self.sent_to(to)
        return [one["text"]["body"] if one["type"] == "text" else one["interactive"]["body"] for one in said]

    async def say(self, *said: wire.Said, tries: int = 1) -> Entry:
        """Users write, in one webhook, offered again until it is answered 200; the last try's entry comes back."""
        return await self.say_batch([[list(said)]], tries=tries)

    async def say_batch(self, entries: list[list[list[wire.Said]]], *, tries: int = 1) -> Entry:
        """The same as entries x changes x messages."""
        told = [[self._value(change) for change in entry] for entry in entries]
        return await self._push(told, tries)

    async def tell(self, message_id: str, to: str, status: str, code: int | None = None) -> Entry:
        """The webhook is told what became of a message."""
        status_of = wire.status_of(message_id, to, status, clock.unix_s(), code)
        return await self._push([[self._values(statuses=[status_of])]], 3)

    async def take_message(self, request: Req) -> Response[bytes]:
        """`POST /<version>/<phone_id>/messages`."""
        raw = await request.body()
        try:
            given = msgspec.json.decode(raw, type=dict[str, Any])
        except msgspec.DecodeError:
            given = {}
        entry = self.record("request", "messages", given)
        fault = self.take_fault("messages", lambda fault: fault.to in (None, given.get("to")))

        def work() -> Answer:
            try:
                self._proven(request)
                return Answer(200, self._taken(given))
            except wire.GraphError as error:
                return wire.refused(error.code, error.details)

        if fault and fault.code is not None:
            answer = wire.refused(fault.code, retry_after_s=fault.retry_after_s)
            return await play(request, entry, None, lambda: answer)
        return await play(request, entry, fault, work)

    def _proven(self, request: Req) -> None:
        """Raises: GraphError for whoever has not the token, or means another number."""
        if request.headers.get("authorization") != f"Bearer {self.token}":
            raise wire.GraphError(190)
        if request.path_params["phone_id"] != self.phone_id:
            raise wire.GraphError(100, "Object with this ID does not exist")

    def _taken(self, given: dict[str, Any]) -> dict[str, Any]:
        """The message is with its user, or will be told to have failed. Raises: GraphError."""
        if given.get("messaging_product") != "whatsapp":
            raise wire.GraphError(100, "messaging_product is required")
        if given.get("status") == "read":
            return {"success": True}
        to = given.get("to")
        if not isinstance(to, str) or not to.isdecimal():
            raise wire.GraphError(100, "to is required")
        content, code = wire.checked(given), self._unwanted(to)
        if code and self.late == "answer":
            raise wire.GraphError(code)
        message_id = self._new_id()
        if code:
            self._later(message_id, to, ("failed",), code)
        else:
            kept = self.messages.setdefault(to, deque(maxlen=KEPT_MESSAGES))
            kept.append({"id": message_id, "to": to, **content})
            self._later(message_id, to, self.statuses)
        contacts = [{"input": to, "wa_id": to}]
        return {"messaging_product": "whatsapp", "contacts": contacts, "messages": [{"id": message_id}]}

    def _unwanted(self, to: str) -> int | None:
        """Why this user gets nothing."""
        if to in self.unreachable:
            return 131026
        open_ = clock.unix_s() - self.heard_s.get(to, 0) < WINDOW_S
        return None if open_ else 131047

    def _later(self, message_id: str, to: str, statuses: tuple[str, ...], code: int | None = None) -> None:
        async def tell_all() -> None:
            for status in statuses:
                await self.tell(message_id, to, status, code)

        if self.callback_url and statuses:
            self.spawn(tell_all())

    def _value(self, said: list[wire.Said]) -> dict[str, Any]:
        """What a change says of these messages; who wrote has a window from then on."""
        told = []
        for one in said:
            at_s = clock.unix_s() if one.at_s is None else one.at_s
            self.heard_s[one.sender] = max(at_s, self.heard_s.get(one.sender, 0))
            one.id = one.id or self._new_id()
            told.append(wire.message_of(one, one.id, at_s))
        contacts = {one.sender: {"profile": {"name": one.name}, "wa_id": one.sender} for one in said}
        return self._values(contacts=list(contacts.values()), messages=told)

    def _values(self, **told: Any) -> dict[str, Any]:
        metadata = {"display_phone_number": "15550100000", "phone_number_id": self.phone_id}
        return {"messaging_product": "whatsapp", "metadata": metadata, **told}

    async def _push(self, entries: list[list[dict[str, Any]]], tries: int) -> Entry:
        """One signed webhook with these changes by entry. Raises: GraphError when there is nobody to call."""
        if not self.callback_url:
            raise wire.GraphError(100, "no callback_url")
        told = {
            "object": "whatsapp_business_account",
            "entry": [
                {"id": f"10{n}", "changes": [{"field": "messages", "value": value} for value in changes]}
                for n, changes in enumerate(entries)
            ],
        }
        body = msgspec.json.encode(told)
        proof = hmac.new(self.app_secret.encode(), body, hashlib.sha256).hexdigest()
        for left in reversed(range(max(tries, 1))):
            entry = self.record("callback", self.callback_url, told)
            await self.call(entry, self.callback_url, body, {"x-hub-signature-256": f"sha256={proof}"})
            if entry.status == 200:
                break
            if left:
                await asyncio.sleep(self.pause_ms / 1000)
        return entry

    def _new_id(self) -> str:
        self.last_id += 1
        return wire.wamid(f"{self.born} {self.last_id}")

    async def show_messages(self, request: Req) -> Response[bytes]:
        to = request.query_params.get("to")
        return reply([message for user in ([to] if to else self.messages) for message in self.sent_to(user)])

    async def set_user(self, request: Req) -> Response[bytes]:
        user = msgspec.json.decode(await request.body(), type=wire.User)
        (self.unreachable.add if user.state == "unreachable" else self.unreachable.discard)(user.wa_id)
        if user.silent_s is not None:
            self.heard_s[user.wa_id] = clock.unix_s() - user.silent_s
        return reply(user)

    async def order_say(self, request: Req) -> Response[bytes]:
        order = msgspec.json.decode(await request.body(), type=wire.Say)
        return reply(await self.say(order, tries=order.tries))

    async def order_batch(self, request: Req) -> Response[bytes]:
        order = msgspec.json.decode(await request.body(), type=wire.Batch)
        return reply(await self.say_batch(order.entries, tries=order.tries))


SIMULATOR = WhatsApp
