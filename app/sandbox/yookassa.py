"""YooKassa v3 on loopback: payments, refunds, the pay page, notifications with retries for a day.

Tests make it misbehave through `faults` (API answers) and `callbacks` (notifications); see `party` for the journal.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import Litestar, Response, delete, get, post, put

from app.base import clock
from app.sandbox import pay_page
from app.sandbox import yookassa_wire as wire
from app.sandbox.party import Answer, Entry, Fault, Party, Req, play, reply
from app.sandbox.yookassa_book import Book

Work = Callable[[bytes, "ApiFault | None"], Any]

JOURNAL = 2000  # entries kept
HTML = "text/html"  # Litestar adds the charset
PAGE = "/checkout/payments/v2/contract"


class ApiFault(Fault, kw_only=True):
    """A fault of the API; `on` is create, info, refund, refunds (the list) or refund_info."""

    id: str | None = None  # info, refund_info: only about this one; refunds: of this payment
    instead: str | None = None  # info tells about this other payment
    # Fields of the answer, changed at the last moment; the object itself stays as it is.
    edit: dict[str, Any] = msgspec.field(default_factory=dict)


class YooKassa(Party[ApiFault]):
    """One shop at YooKassa.

    Units:   minute_ms is the first wait of the retry ladder; tests and the demo shrink it.
    Shape:   public_url is how buyers reach the pay page; empty: as the creator of the payment reached the API.
             callback_url is what the merchant wrote into his cabinet; empty: nobody is notified.
    """

    fault_type = ApiFault

    def __init__(
        self,
        shop_id: str,
        secret_key: str,
        *,
        public_url: str = "",
        callback_url: str = "",
        test: bool = False,
        currency: str = "RUB",
        minute_ms: float = 60_000,
        now: Callable[[], datetime] = clock.now,
        keep: int = JOURNAL,
    ) -> None:
        if not (shop_id and secret_key):
            raise ValueError("shop_id and secret_key must not be empty")
        super().__init__(keep)
        self.authorization = wire.basic(shop_id, secret_key).encode()
        self.public_url, self.callback_url = public_url.rstrip("/"), callback_url
        self.minute_ms, self.now = minute_ms, now
        self.book = Book(shop_id, currency, now, test=test)
        self.refunds_are: wire.RefundStatus = "succeeded"  # what becomes of those asked for over the API
        self.callbacks = wire.Callbacks()

    def invoice(self, invoice_id: str) -> wire.Payment:
        """The payment as it stands now. Raises: Refused when there is none."""
        return self.book.payment(invoice_id)

    def pay(self, invoice_id: str, buying: wire.Buying | None = None) -> asyncio.Task[list[Entry]]:
        """The payment is paid as told, whatever its status; the task ends when its notifications are over.

        Raises: Refused for an unknown payment or field.
        """
        buying = buying or wire.Buying()
        self.book.pay(self.invoice(invoice_id), buying)
        return self.send_callback(invoice_id, buying.callbacks)

    def cancel(self, invoice_id: str) -> asyncio.Task[list[Entry]]:
        """The payment came to nothing, and a notification says so. Raises: Refused when there is none."""
        self.book.cancel(self.invoice(invoice_id).id, "payment_network", "general_decline")
        return self.send_callback(invoice_id)

    def refund(self, invoice_id: str, amount: str | None = None) -> asyncio.Task[list[Entry]]:
        """Money goes back as the merchant's cabinet or a chargeback does it; a notification says so.

        Raises: Refused for what the payment cannot give back.
        """
        left = wire.text(self.book.left(self.invoice(invoice_id)))
        wanted = wire.CreateRefund(payment_id=invoice_id, amount=wire.Amount(amount or left, self.book.currency))
        return self._tell(self.book.refund(wanted, "succeeded"))

    def finish_refund(self, refund_id: str, status: wire.RefundStatus) -> asyncio.Task[list[Entry]]:
        """A refund that was pending ends."""
        refund = self.book.refunds[refund_id]
        self.book.finish(refund, status)
        return self._tell(refund)

    def _tell(self, refund: wire.Refund) -> asyncio.Task[list[Entry]]:
        """Only a refund that succeeded is notified of."""
        done = refund.status == "succeeded"
        body = wire.notification("refund.succeeded", refund, self.callbacks) if done else None
        return self.spawn(self._deliver(body, self.callbacks))

    def send_callback(self, invoice_id: str, plan: wire.Callbacks | None = None) -> asyncio.Task[list[Entry]]:
        """A notification about the payment goes out until it is accepted; the result is one entry per post.

        Raises: Refused for an unknown payment, or a refund's event of a payment that has no refund.
        """
        plan = plan or self.callbacks
        payment = self.invoice(invoice_id)
        event = plan.event or f"payment.{payment.status}"
        told: wire.Payment | wire.Refund = payment
        if event.startswith("refund."):
            refunds = self.book.refunds_of(invoice_id)
            if not refunds:
                raise wire.Refused(400, "invalid_request", "The payment has no refund")
            told = refunds[-1]
        if event == "payment.pending":
            return self.spawn(self._deliver(None, plan))  # there is no such event
        return self.spawn(self._deliver(wire.notification(event, told, plan), plan))

    async def _deliver(self, body: dict[str, Any] | None, plan: wire.Callbacks) -> list[Entry]:
        sent: list[Entry] = []
        url = self.callback_url
        if not url or body is None:
            return sent
        await asyncio.sleep(plan.delay_ms / 1000)
        for attempt in range(1, wire.NOTIFICATIONS + 1):
            round_ = await asyncio.gather(*(self._post(url, body, attempt <= plan.drop) for _ in range(plan.copies)))
            sent += round_
            if any(entry.status == 200 for entry in round_):  # no other status is accepted (using-api/webhooks)
                break
            if attempt < wire.NOTIFICATIONS:
                await asyncio.sleep(2 ** (attempt - 1) * self.minute_ms / 1000)
        return sent

    async def _post(self, url: str, body: dict[str, Any], lost: bool) -> Entry:
        entry = self.record("callback", url, body)
        if lost:
            entry.error = "dropped"
            return entry
        return await self.call(entry, url, msgspec.json.encode(body))

    def app(self) -> Litestar:
        """The API, the pay page and the control surface as one ASGI app."""
        return self.litestar(
            [
                post("/v3/payments", status_code=200)(self.create),
                get("/v3/payments/{id:str}")(self.info),
                post("/v3/refunds", status_code=200)(self.create_refund),
                get("/v3/refunds")(self.list_refunds),
                get("/v3/refunds/{id:str}")(self.refund_info),
                get(PAGE)(self.page),
                post("/pay/{id:str}")(self.press),
                post("/sandbox/pay")(self.order_payment),
                post("/sandbox/refund")(self.order_refund),
                put("/sandbox/cabinet")(self.set_cabinet),
                put("/sandbox/callbacks")(self.plan_callbacks),
                delete("/sandbox/callbacks")(self.reset_callbacks),
                post("/sandbox/callbacks/{id:str}")(self.repeat_callback),
                get("/sandbox/invoices")(self.show_invoices),
            ],
            bad_order=wire.Refused,
        )

    async def create(self, request: Req) -> Response[bytes]:
        """`POST /v3/payments`."""
        base = self.public_url or str(request.base_url).rstrip("/")

        def work(raw: bytes, _: ApiFault | None) -> wire.Payment:
            return self.book.open(wire.decode(raw, wire.Create), f"{base}{PAGE}?orderId=")

        return await self._serve(request, "create", work)

    async def info(self, request: Req) -> Response[bytes]:
        """`GET /v3/payments/<id>`."""
        asked = str(request.path_params["id"])

        def work(_: bytes, fault: ApiFault | None) -> wire.Payment:
            return self.invoice(fault.instead if fault and fault.instead else asked)

        return await self._serve(request, "info", work, asked)

    async def create_refund(self, request: Req) -> Response[bytes]:
        """`POST /v3/refunds`; one that succeeds is notified of, like any other."""

        def work(raw: bytes, _: ApiFault | None) -> wire.Refund:
            made = self.book.refund(wire.decode(raw, wire.CreateRefund), self.refunds_are)
            self._tell(made)
            return made

        return await self._serve(request, "refund", work)

    async def list_refunds(self, request: Req) -> Response[bytes]:
        """`GET /v3/refunds?payment_id=<id>`; the other filters are not played."""
        query = request.query_params
        asked, limit = query.get("payment_id", "*"), query.get("limit", "10")

        def work(_: bytes, __: ApiFault | None) -> dict[str, Any]:
            return wire.listed(self.book.refunds_of(asked), limit)

        return await self._serve(request, "refunds", work, asked)

    async def refund_info(self, request: Req) -> Response[bytes]:
        """`GET /v3/refunds/<id>`."""
        asked = str(request.path_params["id"])

        def work(_: bytes, __: ApiFault | None) -> wire.Refund:
            if asked not in self.book.refunds:
                raise wire.Refused(404, "not_found", "There is no such refund", "refund_id")
            return self.book.refunds[asked]

        return await self._serve(request, "refund_info", work, asked)

    async def _serve(self, request: Req, on: str, work: Work, asked: str | None = None) -> Response[bytes]:
        """The answer of `work` to the shop's owner; a POST is done once per idempotence key."""
        raw = await request.body()
        key = request.headers.get("idempotence-key", "")
        given = {"id": asked} if asked else {"key": key, "body": wire.shown(raw)}
        entry = self.record("request", on, given)
        fault = self.take_fault(on, lambda fault: fault.id in (None, asked))

        def answer() -> Answer:
            try:
                if request.headers.get("authorization", "").encode("latin-1") != self.authorization:
                    raise wire.Refused(401, "invalid_credentials", "Wrong shop or key", "Authorization")
                told = work(raw, fault) if asked else self.book.once(key, (on, given), lambda: work(raw, fault))
                return Answer(200, msgspec.to_builtins(told) | (fault.edit if fault else {}))
            except wire.Refused as refused:
                return refused.answer()

        return await play(request, entry, fault, answer)

    async def page(self, request: Req) -> Response[bytes]:
        """The pay page, where `confirmation_url` leads."""
        try:
            payment = self.invoice(request.query_params.get("orderId", ""))
        except wire.Refused:
            return Response(pay_page.absent(wire.PARTY).encode(), status_code=404, media_type=HTML)
        text = pay_page.show(wire.bill(payment, self.book.terms[payment.id], self.now().astimezone(UTC)))
        return Response(text.encode(), media_type=HTML, headers={"cache-control": "no-store"})

    async def press(self, request: Req) -> Response[bytes]:
        """`POST /pay/<id>`: a button of the page; a finished payment stays as it is."""
        payment_id = str(request.path_params["id"])
        how = (await request.form()).get("how")
        entry = self.record("request", "press", {"id": payment_id, "how": how})
        try:
            payment = self.invoice(payment_id)
        except wire.Refused:
            entry.status = 404
            return Response(pay_page.absent(wire.PARTY).encode(), status_code=404, media_type=HTML)
        to = f"{PAGE}?orderId={payment_id}"
        if payment.status == "pending" and how == "cancel":
            self.cancel(payment_id)
        elif payment.status == "pending" and how == "pay":
            self.pay(payment_id)
            to = self.book.terms[payment_id].return_url
        entry.status, entry.answered = 303, to
        return Response(b"", status_code=303, headers={"location": to})

    async def order_payment(self, request: Req) -> Response[bytes]:
        order = msgspec.json.decode(await request.body(), type=wire.Pay)
        delivery = self.pay(order.id, order)
        sent = await delivery if order.wait else []
        return reply({"invoice": self.invoice(order.id), "callbacks": sent})

    async def order_refund(self, request: Req) -> Response[bytes]:
        order = msgspec.json.decode(await request.body(), type=wire.GiveBack)
        self.refund(order.id, order.amount)
        return reply({"invoice": self.invoice(order.id)})

    async def set_cabinet(self, request: Req) -> Response[bytes]:
        cabinet = msgspec.json.decode(await request.body(), type=wire.Cabinet)
        self.callback_url = cabinet.callback_url
        return reply(cabinet)

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
        return reply([self.invoice(payment_id) for payment_id in self.book.payments])


SIMULATOR = YooKassa
