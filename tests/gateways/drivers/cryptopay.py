"""Crypto Pay for the conformance suite."""

from contextlib import AsyncExitStack
from typing import Any

import msgspec

from app.base import clock
from app.base.money import decimal_text
from app.errors import BadSignature, Malformed
from app.sandbox.cryptopay import CryptoPay
from app.sandbox.cryptopay_wire import SIGNATURE, Callbacks, mark_paid, sign, webhook
from app.sandbox.serve import running
from tests.gateways import driver

JSON = {"content-type": "application/json"}


class Driver(driver.Driver):
    """One app at Crypto Pay. It calls about payments only."""

    name = "cryptopay"
    config = {"token": "12345:AAmade-up-app-token"}  # noqa: RUF012
    currency = "RUB"

    async def settings(self, stack: AsyncExitStack) -> dict[str, str]:
        self.sim = CryptoPay(self.config["token"], minute_ms=0.1)
        return {**self.config, "url": await stack.enter_async_context(running(self.sim.app()))}

    def listen(self, url: str) -> None:
        self.sim.callback_url = url

    async def pay(self, invoice_id: str, amount_minor: int | None = None) -> None:
        """Another amount is Crypto Pay's own error: it takes the whole or nothing, and signs what it says came."""
        amount = None if amount_minor is None else decimal_text(amount_minor, self.currency)
        await self.sim.pay(invoice_id, amount=amount)

    async def cancel(self, invoice_id: str) -> None:
        self.sim.cancel(invoice_id)

    async def refund(self, invoice_id: str, amount_minor: int | None = None) -> None:
        raise NotImplementedError

    def silence(self) -> None:
        self.sim.callbacks = Callbacks(drop=17)

    def genuine(self, invoice_id: str, event: str = "paid") -> driver.Sent:
        if event != "paid":
            raise NotImplementedError
        return self._webhook(invoice_id)

    def forged(self, invoice_id: str) -> dict[str, driver.Forgery]:
        body, headers = self._webhook(invoice_id)
        right = headers[SIGNATURE]
        unproven = {
            "F1 no signature": (body, {}),
            "F2 empty signature": (body, {SIGNATURE: ""}),
            "F4 wrong signature": self._webhook(invoice_id, signature="wrong"),
            "F5 signature cut": (body, {SIGNATURE: right[:-1]}),
            "F5 signature in upper case": (body, {SIGNATURE: right.upper()}),
            "F7 another invoice's signature": self._webhook(invoice_id, edit={"invoice_id": 1}),
            "F8 another app's signature": (body, {SIGNATURE: sign(body, "54321:AAanother")}),
            "F11 re-serialised": self._webhook(invoice_id, respell=True),
            "F31 amount edited": self._webhook(invoice_id, edit={"amount": "0.01"}),
            "F33 currency edited": self._webhook(invoice_id, edit={"fiat": "KZT"}),
            "F51 no body": (b"", headers),
            "F59 signature twice": (body, {SIGNATURE: f"{right}, {right}"}),
        }
        malformed = {
            "F51 one byte": b"{",
            "F53 payload twice": body.replace(b"{", b'{"payload":{},', 1),
            "F56 an array": b"[" + body + b"]",
            "no invoice id": b'{"update_type":"invoice_paid","payload":{"status":"paid"}}',
        }
        found: dict[str, driver.Forgery] = {
            name: (BadSignature, sent, JSON | given) for name, (sent, given) in unproven.items()
        }
        for name, sent in malformed.items():
            found[f"{name}, proven"] = Malformed, sent, JSON | {SIGNATURE: sign(sent, self.sim.token)}
        return found

    def edited(self, invoice_id: str, **changes: str) -> driver.Sent:
        """Every byte is under the signature, and of an invoice that nobody paid there is no webhook with any."""
        paid = self.sim.invoice(invoice_id).status == "paid"
        return self._webhook(invoice_id, edit=changes, signature="right" if paid else "wrong")

    def _webhook(self, invoice_id: str, **plan: Any) -> driver.Sent:
        invoice = msgspec.structs.replace(self.sim.invoice(invoice_id))
        mark_paid(invoice, clock.now())
        body, headers = webhook(invoice, Callbacks(**plan), self.sim.token, clock.now())
        return body, JSON | headers
