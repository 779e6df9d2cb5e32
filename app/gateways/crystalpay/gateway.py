"""CrystalPay v3. Its signature covers the invoice id alone, so nothing is granted before a re-fetch."""

import hashlib
from typing import Annotated

import httpx
import msgspec
from msgspec import Meta

from app.base.money import MINOR_DIGITS, Money
from app.errors import BadSignature
from app.gateways.base import Ask, Callback, Invoice, InvoiceState, Notice, Refunded, RefundRefused, Traits
from app.gateways.crystalpay import wire
from app.infra.http import post_json
from app.infra.secrets import same


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """One cash desk."""

    login: Annotated[str, Meta(description="CrystalPay cash desk")] = ""
    secret: Annotated[str, Meta(description="CrystalPay secret 1 (API)")] = ""
    salt: Annotated[str, Meta(description="CrystalPay secret 2 (callback signature)")] = ""
    url: Annotated[str, Meta(description="CrystalPay API")] = "https://api.crystalpay.io"


class CrystalPay:
    """One cash desk."""

    name = "crystalpay"
    traits = Traits(
        signs_amount=False,
        retries=True,  # ten times within 45 minutes
        refunds=False,
        polls_per_minute=120,  # of about 300 that its API takes
        currencies=frozenset(MINOR_DIGITS),
    )
    settings = Config

    def __init__(self, config: Config, http: httpx.AsyncClient) -> None:
        self.http, self.url = http, config.url.rstrip("/")
        self.login, self.secret, self.salt = config.login, config.secret, config.salt

    async def create(self, ask: Ask) -> Invoice:
        body = wire.create_body(ask, self.login, self.secret)
        return wire.read_created(await self._post("/v3/invoice/create/", body))

    def verify(self, callback: Callback) -> Notice:
        notice, signature = wire.read_notice(callback.body)
        if not same(signature.encode(), self.sign(notice.invoice_id).encode()):
            raise BadSignature("the signature is wrong")
        return notice

    async def fetch(self, invoice_id: str) -> InvoiceState:
        body = wire.info_body(invoice_id, self.login, self.secret)
        return wire.read_state(await self._post("/v3/invoice/info/", body), invoice_id)

    async def refund(self, invoice_id: str, money: Money, key: str) -> Refunded:
        raise RefundRefused(f"{wire.PARTY} has no refunds over its API")

    def sign(self, invoice_id: str) -> str:
        """Lower-case hex of SHA-1 over `id:salt`; CrystalPay's own choice of hash, which a re-fetch makes good."""
        return hashlib.sha1(f"{invoice_id}:{self.salt}".encode()).hexdigest()  # noqa: S324

    async def _post(self, path: str, body: bytes) -> bytes:
        return await post_json(self.http, self.url + path, body, party=wire.PARTY)


GATEWAY = CrystalPay
