"""AAIO for the conformance suite."""

from contextlib import AsyncExitStack
from typing import Literal

import msgspec

from app.base.money import decimal_text
from app.errors import BadSignature, Malformed
from app.sandbox.aaio import Aaio
from app.sandbox.aaio_wire import FORM, Callbacks, form_bytes, notification, sign
from app.sandbox.serve import running
from tests.gateways import driver

HEADERS = {"content-type": FORM}


class Driver(driver.Driver):
    """One merchant at AAIO, whose orders are named by our references. It notifies of payments only."""

    name = "aaio"
    config = {  # noqa: RUF012
        "merchant_id": "11111111-2222-3333-4444-555555555555",
        "api_key": "made-up-api-key",
        "secret_1": "made-up-secret-one",
        "secret_2": "made-up-secret-two",
    }
    currency = "RUB"

    async def settings(self, stack: AsyncExitStack) -> dict[str, str]:
        self.sim = Aaio(*self.config.values())
        return {**self.config, "url": await stack.enter_async_context(running(self.sim.app()))}

    def listen(self, url: str) -> None:
        self.sim.callback_url = url

    async def pay(self, invoice_id: str, amount_minor: int | None = None) -> None:
        """Another amount is AAIO's own error: it takes the whole or nothing, and signs what it says came."""
        amount = None if amount_minor is None else decimal_text(amount_minor, self.currency)
        await self.sim.pay(invoice_id, amount=amount)

    async def cancel(self, invoice_id: str) -> None:
        self.sim.cancel(invoice_id)

    async def refund(self, invoice_id: str, amount_minor: int | None = None) -> None:
        raise NotImplementedError

    def silence(self) -> None:
        self.sim.callbacks = Callbacks(drop=1)

    def genuine(self, invoice_id: str, event: str = "paid") -> driver.Sent:
        if event != "paid":
            raise NotImplementedError
        return form_bytes(self._form(invoice_id)), HEADERS

    def forged(self, invoice_id: str) -> dict[str, driver.Forgery]:
        form = self._form(invoice_id)
        right, other = form["sign"], "99999999-2222-3333-4444-555555555555"
        unproven = {
            "F1 no signature": self._form(invoice_id, "absent"),
            "F2 empty signature": form | {"sign": ""},
            "F4 wrong signature": self._form(invoice_id, "wrong"),
            "F5 signature cut": form | {"sign": right[:-1]},
            "F5 signature in upper case": form | {"sign": right.upper()},
            "F6 signature not ASCII": form | {"sign": "é" * 64},
            "F7 another order's signature": form | {"order_id": "another"},
            "F9 the first secret": self._form(invoice_id, "first secret"),
            "F31 amount edited": form | {"amount": "0.01"},
            "F33 currency edited": form | {"currency": "UAH"},
            "F42 another merchant": self._signed(form | {"merchant_id": other}),
        }
        malformed = {
            "F34 amount in exponents": self._signed(form | {"amount": "1e2"}),
            "F35 amount below zero": self._signed(form | {"amount": "-1"}),
            "F36 amount of zero": self._signed(form | {"amount": "0"}),
            "F43 order id with colon": self._signed(form | {"order_id": f"{invoice_id}:1"}),
        }
        bodies = {name: (BadSignature, form_bytes(fields)) for name, fields in unproven.items()} | {
            name: (Malformed, form_bytes(fields)) for name, fields in malformed.items()
        }
        bodies["F53 status twice"] = (Malformed, form_bytes(form) + b"&status=hold")
        return {name: (kind, body, HEADERS) for name, (kind, body) in bodies.items()}

    def edited(self, invoice_id: str, **changes: str) -> driver.Sent:
        """Of an order that nobody paid there is no notification whose signature could be had."""
        paid = self.sim.invoice(invoice_id).status in ("success", "hold")
        return form_bytes(self._form(invoice_id, "right" if paid else "wrong") | changes), HEADERS

    def _form(
        self, invoice_id: str, signature: Literal["right", "wrong", "first secret", "absent"] = "right"
    ) -> dict[str, str]:
        order = msgspec.structs.replace(self.sim.invoice(invoice_id), status="success")
        return notification(order, Callbacks(signature=signature), self.sim.secret_1, self.sim.secret_2)

    def _signed(self, form: dict[str, str]) -> dict[str, str]:
        merchant_id, amount, currency = form["merchant_id"], form["amount"], form["currency"]
        return form | {"sign": sign(merchant_id, amount, currency, self.sim.secret_2, form["order_id"])}
