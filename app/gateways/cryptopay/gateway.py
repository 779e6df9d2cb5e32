"""Crypto Pay (@CryptoBot): the buyer pays in coins what the order costs in money; its signature covers all it says."""

from typing import Annotated
from urllib.parse import urlencode

import httpx
import msgspec
from msgspec import Meta

from app.base.money import Money
from app.errors import BadSignature
from app.gateways.base import Ask, Callback, Invoice, InvoiceState, Notice, Refunded, RefundRefused, Traits
from app.gateways.cryptopay import wire
from app.infra.http import JSON, call
from app.infra.secrets import same

SIGNATURE = "crypto-pay-api-signature"
TOKEN = "Crypto-Pay-API-Token"  # noqa: S105 (a header's name)


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """One app."""

    # A header can hold no other characters.
    token: Annotated[str, Meta(pattern="^[!-~]*$", description="Crypto Pay app token, from @CryptoBot")] = ""
    url: Annotated[str, Meta(description="Crypto Pay API; https://testnet-pay.crypt.bot for tests")] = (
        "https://pay.crypt.bot"
    )


class CryptoPay:
    """One app. Its callback address (<TORG_PUBLIC_URL>/api/webhook/payment/cryptopay) is set in @CryptoBot."""

    name = "cryptopay"
    traits = Traits(
        signs_amount=True,
        retries=True,  # 17 times within three days (API 1.5.2); after that it turns the app's callbacks off
        refunds=False,  # a transfer to a Telegram user is not one: it names no invoice
        polls_per_minute=60,  # no quota is published: a cautious guess
        currencies=wire.CURRENCIES,
    )
    settings = Config

    def __init__(self, config: Config, http: httpx.AsyncClient) -> None:
        self.http, self.url, self.token = http, config.url.rstrip("/"), config.token

    async def create(self, ask: Ask) -> Invoice:
        headers = {TOKEN: self.token, **JSON}
        url = f"{self.url}/api/createInvoice"
        body = wire.create_body(ask)
        return wire.read_created(await call(self.http, "POST", url, party=wire.PARTY, body=body, headers=headers))

    def verify(self, callback: Callback) -> Notice:
        signature = callback.headers.get(SIGNATURE, "")
        if not signature:
            raise BadSignature("the signature is missing")
        if not same(signature.encode(), wire.sign(callback.body, self.token).encode()):
            raise BadSignature("the signature is wrong")
        return wire.read_notice(callback.body)

    async def fetch(self, invoice_id: str) -> InvoiceState:
        url = f"{self.url}/api/getInvoices?{urlencode({'invoice_ids': invoice_id})}"
        answer = await call(self.http, "GET", url, party=wire.PARTY, headers={TOKEN: self.token})
        return wire.read_state(answer, invoice_id)

    async def refund(self, invoice_id: str, money: Money, key: str) -> Refunded:
        raise RefundRefused(f"{wire.PARTY} has no refunds over its API")


GATEWAY = CryptoPay
