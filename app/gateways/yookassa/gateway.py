"""YooKassa v3. Its notifications are not signed: they count as hints, and only from its own networks."""

import base64
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated

import httpx
import msgspec
from msgspec import Meta

from app.base.money import Money
from app.errors import BadSignature, ProviderRefused
from app.gateways.base import Ask, Callback, Invoice, InvoiceState, Notice, Refunded, Traits
from app.gateways.yookassa import wire
from app.infra.http import JSON, Answer, call

# yookassa.ru/developers/using-api/webhooks#ip
NETWORKS = (
    "185.71.76.0/27, 185.71.77.0/27, 77.75.153.0/25, 77.75.154.128/25, 77.75.156.11, 77.75.156.35, 2a02:5180::/32"
)

MOST_REFUNDS = 100  # of one payment that we look through; also the API's limit


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """One shop at YooKassa."""

    shop_id: Annotated[str, Meta(description="YooKassa shopId")] = ""
    secret_key: Annotated[str, Meta(description="YooKassa secret key of that shop")] = ""
    url: Annotated[str, Meta(description="YooKassa API")] = "https://api.yookassa.ru"
    test: Annotated[bool, Meta(description="true: payments of a YooKassa test shop count as paid")] = False
    networks: Annotated[
        str, Meta(description="whose notifications are read, comma-separated; an IPv6 one is a /64 or wider")
    ] = NETWORKS

    def __post_init__(self) -> None:
        try:
            parse_networks(self.networks)
        except ValueError as error:
            raise ValueError(f"networks: {error}") from None


class YooKassa:
    """One shop at YooKassa."""

    name = "yookassa"
    traits = Traits(
        signs_amount=False,  # nothing is signed
        retries=True,  # for 24 hours
        refunds=True,
        polls_per_minute=60,
        currencies=frozenset({"RUB"}),  # a shopId has one currency; others need a contract of their own
    )
    settings = Config

    def __init__(self, config: Config, http: httpx.AsyncClient) -> None:
        self.http, self.url, self.takes_test = http, config.url.rstrip("/"), config.test
        basic = base64.b64encode(f"{config.shop_id}:{config.secret_key}".encode()).decode()
        self.headers = {"Authorization": f"Basic {basic}"}
        self.networks = parse_networks(config.networks)

    async def create(self, ask: Ask) -> Invoice:
        answer = await self._call("POST", "payments", wire.create_body(ask), key=ask.reference)
        return wire.read_created(answer)

    def verify(self, callback: Callback) -> Notice:
        if not self._believes(callback.address):
            raise BadSignature("the caller is in none of YooKassa's networks")
        return wire.read_notice(callback.body)

    async def fetch(self, invoice_id: str) -> InvoiceState:
        answer = await self._call("GET", f"payments/{_own(invoice_id)}")
        return wire.read_state(answer, invoice_id, takes_test=self.takes_test)

    async def refund(self, invoice_id: str, money: Money, key: str) -> Refunded:
        """YooKassa knows a key for 24 hours, a refund's metadata for ever: so an old key is looked for there first."""
        payment_id = _own(invoice_id)
        known = await self._call("GET", f"refunds?payment_id={payment_id}&limit={MOST_REFUNDS}")
        made = wire.find_refund(known, key)
        if made is None:
            body = wire.refund_body(payment_id, money, key)
            made = wire.read_refund(await self._call("POST", "refunds", body, key=key))
        return wire.outcome(made, payment_id, money)

    def _believes(self, address: str) -> bool:
        """Whether all of the address (for IPv6: the /64 that it stands for) is in a network of ours."""
        try:
            caller = ip_network(address)
        except ValueError:
            return False
        if isinstance(caller, IPv4Network):
            return any(isinstance(known, IPv4Network) and caller.subnet_of(known) for known in self.networks)
        return any(isinstance(known, IPv6Network) and caller.subnet_of(known) for known in self.networks)

    async def _call(self, method: str, path: str, body: bytes = b"", *, key: str = "") -> Answer:
        headers = self.headers | JSON | {"Idempotence-Key": key} if key else self.headers
        url = f"{self.url}/v3/{path}"
        return await call(self.http, method, url, party=wire.PARTY, body=body, headers=headers)


def parse_networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Raises: ValueError for what is no network, or is narrower than we know an IPv6 caller by."""
    found = tuple(ip_network(part) for part in text.replace(",", " ").split())
    for network in found:
        if network.version == 6 and network.prefixlen > 64:
            raise ValueError(f"{network} is narrower than a /64")
    return found


def _own(payment_id: str) -> str:
    """The id, safe in a path. Raises: ProviderRefused for a text that cannot be one of YooKassa's."""
    if not wire.is_id(payment_id):
        raise ProviderRefused(f"{wire.PARTY} has no payment with such an id")
    return payment_id


GATEWAY = YooKassa
