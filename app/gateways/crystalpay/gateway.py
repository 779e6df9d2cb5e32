"""CrystalPay v3. Its signature covers the invoice id alone, so nothing is granted before a re-fetch."""

import hashlib
from collections.abc import Mapping

import httpx

from app.errors import BadSignature
from app.gateways.base import Ask, Invoice, InvoiceState, Notice
from app.gateways.crystalpay import wire
from app.infra.http import post_json
from app.infra.secrets import same


class CrystalPay:
    """One cash desk."""

    name = "crystalpay"

    def __init__(self, http: httpx.AsyncClient, url: str, *, login: str, secret: str, salt: str) -> None:
        self.http, self.url = http, url.rstrip("/")
        self.login, self.secret, self.salt = login, secret, salt

    async def create(self, ask: Ask) -> Invoice:
        body = wire.create_body(ask, self.login, self.secret)
        return wire.read_created(await self._post("/v3/invoice/create/", body))

    def verify(self, body: bytes, headers: Mapping[str, str]) -> Notice:
        notice, signature = wire.read_notice(body)
        if not same(signature.encode(), self.sign(notice.invoice_id).encode()):
            raise BadSignature("the signature is wrong")
        return notice

    async def fetch(self, invoice_id: str) -> InvoiceState:
        body = wire.info_body(invoice_id, self.login, self.secret)
        return wire.read_state(await self._post("/v3/invoice/info/", body), invoice_id)

    def sign(self, invoice_id: str) -> str:
        """Lower-case hex of SHA-1 over `id:salt`; CrystalPay's own choice of hash, which a re-fetch makes good."""
        return hashlib.sha1(f"{invoice_id}:{self.salt}".encode()).hexdigest()  # noqa: S324

    async def _post(self, path: str, body: bytes) -> bytes:
        return await post_json(self.http, self.url + path, body, party=wire.PARTY)
