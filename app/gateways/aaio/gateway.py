"""AAIO. Its notification comes once and proves order, amount and currency; what is lost on the way is polled."""

from collections.abc import Mapping
from typing import Annotated

import httpx
import msgspec
from msgspec import Meta

from app.base.money import Money
from app.errors import BadSignature
from app.gateways.aaio import wire
from app.gateways.base import Ask, Callback, Invoice, InvoiceState, Notice, Refunded, RefundRefused, Traits
from app.infra.http import Answer, call
from app.infra.secrets import same

FORM = "application/x-www-form-urlencoded"
HEADERS = {"Accept": "application/json", "Content-Type": FORM}  # AAIO wants both


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """One merchant."""

    merchant_id: Annotated[str, Meta(description="AAIO merchant id")] = ""
    # A header can hold no other characters.
    api_key: Annotated[str, Meta(pattern="^[!-~]*$", description="AAIO API key with the right to order details")] = ""
    secret_1: Annotated[str, Meta(description="AAIO secret 1 (orders)")] = ""
    secret_2: Annotated[str, Meta(description="AAIO secret 2 (notifications)")] = ""
    url: Annotated[str, Meta(description="AAIO API server")] = "https://aaio.so"


class Aaio:
    """One merchant.

    The notification address (<TORG_PUBLIC_URL>/api/webhook/payment/aaio) and the buyer's way back are set in its
    cabinet: no request carries them.
    """

    name = "aaio"
    traits = Traits(
        signs_amount=True,
        retries=False,  # one notification; another only by hand in the cabinet
        refunds=False,
        polls_per_minute=60,  # no quota is published: a cautious guess
        currencies=wire.CURRENCIES,
        media=FORM,
    )
    settings = Config

    def __init__(self, config: Config, http: httpx.AsyncClient) -> None:
        self.http, self.url = http, config.url.rstrip("/")
        self.merchant_id, self.api_key = config.merchant_id, config.api_key
        self.secret_1, self.secret_2 = config.secret_1, config.secret_2

    async def create(self, ask: Ask) -> Invoice:
        form = wire.create_form(ask, self.merchant_id, self.secret_1)
        return wire.read_created(await self._post("/merchant/get_pay_url", form), ask)

    def verify(self, callback: Callback) -> Notice:
        told = wire.read_notification(callback.body)
        expected = wire.sign(told.merchant_id, told.amount, told.currency, self.secret_2, told.order_id)
        if not same(told.sign.encode(), expected.encode()):
            raise BadSignature("the signature is wrong")
        if told.merchant_id != self.merchant_id:
            raise BadSignature("the notification is for another merchant")
        return wire.read_notice(told)

    async def fetch(self, invoice_id: str) -> InvoiceState:
        form = wire.info_form(self.merchant_id, invoice_id)
        answer = await self._post("/api/info-pay", form, {"X-Api-Key": self.api_key})
        return wire.read_state(answer, self.merchant_id, invoice_id)

    async def refund(self, invoice_id: str, money: Money, key: str) -> Refunded:
        raise RefundRefused(f"{wire.PARTY} has no refunds over its API")

    async def _post(self, path: str, form: bytes, headers: Mapping[str, str] = {}) -> Answer:
        return await call(
            self.http, "POST", self.url + path, party=wire.PARTY, body=form, headers={**HEADERS, **headers}
        )


GATEWAY = Aaio
