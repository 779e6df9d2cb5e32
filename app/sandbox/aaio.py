"""AAIO on loopback: orders, the pay page, one signed notification for each that is paid.

Tests make it misbehave through `faults` (API answers) and `callbacks` (notifications); see `party` for the journal.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from litestar import Litestar, Response, delete, get, post, put

from app.base import clock
from app.sandbox import aaio_wire as wire
from app.sandbox import pay_page
from app.sandbox.party import Answer, Entry, Fault, Party, Req, play, reply

JOURNAL = 2000  # entries kept
HTML = "text/html"  # Litestar adds the charset
LIFETIME_S = 12 * 3600  # of an order; the shop's setting at AAIO, no request carries it


class ApiFault(Fault, kw_only=True):
    """A fault of the API; `on` is create or info."""

    id: str | None = None  # info: only about this order
    instead: str | None = None  # info tells about this other order
    # Fields of the answer, changed at the last moment; the order itself stays as it is.
    edit: dict[str, Any] = msgspec.field(default_factory=dict)


class Aaio(Party[ApiFault]):
    """One merchant at AAIO. Its invoices are orders, under the shop's own ids.

    Shape:   callback_url and return_url are the cabinet's; public_url is how buyers reach the pay page, empty: as the
             creator of the order reached the API.
    """

    fault_type = ApiFault

    def __init__(
        self,
        merchant_id: str,
        api_key: str,
        secret_1: str,
        secret_2: str,
        *,
        callback_url: str = "",
        return_url: str = "",
        public_url: str = "",
        lifetime_s: int = LIFETIME_S,
        now: Callable[[], datetime] = clock.now,
        keep: int = JOURNAL,
    ) -> None:
        if not (merchant_id and api_key and secret_1 and secret_2):
            raise ValueError("merchant_id, api_key, secret_1 and secret_2 must not be empty")
        super().__init__(keep)
        self.merchant_id, self.api_key = merchant_id, api_key
        self.secret_1, self.secret_2 = secret_1, secret_2
        self.callback_url, self.return_url = callback_url, return_url
        self.public_url = public_url.rstrip("/")
        self.lifetime_s = lifetime_s
        self.now = now
        self.orders: dict[str, wire.Order] = {}
        self.callbacks = wire.Callbacks()

    def invoice(self, invoice_id: str) -> wire.Order:
        """The order as it stands now: past its time it is expired if nobody paid.

        Raises: Refused when there is none.
        """
        found = self.orders.get(invoice_id)
        if found is None:
            raise wire.Refused("order_id: no such order")
        if found.status == "in_process" and self.stamp() >= found.expired_date:
            found.status = "expired"
        return found

    def pay(
        self,
        invoice_id: str,
        *,
        amount: str | None = None,
        status: Literal["success", "hold"] = "success",
        callbacks: wire.Callbacks | None = None,
    ) -> asyncio.Task[list[Entry]]:
        """The order is paid, even past its time; the task ends when the notification is delivered or lost.

        Another `amount` is an error of the gateway: it takes the whole or nothing. Raises: Refused for an unknown
        order.
        """
        order = self.invoice(invoice_id)
        order.status, order.complete_date = status, self.stamp()
        order.method = order.method or "sandbox"
        if amount is not None:
            order.amount = amount
            order.profit, order.commission = wire.shares(amount, order.currency)
        return self.send_callback(invoice_id, callbacks)

    def cancel(self, invoice_id: str) -> None:
        """The buyer gave up: the order is expired. AAIO notifies of payments only."""
        self.invoice(invoice_id).status = "expired"

    def send_callback(self, invoice_id: str, plan: wire.Callbacks | None = None) -> asyncio.Task[list[Entry]]:
        """The notification goes out, once; the task's result is one entry per copy.

        Raises: Refused for an unknown order.
        """
        return self.spawn(self._deliver(self.invoice(invoice_id), plan or self.callbacks))

    async def _deliver(self, order: wire.Order, plan: wire.Callbacks) -> list[Entry]:
        if not self.callback_url:
            return []
        form = wire.notification(order, plan, self.secret_1, self.secret_2)
        await asyncio.sleep(plan.delay_ms / 1000)
        return await asyncio.gather(*(self._post(form, lost=plan.drop > 0) for _ in range(plan.copies)))

    async def _post(self, form: dict[str, str], *, lost: bool) -> Entry:
        entry = self.record("callback", self.callback_url, form)
        if lost:
            entry.error = "dropped"
            return entry
        return await self.call(entry, self.callback_url, wire.form_bytes(form), {"content-type": wire.FORM})

    def stamp(self) -> str:
        return self.now().astimezone(UTC).strftime(wire.TIME)

    def app(self) -> Litestar:
        """The API, the pay page and the control surface as one ASGI app."""
        return self.litestar(
            [
                post("/merchant/get_pay_url", status_code=200)(self.create),
                post("/api/info-pay", status_code=200)(self.info),
                get("/pay/{id:str}")(self.page),
                post("/pay/{id:str}")(self.press),
                post("/sandbox/pay")(self.order_payment),
                put("/sandbox/callbacks")(self.plan_callbacks),
                delete("/sandbox/callbacks")(self.reset_callbacks),
                post("/sandbox/callbacks/{id:str}")(self.repeat_callback),
                put("/sandbox/cabinet")(self.set_cabinet),
                get("/sandbox/invoices")(self.show_invoices),
            ],
            bad_order=wire.Refused,
        )

    async def create(self, request: Req) -> Response[bytes]:
        """`POST /merchant/get_pay_url`."""
        given = wire.fields(await request.body())
        entry = self.record("request", "create", given)
        fault = self.take_fault("create")

        def work() -> dict[str, Any]:
            check_headers(request)
            now = self.now().astimezone(UTC)
            order = wire.order_from(given, self.merchant_id, self.secret_1, now, self.lifetime_s)
            earlier = self.orders.setdefault(order.order_id, order)
            if (earlier.status, earlier.amount, earlier.currency) != ("in_process", order.amount, order.currency):
                raise wire.Refused("order_id: used before")
            base = self.public_url or str(request.base_url).rstrip("/")
            return {"url": f"{base}/pay/{order.order_id}"}

        return await play(request, entry, fault, lambda: answered(work, fault))

    async def info(self, request: Req) -> Response[bytes]:
        """`POST /api/info-pay`."""
        given = wire.fields(await request.body())
        entry = self.record("request", "info", given)
        fault = self.take_fault("info", lambda fault: fault.id in (None, given.get("order_id")))

        def work() -> dict[str, Any]:
            check_headers(request)
            if request.headers.get("x-api-key", "").encode() != self.api_key.encode():
                raise wire.Refused("X-Api-Key: wrong key", 401)
            if given.get("merchant_id") != self.merchant_id:
                raise wire.Refused("merchant_id: no such merchant")
            return wire.told(self.invoice(fault.instead if fault and fault.instead else given.get("order_id", "")))

        return await play(request, entry, fault, lambda: answered(work, fault))

    async def page(self, request: Req) -> Response[bytes]:
        """`GET /pay/<order id>`: the pay page."""
        try:
            order = self.invoice(str(request.path_params["id"]))
        except wire.Refused:
            return Response(pay_page.absent(wire.PARTY).encode(), status_code=404, media_type=HTML)
        text = pay_page.show(wire.bill(order, self.now().astimezone(UTC), self.return_url))
        return Response(text.encode(), media_type=HTML, headers={"cache-control": "no-store"})

    async def press(self, request: Req) -> Response[bytes]:
        """`POST /pay/<order id>`: a button of the page; a finished order stays as it is."""
        invoice_id = str(request.path_params["id"])
        how = (await request.form()).get("how")
        entry = self.record("request", "press", {"id": invoice_id, "how": how})
        try:
            order = self.invoice(invoice_id)
        except wire.Refused:
            entry.status = 404
            return Response(pay_page.absent(wire.PARTY).encode(), status_code=404, media_type=HTML)
        to = f"/pay/{order.order_id}"
        if order.status == "in_process" and how == "cancel":
            self.cancel(invoice_id)
        elif order.status == "in_process" and how == "pay":
            self.pay(invoice_id)
            to = self.return_url or to
        entry.status, entry.answered = 303, to
        return Response(b"", status_code=303, headers={"location": to})

    async def order_payment(self, request: Req) -> Response[bytes]:
        order = msgspec.json.decode(await request.body(), type=wire.Pay)
        delivery = self.pay(order.id, amount=order.amount, status=order.status, callbacks=order.callbacks)
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

    async def set_cabinet(self, request: Req) -> Response[bytes]:
        """What the shop sets by hand at AAIO."""
        cabinet = msgspec.json.decode(await request.body(), type=wire.Cabinet)
        self.callback_url, self.return_url = cabinet.callback_url, cabinet.return_url
        return reply(cabinet)

    async def show_invoices(self, request: Req) -> Response[bytes]:
        return reply([self.invoice(invoice_id) for invoice_id in self.orders])


def check_headers(request: Req) -> None:
    """Raises: Refused without the two headers that AAIO calls obligatory."""
    media = request.headers.get("content-type", "").partition(";")[0]
    if media != wire.FORM or request.headers.get("accept") != "application/json":
        raise wire.Refused("headers: Accept: application/json and a urlencoded form are obligatory")


def answered(work: Callable[[], dict[str, Any]], fault: ApiFault | None) -> Answer:
    """What `work` tells, or its refusal, in AAIO's envelope."""
    try:
        return Answer(200, {"type": "success"} | work() | (fault.edit if fault else {}))
    except wire.Refused as refused:
        return Answer(refused.status, {"type": "error", "code": refused.status, "message": str(refused)})


SIMULATOR = Aaio
