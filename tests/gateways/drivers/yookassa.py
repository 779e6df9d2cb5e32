"""YooKassa for the conformance suite."""

import json
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from app.base.money import decimal_text
from app.errors import Malformed
from app.sandbox.serve import running
from app.sandbox.yookassa import YooKassa
from app.sandbox.yookassa_wire import Buying, Callbacks, new_id, notification
from tests.gateways import driver

HEADERS = {"content-type": "application/json"}
EVENTS = {"paid": "payment.succeeded", "other": "payment.canceled", "refunded": "refund.succeeded"}


class Driver(driver.Driver):
    """One shop at YooKassa. There is no signature, so whoever calls from its networks can say anything."""

    name = "yookassa"
    config = {"shop_id": "100500", "secret_key": "made-up-secret-key"}  # noqa: RUF012
    currency = "RUB"
    stranger = "192.0.2.1"

    async def settings(self, stack: AsyncExitStack) -> dict[str, str]:
        self.sim = YooKassa(self.config["shop_id"], self.config["secret_key"], minute_ms=2)
        url = await stack.enter_async_context(running(self.sim.app()))
        return {**self.config, "url": url, "networks": "127.0.0.1/32"}

    def listen(self, url: str) -> None:
        self.sim.callback_url = url

    async def pay(self, invoice_id: str, amount_minor: int | None = None) -> None:
        """Another amount is the merchant who captured a part of it; more than all is YooKassa's own error."""
        amount = (
            {"value": decimal_text(amount_minor, self.currency), "currency": self.currency} if amount_minor else None
        )
        await self.sim.pay(invoice_id, Buying(edit={"amount": amount} if amount else {}))

    async def cancel(self, invoice_id: str) -> None:
        await self.sim.cancel(invoice_id)

    async def refund(self, invoice_id: str, amount_minor: int | None = None) -> None:
        await self.sim.refund(invoice_id, decimal_text(amount_minor, self.currency) if amount_minor else None)

    def silence(self) -> None:
        self.sim.callback_url = ""

    def genuine(self, invoice_id: str, event: str = "paid") -> driver.Sent:
        return json.dumps(self._said(invoice_id, event)).encode(), HEADERS

    def forged(self, invoice_id: str) -> dict[str, driver.Forgery]:
        """What is no notification; `stranger` is the address from which not even a right one is read."""
        said = self._said(invoice_id)
        right, about = json.dumps(said).encode(), said["object"]
        bodies = {
            "F46 another gateway's body": json.dumps({"id": invoice_id, "state": "payed", "signature": "x"}).encode(),
            "F51 no body": b"",
            "F53 event twice": right.replace(b"{", b'{"event": "payment.canceled", ', 1),
            "F54 deep": right.replace(b"{", b'{"a": ' + b"[" * 10_000 + b"]" * 10_000 + b", ", 1),
            "F55 lone surrogate": right.replace(b"{", b'{"a": "\\ud800", ', 1),
            "F56 array": b"[" + right + b"]",
            "no notification": json.dumps(said | {"type": "payment"}).encode(),
            "no event": json.dumps(said | {"event": None}).encode(),
            "no object": json.dumps(said | {"object": None}).encode(),
            "F43 id with a colon": json.dumps(said | {"object": about | {"id": f"{invoice_id}:1"}}).encode(),
            "F44 id as a path": json.dumps(said | {"object": about | {"id": "../" * 12}}).encode(),
            "F58 a long id": json.dumps(said | {"object": about | {"id": "a" * 10_000}}).encode(),
            "a refund of nothing": json.dumps(said | {"event": "refund.succeeded"}).encode(),
            "a payout": json.dumps(said | {"event": "payout.succeeded"}).encode(),
        }
        return {name: (Malformed, body, HEADERS) for name, body in bodies.items()}

    def edited(self, invoice_id: str, **changes: str) -> driver.Sent:
        """`amount` and `currency` are inside the object's amount; `event` is beside the object."""
        said = self._said(invoice_id)
        inside = {"amount": "value", "currency": "currency"}
        said["object"]["amount"] |= {inside[name]: value for name, value in changes.items() if name in inside}
        said["event"] = changes.pop("event", said["event"])
        said["object"] |= {name: value for name, value in changes.items() if name not in inside}
        return json.dumps(said).encode(), HEADERS

    def _said(self, invoice_id: str, event: str = "paid") -> dict[str, Any]:
        payment = self.sim.invoice(invoice_id)
        if event != "refunded":
            status = EVENTS[event].partition(".")[2]
            return notification(EVENTS[event], payment, Callbacks(object={"status": status}))
        if made := self.sim.book.refunds_of(invoice_id):
            return notification(EVENTS[event], made[-1], Callbacks())
        amount = msgspec.to_builtins(payment.amount)
        refund = {"id": new_id("0015"), "payment_id": invoice_id, "status": "succeeded", "amount": amount}
        return {"type": "notification", "event": EVENTS[event], "object": refund}
