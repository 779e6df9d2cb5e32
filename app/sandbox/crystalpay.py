"""CrystalPay v3 on loopback: invoices, the pay page, signed callbacks with the documented retries.

Tests make it misbehave through `faults` (API answers) and `callbacks` (deliveries); see `party` for the journal.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import ROUND_DOWN, Decimal
from typing import Any, TypeVar

import msgspec
from litestar import Litestar, Response, delete, get, post, put

from app.base import clock
from app.sandbox import crystalpay_wire as wire
from app.sandbox import pay_page
from app.sandbox.party import Answer, Entry, Fault, Party, Req, play, reply

JOURNAL = 2000  # entries kept
HTML = "text/html"  # Litestar adds the charset

W = TypeVar("W", bound=wire.Auth)


class ApiFault(Fault, kw_only=True):
    """A fault of the API; `on` is create or info."""

    id: str | None = None  # info: only about this invoice
    instead: str | None = None  # info tells about this other invoice
    # Fields of the answer, changed at the last moment; the invoice itself stays as it is.
    edit: dict[str, Any] = msgspec.field(default_factory=dict)


class CrystalPay(Party[ApiFault]):
    """One cash desk at CrystalPay.

    Units:   minute_ms is the "minute" of the retry ladder; tests and the demo shrink it.
    Shape:   public_url is how buyers reach the pay page; empty: as the creator of the invoice reached the API.
    """

    fault_type = ApiFault

    def __init__(
        self,
        login: str,
        secret: str,
        salt: str,
        *,
        public_url: str = "",
        minute_ms: float = 60_000,
        now: Callable[[], datetime] = clock.now,
        keep: int = JOURNAL,
    ) -> None:
        if not (login and secret and salt):
            raise ValueError("login, secret and salt must not be empty")
        super().__init__(keep)
        self.login, self.secret, self.salt = login, secret, salt
        self.public_url = public_url.rstrip("/")
        self.minute_ms = minute_ms
        self.now = now
        self.invoices: dict[str, wire.Invoice] = {}
        self.callbacks = wire.Callbacks()

    def invoice(self, invoice_id: str) -> wire.Invoice:
        """The invoice as it stands now: past its time nobody can pay it, and it is failed if nobody did.

        Raises: Refused when there is none.
        """
        found = self.invoices.get(invoice_id)
        if found is None:
            raise wire.Refused("id: invoice not found")
        if found.state in wire.OPEN_STATES and self.stamp() >= found.expired_at:
            found.state = "failed" if found.state == "notpayed" else found.state
            found.final_at = found.expired_at
        return found

    def pay(self, invoice_id: str, payment: wire.Payment | None = None) -> asyncio.Task[list[Entry]]:
        """The invoice is paid as told, whatever its state; the task ends when its callbacks are over.

        Raises: Refused for an unknown invoice or field, decimal.InvalidOperation for an amount that is no number.
        """
        payment = payment or wire.Payment()
        if unknown := payment.edit.keys() - set(wire.Invoice.__struct_fields__):
            raise wire.Refused(f"edit: an invoice has no {', '.join(sorted(unknown))}")
        invoice = self.invoice(invoice_id)
        owed = Decimal(invoice.remaining_amount)
        usual = Decimal(0) if payment.state in wire.UNPAID_STATES else owed
        paid = usual if payment.amount is None else Decimal(payment.amount)
        remaining = max(owed - paid, Decimal(0))
        invoice.state = payment.state or ("wrongamount" if remaining else "payed")
        invoice.method = payment.method
        invoice.remaining_amount = wire.decimal_text(remaining)
        invoice.balance_amount = wire.decimal_text(Decimal(invoice.initial_amount) - owed + paid)
        invoice.final_at = self.stamp() if invoice.state in ("payed", "failed") else None
        for name, value in payment.edit.items():
            setattr(invoice, name, value)
        return self.send_callback(invoice_id, payment.callbacks)

    def cancel(self, invoice_id: str) -> asyncio.Task[list[Entry]]:
        """The buyer gave up: the invoice is failed, and a callback says so."""
        invoice = self.invoice(invoice_id)
        invoice.state, invoice.final_at = "failed", self.stamp()
        return self.send_callback(invoice_id)

    def send_callback(self, invoice_id: str, plan: wire.Callbacks | None = None) -> asyncio.Task[list[Entry]]:
        """Callbacks about the invoice go out, up to ten attempts; the task's result is one entry per post.

        Raises: Refused for an unknown invoice.
        """
        return self.spawn(self._deliver(self.invoice(invoice_id), plan or self.callbacks))

    async def _deliver(self, invoice: wire.Invoice, plan: wire.Callbacks) -> list[Entry]:
        sent: list[Entry] = []
        if not invoice.callback_url:
            return sent
        await asyncio.sleep(plan.delay_ms / 1000)
        for attempt in range(1, wire.ATTEMPTS + 1):
            body = wire.callback_body(invoice, plan, self.salt)
            posts = (self._post(invoice.callback_url, body, lost=attempt <= plan.drop) for _ in range(plan.copies))
            round_ = await asyncio.gather(*posts)
            sent += round_
            if any(entry.status in wire.ACCEPTED for entry in round_):
                break
            if attempt < wire.ATTEMPTS:
                # After N attempts the next comes N minutes later (docs.crystalpay.io/callback/obshaya-informaciya).
                await asyncio.sleep(attempt * self.minute_ms / 1000)
        return sent

    async def _post(self, url: str, body: dict[str, Any], *, lost: bool) -> Entry:
        entry = self.record("callback", url, body)
        if lost:
            entry.error = "dropped"
            return entry
        return await self.call(entry, url, msgspec.json.encode(body))

    def stamp(self) -> str:
        return self.now().astimezone(UTC).strftime(wire.TIME)

    def app(self) -> Litestar:
        """The API, the pay page and the control surface as one ASGI app."""
        return self.litestar(
            [
                post("/v3/invoice/create/", status_code=200)(self.create),
                post("/v3/invoice/info/", status_code=200)(self.info),
                get("/")(self.page),
                post("/pay/{id:str}")(self.press),
                post("/sandbox/pay")(self.order_payment),
                put("/sandbox/callbacks")(self.plan_callbacks),
                delete("/sandbox/callbacks")(self.reset_callbacks),
                post("/sandbox/callbacks/{id:str}")(self.repeat_callback),
                get("/sandbox/invoices")(self.show_invoices),
            ],
            bad_order=wire.Refused,
        )

    async def create(self, request: Req) -> Response[bytes]:
        """`POST /v3/invoice/create/`."""
        raw = await request.body()
        entry = self.record("request", "create", wire.masked(raw))
        fault = self.take_fault("create")

        def work() -> Answer:
            wanted = self.authorised(raw, wire.Create)
            invoice_id = wire.new_invoice_id()
            base = self.public_url or str(request.base_url).rstrip("/")
            made = wire.invoice_from(wanted, invoice_id, f"{base}/?i={invoice_id}", self.now().astimezone(UTC))
            self.invoices[invoice_id] = made
            told = {"id": made.id, "url": made.url, "type": made.type, "rub_amount": made.rub_amount}
            return accepted(told | (fault.edit if fault else {}))

        return await play(request, entry, fault, lambda: answered(work))

    async def info(self, request: Req) -> Response[bytes]:
        """`POST /v3/invoice/info/`."""
        raw = await request.body()
        given = wire.masked(raw)
        entry = self.record("request", "info", given)
        asked = given.get("id") if isinstance(given, dict) else None
        fault = self.take_fault("info", lambda fault: fault.id in (None, asked))

        def work() -> Answer:
            wanted = self.authorised(raw, wire.Info)
            told = self.invoice(fault.instead if fault and fault.instead else wanted.id)
            return accepted(msgspec.to_builtins(told) | (fault.edit if fault else {}))

        return await play(request, entry, fault, lambda: answered(work))

    def authorised(self, raw: bytes, shape: type[W]) -> W:
        """The request's body as `shape`, from the desk's owner.

        Raises: Refused.
        """
        try:
            auth = msgspec.json.decode(raw, type=wire.Auth)
            known = (auth.auth_login.encode(), auth.auth_secret.encode()) == (self.login.encode(), self.secret.encode())
            if not known:
                raise wire.Refused("auth: wrong login or secret")
            return msgspec.json.decode(raw, type=shape)
        except msgspec.DecodeError as error:
            raise wire.Refused(str(error)) from None

    async def page(self, request: Req) -> Response[bytes]:
        """`GET /?i=<id>`: the pay page."""
        try:
            invoice = self.invoice(request.query_params.get("i", ""))
        except wire.Refused:
            return Response(pay_page.absent(wire.PARTY).encode(), status_code=404, media_type=HTML)
        text = pay_page.show(wire.bill(invoice, self.now().astimezone(UTC)))
        return Response(text.encode(), media_type=HTML, headers={"cache-control": "no-store"})

    async def press(self, request: Req) -> Response[bytes]:
        """`POST /pay/<id>`: a button of the page; a finished invoice stays as it is."""
        invoice_id = str(request.path_params["id"])
        how = (await request.form()).get("how")
        entry = self.record("request", "press", {"id": invoice_id, "how": how})
        try:
            invoice = self.invoice(invoice_id)
        except wire.Refused:
            entry.status = 404
            return Response(pay_page.absent(wire.PARTY).encode(), status_code=404, media_type=HTML)
        to = f"/?i={invoice.id}"
        if invoice.state in wire.OPEN_STATES and invoice.final_at is None:
            if how == "cancel":
                self.cancel(invoice_id)
            elif how == "less":
                half = (Decimal(invoice.remaining_amount) / 2).quantize(Decimal("0.01"), ROUND_DOWN)
                self.pay(invoice_id, wire.Payment(amount=wire.decimal_text(half)))
            else:
                self.pay(invoice_id)
                to = invoice.redirect_url or to
        entry.status, entry.answered = 303, to
        return Response(b"", status_code=303, headers={"location": to})

    async def order_payment(self, request: Req) -> Response[bytes]:
        order = msgspec.json.decode(await request.body(), type=wire.Pay)
        delivery = self.pay(order.id, order)
        sent = await delivery if order.wait else []
        return reply({"invoice": self.invoice(order.id), "callbacks": sent})

    async def plan_callbacks(self, request: Req) -> Response[bytes]:
        self.callbacks = msgspec.json.decode(await request.body(), type=wire.Callbacks)
        return reply(self.callbacks)

    async def reset_callbacks(self, request: Req) -> None:
        self.callbacks = wire.Callbacks()

    async def repeat_callback(self, request: Req) -> Response[bytes]:
        raw = await request.body()
        plan = msgspec.json.decode(raw, type=wire.Callbacks) if raw else None
        return reply(await self.send_callback(str(request.path_params["id"]), plan))

    async def show_invoices(self, request: Req) -> Response[bytes]:
        return reply([self.invoice(invoice_id) for invoice_id in self.invoices])


def accepted(told: dict[str, Any]) -> Answer:
    return Answer(200, {"error": False, "errors": []} | told)


def answered(work: Callable[[], Answer]) -> Answer:
    """The answer of `work`; a refusal is HTTP 200 too, as the real API does it."""
    try:
        return work()
    except wire.Refused as refused:
        return Answer(200, {"error": True, "errors": refused.errors})


SIMULATOR = CrystalPay
