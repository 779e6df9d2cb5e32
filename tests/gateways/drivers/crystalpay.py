"""CrystalPay for the conformance suite."""

import json
from contextlib import AsyncExitStack
from typing import Any

from app.base.money import decimal_text, parse_minor
from app.errors import BadSignature, Malformed
from app.sandbox.crystalpay import CrystalPay
from app.sandbox.crystalpay_wire import ATTEMPTS, Callbacks, Payment, callback_body, sign
from app.sandbox.serve import running
from tests.gateways import driver

HEADERS = {"content-type": "application/json"}
STATES = {"paid": "payed", "other": "failed"}
OTHER_ID = "987654321_zyxwvutsrq"


class Driver(driver.Driver):
    """One cash desk at CrystalPay. Its signature is of the invoice's id alone, so an old callback can be edited."""

    name = "crystalpay"
    config = {"login": "desk", "secret": "made-up-secret", "salt": "made-up-salt"}  # noqa: RUF012
    currency = "RUB"

    async def settings(self, stack: AsyncExitStack) -> dict[str, str]:
        self.sim = CrystalPay(*self.config.values(), minute_ms=20)
        return {**self.config, "url": await stack.enter_async_context(running(self.sim.app()))}

    async def pay(self, invoice_id: str, amount_minor: int | None = None) -> None:
        """Less leaves the rest open; for more, the invoice itself says more."""
        payment = Payment()
        if amount_minor is not None:
            text, asked = decimal_text(amount_minor, self.currency), self.sim.invoice(invoice_id).amount
            more = amount_minor > (parse_minor(asked, self.currency) or 0)
            payment = Payment(edit={"amount": text}) if more else Payment(amount=text)
        await self.sim.pay(invoice_id, payment)

    async def cancel(self, invoice_id: str) -> None:
        await self.sim.cancel(invoice_id)

    async def refund(self, invoice_id: str, amount_minor: int | None = None) -> None:
        raise NotImplementedError

    def silence(self) -> None:
        self.sim.callbacks, self.sim.minute_ms = Callbacks(drop=ATTEMPTS), 0

    def genuine(self, invoice_id: str, event: str = "paid") -> driver.Sent:
        if event not in STATES:
            raise NotImplementedError
        return json.dumps(self._said(invoice_id) | {"state": STATES[event]}).encode(), HEADERS

    def forged(self, invoice_id: str) -> dict[str, driver.Forgery]:
        said = self._said(invoice_id)
        signature = said["signature"]
        absent = {name: value for name, value in said.items() if name != "signature"}
        right = json.dumps(said).encode()
        unproven = {
            "F1 no signature": absent,
            "F2 empty signature": said | {"signature": ""},
            "F3 signature null": said | {"signature": None},
            "F3 signature a list": said | {"signature": [signature]},
            "F4 wrong signature": said | {"signature": "0" * 40},
            "F5 signature cut": said | {"signature": signature[:-1]},
            "F5 signature in upper case": said | {"signature": signature.upper()},
            "F6 signature not ASCII": said | {"signature": "é" * 40},
            "F7 another invoice's signature": said | {"signature": sign(OTHER_ID, self.config["salt"])},
            "F8 another salt": said | {"signature": sign(invoice_id, "another")},
            "F8 no salt": said | {"signature": sign(invoice_id, "")},
        }
        colon = f"{invoice_id}:payed"
        malformed = {
            "F43 id with a colon": json.dumps(said | self._named(colon)).encode(),
            "F44 id as a path": json.dumps(said | self._named("../../etc/passwd")).encode(),
            "F58 a long id": json.dumps(said | self._named("a" * 10_000)).encode(),
            "F49 a tail": right + b"x",
            "F51 no body": b"",
            "F53 state twice": right.replace(b"{", b'{"state": "notpayed", ', 1),
            "F54 deep": right.replace(b"{", b'{"a": ' + b"[" * 10_000 + b"]" * 10_000 + b", ", 1),
            "F55 lone surrogate": right.replace(b"{", b'{"a": "\\ud800", ', 1),
            "F56 array": b"[" + right + b"]",
        }
        found: dict[str, driver.Forgery] = {name: (Malformed, body, HEADERS) for name, body in malformed.items()}
        for name, fields in unproven.items():
            found[name] = (BadSignature, json.dumps(fields).encode(), HEADERS)
        return found

    def edited(self, invoice_id: str, **changes: str) -> driver.Sent:
        return json.dumps(self._said(invoice_id) | changes).encode(), HEADERS

    def _said(self, invoice_id: str) -> dict[str, Any]:
        return callback_body(self.sim.invoice(invoice_id), Callbacks(), self.config["salt"])

    def _named(self, invoice_id: str) -> dict[str, str]:
        return {"id": invoice_id, "signature": sign(invoice_id, self.config["salt"])}
