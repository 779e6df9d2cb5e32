"""What YooKassa knows of one shop: its payments, their refunds, and which request was already answered how."""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from app.sandbox import yookassa_wire as wire

Kept = tuple[datetime, Any, bytes]  # when a key was first used, for what, and what was answered


class Book:
    """The state of one shop; every refusal is the API's."""

    def __init__(self, shop_id: str, currency: str, now: Callable[[], datetime], *, test: bool) -> None:
        self.recipient = {"account_id": shop_id, "gateway_id": "1"}
        self.currency, self.now, self.test = currency, now, test
        self.payments: dict[str, wire.Payment] = {}
        self.terms: dict[str, wire.Terms] = {}
        self.refunds: dict[str, wire.Refund] = {}
        self.keys: dict[str, Kept] = {}

    def once(self, key: str, data: Any, work: Callable[[], Any]) -> Any:
        """What the first request with this key was answered. Raises: Refused when it asked for something else."""
        kept = self.keys.get(wire.check_key(key))
        if kept is None or self.now() - kept[0] >= wire.KEY_LIFE:
            self.keys[key] = kept = (self.now(), data, msgspec.json.encode(work()))
        if kept[1] != data:
            raise wire.Refused(400, "invalid_request", "Idempotence key duplicated", "Idempotence-Key")
        return msgspec.json.decode(kept[2])

    def open(self, wanted: wire.Create, page: str) -> wire.Payment:
        """A new payment, paid on `page`. Raises: Refused."""
        amount, now = wire.amount_of(wanted.amount, self.currency), self.now()
        made = wire.payment_from(wanted, amount, self.recipient, now, test=self.test)
        made.confirmation = {"type": "redirect", "confirmation_url": page + made.id}
        self.payments[made.id] = made
        self.terms[made.id] = wire.Terms(wanted.capture, wanted.confirmation.return_url, now + wire.PAGE_LIFE)
        return made

    def payment(self, payment_id: str) -> wire.Payment:
        """The payment as it stands now: past its time nobody can pay it, and it is canceled if nobody did.

        Raises: Refused when there is none.
        """
        found = self.payments.get(payment_id)
        if found is None:
            raise wire.Refused(404, "not_found", "There is no such payment", "payment_id")
        if found.status == "pending" and self.now() >= self.terms[payment_id].until:
            self.cancel(payment_id, "yoo_money", "expired_on_confirmation")
        return found

    def pay(self, payment: wire.Payment, buying: wire.Buying) -> None:
        """The payment is paid as told, whatever its status. Raises: Refused for a field that it does not have."""
        if unknown := buying.edit.keys() - set(wire.Payment.__struct_fields__):
            raise wire.Refused(400, "invalid_request", f"edit: a payment has no {', '.join(sorted(unknown))}")
        now = self.now()
        payment.status = buying.status or ("succeeded" if self.terms[payment.id].capture else "waiting_for_capture")
        payment.paid = payment.status in ("succeeded", "waiting_for_capture")
        payment.confirmation = payment.confirmation if payment.status == "pending" else None
        payment.payment_method = wire.method_of(buying.method, payment.id)
        payment.refundable = payment.status == "succeeded"
        payment.cancellation_details = None
        if payment.status == "succeeded":
            payment.captured_at = wire.stamp(now)
            payment.income_amount = wire.income_of(payment.amount)
        elif payment.status == "waiting_for_capture":
            payment.expires_at = wire.stamp(now + wire.CAPTURE_LIFE)
        for name, value in buying.edit.items():
            setattr(payment, name, wire.Amount(**value) if name.endswith("amount") else value)

    def cancel(self, payment_id: str, party: str, reason: str) -> None:
        payment = self.payments[payment_id]
        payment.status, payment.paid, payment.refundable, payment.confirmation = "canceled", False, False, None
        payment.cancellation_details = {"party": party, "reason": reason}

    def left(self, payment: wire.Payment) -> Decimal:
        """What the payment can still give back; refunds under way are taken off."""
        alive = [refund for refund in self.refunds_of(payment.id) if refund.status != "canceled"]
        return Decimal(payment.amount.value) - sum(Decimal(refund.amount.value) for refund in alive)

    def refunds_of(self, payment_id: str) -> list[wire.Refund]:
        return [refund for refund in self.refunds.values() if refund.payment_id == payment_id]

    def refund(self, wanted: wire.CreateRefund, status: wire.RefundStatus) -> wire.Refund:
        """A refund with this outcome. Raises: Refused for what the payment cannot give back."""
        amount = wire.amount_of(wanted.amount, self.currency)
        payment = self.payments.get(wanted.payment_id)
        if payment is None or payment.status != "succeeded":
            raise wire.Refused(400, "invalid_request", "There is no such payment to refund", "payment_id")
        if Decimal(amount.value) > self.left(payment):
            raise wire.Refused(400, "invalid_request", "More than is left of the payment", "amount")
        made = wire.Refund(
            id=wire.new_id("0015"),
            payment_id=payment.id,
            status="pending",
            created_at=wire.stamp(self.now()),
            amount=amount,
            description=wanted.description,
            metadata=wanted.metadata,
        )
        self.refunds[made.id] = made
        self.finish(made, status)
        return made

    def finish(self, refund: wire.Refund, status: wire.RefundStatus) -> None:
        """A pending refund ends, or stays as it is; the payment tells of one that succeeded."""
        payment = self.payments[refund.payment_id]
        refund.status = status
        if status == "canceled":
            refund.cancellation_details = {"party": "yoo_money", "reason": "insufficient_funds"}
        elif status == "succeeded":
            before = Decimal(payment.refunded_amount.value) if payment.refunded_amount else Decimal(0)
            payment.refunded_amount = wire.Amount(wire.text(before + Decimal(refund.amount.value)), self.currency)
        payment.refundable = self.left(payment) > 0
