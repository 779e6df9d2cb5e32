"""Crypto Pay on loopback: invoices, the pay page, signed webhooks with the documented number of attempts.

Tests make it misbehave through `faults` (API answers) and `callbacks` (webhooks); see `party` for the journal.
"""

import asyncio
import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from litestar import Litestar, Response, delete, get, post, put

from app.base import clock
from app.sandbox import cryptopay_wire as wire
from app.sandbox import pay_page
from app.sandbox.party import JSON, Answer, Entry, Fault, Party, Req, play, reply

JOURNAL = 2000  # entries kept
HTML = "text/html"  # Litestar adds the charset
FIRST_ID = 528_890

T = TypeVar("T")


class ApiFault(Fault, kw_only=True):
    """A fault of the API; `on` is create, info or me."""

    instead: str | None = None  # info tells about this other invoice
    # Fields of the invoices in the answer, changed at the last moment; the invoices themselves stay as they are.
    edit: dict[str, Any] = msgspec.field(default_factory=dict)


class CryptoPay(Party[ApiFault]):
    """One app at Crypto Pay.

    Units:   minute_ms is the minute of the webhook's ladder; tests and the demo shrink it.
    Shape:   callback_url is what the shop sets in @CryptoBot; public_url is how buyers reach the pay page, empty: as
             the creator of the invoice reached the API.
    """

    fault_type = ApiFault

    def __init__(
        self,
        token: str,
        *,
        callback_url: str = "",
        public_url: str = "",
        minute_ms: float = 60_000,
        now: Callable[[], datetime] = clock.now,
        keep: int = JOURNAL,
    ) -> None:
        if not token:
            raise ValueError("token must not be empty")
        super().__init__(keep)
        self.token = token
        self.callback_url = callback_url
        self.public_url = public_url.rstrip("/")
        self.minute_ms = minute_ms
        self.now = now
        self.ids = itertools.count(FIRST_ID)
        self.invoices: dict[str, wire.Invoice] = {}
        self.callbacks = wire.Callbacks()

    def invoice(self, invoice_id: str) -> wire.Invoice:
        """The invoice as it stands now: past its time it is expired if nobody paid.

        Raises: Refused when there is none.
        """
        found = self.invoices.get(invoice_id)
        if found is None:
            raise wire.Refused("INVOICE_NOT_FOUND")
        ends = found.expiration_date
        if found.status == "active" and ends is not None and wire.stamp(self.utc()) >= ends:
            found.status = "expired"
        return found

    def pay(
        self, invoice_id: str, *, amount: str | None = None, callbacks: wire.Callbacks | None = None
    ) -> asyncio.Task[list[Entry]]:
        """The invoice is paid, even past its time; the task ends when its webhooks are over.

        Another `amount` is an error of the gateway: it takes the whole or nothing. Raises: Refused for an unknown
        invoice.
        """
        invoice = self.invoice(invoice_id)
        invoice.amount = amount or invoice.amount
        wire.mark_paid(invoice, self.utc())
        return self.send_callback(invoice_id, callbacks)

    def cancel(self, invoice_id: str) -> None:
        """The buyer gave up: the invoice is expired. Crypto Pay has no webhook about that."""
        self.invoice(invoice_id).status = "expired"

    def send_callback(self, invoice_id: str, plan: wire.Callbacks | None = None) -> asyncio.Task[list[Entry]]:
        """Webhooks about the invoice go out until one is answered with 200; the task's result is one entry per post.

        Raises: Refused for an unknown invoice.
        """
        return self.spawn(self._deliver(self.invoice(invoice_id), plan or self.callbacks))

    async def _deliver(self, invoice: wire.Invoice, plan: wire.Callbacks) -> list[Entry]:
        sent: list[Entry] = []
        if not self.callback_url:
            return sent
        await asyncio.sleep(plan.delay_ms / 1000)
        for attempt in range(1, wire.ATTEMPTS + 1):
            body, headers = wire.webhook(invoice, plan, self.token, self.utc())
            posts = (self._post(body, headers, lost=attempt <= plan.drop) for _ in range(plan.copies))
            round_ = await asyncio.gather(*posts)
            sent += round_
            if any(entry.status == 200 for entry in round_):
                break
            if attempt < wire.ATTEMPTS:
                await asyncio.sleep(attempt * wire.GAP_MINUTES * self.minute_ms / 1000)
        return sent

    async def _post(self, body: bytes, headers: dict[str, str], *, lost: bool) -> Entry:
        entry = self.record("callback", self.callback_url, msgspec.json.decode(body))
        if lost:
            entry.error = "dropped"
            return entry
        return await self.call(entry, self.callback_url, body, headers)

    def utc(self) -> datetime:
        return self.now().astimezone(UTC)

    def app(self) -> Litestar:
        """The API, the pay page and the control surface as one ASGI app."""
        both = (get, post)
        return self.litestar(
            [
                *(method("/api/createInvoice", status_code=200)(self.create) for method in both),
                *(method("/api/getInvoices", status_code=200)(self.info) for method in both),
                *(method("/api/getMe", status_code=200)(self.me) for method in both),
                get(["/", "/app", "/invoices/{hash:str}"])(self.page),
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
        """`createInvoice`."""

        def work(given: dict[str, Any], fault: ApiFault | None) -> Any:
            wanted = decoded(given, wire.Create)
            base = self.public_url or str(request.base_url).rstrip("/")
            made = wire.invoice_from(wanted, next(self.ids), base, self.utc())
            self.invoices[str(made.invoice_id)] = made
            return told(made, fault)

        return await self.answer(request, "create", work)

    async def info(self, request: Req) -> Response[bytes]:
        """`getInvoices`."""

        def work(given: dict[str, Any], fault: ApiFault | None) -> Any:
            wanted = decoded(given, wire.Find)
            ids = wanted.invoice_ids.split(",") if wanted.invoice_ids is not None else list(self.invoices)
            if fault and fault.instead:
                ids = [fault.instead]
            found = [self.invoice(id_) for id_ in ids if id_ in self.invoices]
            asked = {name: getattr(wanted, name) for name in ("asset", "fiat", "status")}
            fits = [one for one in found if all(value in (None, getattr(one, name)) for name, value in asked.items())]
            return {"items": [told(one, fault) for one in fits[wanted.offset :][: wanted.count]]}

        return await self.answer(request, "info", work)

    async def me(self, request: Req) -> Response[bytes]:
        """`getMe`."""
        app = {"app_id": 1, "name": "Sandbox", "payment_processing_bot_username": "CryptoBot"}
        return await self.answer(request, "me", lambda given, fault: app)

    async def answer(
        self, request: Req, on: str, work: Callable[[dict[str, Any], ApiFault | None], Any]
    ) -> Response[bytes]:
        """What `work` makes of the request's parameters, or its refusal, in Crypto Pay's envelope."""
        given = await parameters(request)
        entry = self.record("request", on, given)
        fault = self.take_fault(on)

        def enveloped() -> Answer:
            try:
                if request.headers.get("crypto-pay-api-token", "").encode() != self.token.encode():
                    raise wire.Refused("UNAUTHORIZED", 401)
                return Answer(200, {"ok": True, "result": work(given, fault)})
            except wire.Refused as refused:
                return Answer(refused.code, {"ok": False, "error": {"code": refused.code, "name": refused.name}})

        return await play(request, entry, fault, enveloped)

    async def page(self, request: Req) -> Response[bytes]:
        """The pay page, under the addresses of the bot, the Mini App and the web."""
        query = request.query_params
        spelt = request.path_params.get("hash") or query.get("start") or query.get("startapp", "")
        hash_ = str(spelt).removeprefix("invoice-")
        for invoice_id, invoice in self.invoices.items():
            if invoice.hash == hash_:
                text = pay_page.show(wire.bill(self.invoice(invoice_id), self.utc()))
                return Response(text.encode(), media_type=HTML, headers={"cache-control": "no-store"})
        return Response(pay_page.absent(wire.PARTY).encode(), status_code=404, media_type=HTML)

    async def press(self, request: Req) -> Response[bytes]:
        """`POST /pay/<invoice id>`: a button of the page; a finished invoice stays as it is."""
        invoice_id = str(request.path_params["id"])
        how = (await request.form()).get("how")
        entry = self.record("request", "press", {"id": invoice_id, "how": how})
        try:
            invoice = self.invoice(invoice_id)
        except wire.Refused:
            entry.status = 404
            return Response(pay_page.absent(wire.PARTY).encode(), status_code=404, media_type=HTML)
        to = f"/invoices/{invoice.hash}"
        if invoice.status == "active" and how == "cancel":
            self.cancel(invoice_id)
        elif invoice.status == "active" and how == "pay":
            self.pay(invoice_id)
            to = invoice.paid_btn_url or to
        entry.status, entry.answered = 303, to
        return Response(b"", status_code=303, headers={"location": to})

    async def order_payment(self, request: Req) -> Response[bytes]:
        order = msgspec.json.decode(await request.body(), type=wire.Pay)
        delivery = self.pay(order.id, amount=order.amount, callbacks=order.callbacks)
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
        """What the shop sets by hand in @CryptoBot."""
        cabinet = msgspec.json.decode(await request.body(), type=wire.Cabinet)
        self.callback_url = cabinet.callback_url
        return reply(cabinet)

    async def show_invoices(self, request: Req) -> Response[bytes]:
        return reply([self.invoice(invoice_id) for invoice_id in self.invoices])


async def parameters(request: Req) -> dict[str, Any]:
    """The query, a form, or a JSON object: Crypto Pay takes each."""
    given: dict[str, Any] = dict(request.query_params)
    raw = await request.body()
    if request.headers.get("content-type", "").startswith(JSON):
        try:
            body = msgspec.json.decode(raw) if raw else {}
        except msgspec.DecodeError:
            body = None
        return given | body if isinstance(body, dict) else given
    return given | dict(await request.form())


def decoded(given: dict[str, Any], shape: type[T]) -> T:
    """The parameters as `shape`. Raises: Refused."""
    try:
        return msgspec.convert(given, shape, strict=False)
    except msgspec.ValidationError as error:
        raise wire.Refused(f"PARAMETER_INVALID: {error}") from None


def told(invoice: wire.Invoice, fault: ApiFault | None) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(invoice)
    return fields | (fault.edit if fault else {})


SIMULATOR = CryptoPay
