"""YooKassa's own Python client talks to our simulator: it judges that this is YooKassa's protocol, not we."""

import asyncio
from collections.abc import AsyncIterator, Callable
from copy import deepcopy
from decimal import Decimal
from typing import Any, TypeVar

import pytest
from yookassa import Configuration, Payment, Refund
from yookassa.domain.common import SecurityHelper
from yookassa.domain.exceptions import (
    BadRequestError,
    InternalServerError,
    NotFoundError,
    ResponseProcessingError,
    UnauthorizedError,
)
from yookassa.domain.notification import WebhookNotificationFactory

from app.errors import BadSignature
from app.gateways.base import Callback
from app.sandbox.yookassa import ApiFault
from app.sandbox.yookassa_wire import new_id
from tests.gateways.test_yookassa import NEAR, event, gateway
from tests.sandbox.test_yookassa import ORDER, World, started

T = TypeVar("T")


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """The simulator, and the client told to go there; its settings are global."""
    for name in ("account_id", "secret_key", "auth_token", "api_url", "timeout", "max_attempts", "verify", "logger"):
        monkeypatch.setattr(Configuration, name, getattr(Configuration, name))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with started() as it:
        url = str(it.http.base_url).rstrip("/")
        Configuration.configure("100500", "test_secret", api_url=f"{url}/v3", max_attempts=0)
        yield it


async def ask(call: Callable[..., T], *args: Any) -> T:
    """The client waits for its answers, so it does that in a thread; it writes into what it is given: a copy."""
    return await asyncio.to_thread(call, *deepcopy(args))


def money(value: str) -> dict[str, str]:
    return {"value": value, "currency": "RUB"}


async def test_a_purchase_from_creation_to_refund(world: World) -> None:
    made = await ask(Payment.create, ORDER, "key-1")
    assert (made.status, made.paid, made.test, made.amount.value) == ("pending", False, False, Decimal("100.00"))
    assert (made.confirmation.type, made.description) == ("redirect", "Order 7")
    assert made.metadata["reference"] == "order-7"
    assert made.confirmation.confirmation_url.endswith(made.id)
    assert (await ask(Payment.create, ORDER, "key-1")).id == made.id

    await world.gateway.pay(made.id)
    paid = await ask(Payment.find_one, made.id)
    assert (paid.status, paid.paid, paid.refundable, paid.refunded_amount) == ("succeeded", True, True, None)
    assert (paid.income_amount.value, paid.payment_method.card.last4) == (Decimal("96.50"), "4444")
    assert paid.recipient.account_id == "100500"

    back = await ask(Refund.create, {"payment_id": made.id, "amount": money("40.00")}, "key-2")
    assert (back.status, back.payment_id, back.amount.value) == ("succeeded", made.id, Decimal("40.00"))
    assert (await ask(Refund.create, {"payment_id": made.id, "amount": money("40.00")}, "key-2")).id == back.id
    assert (await ask(Refund.find_one, back.id)).status == "succeeded"
    listed = await ask(Refund.list, {"payment_id": made.id})
    assert [(one.id, one.amount.value) for one in listed.items] == [(back.id, Decimal("40.00"))]
    assert (await ask(Payment.find_one, made.id)).refunded_amount.value == Decimal("40.00")


async def test_it_reads_our_notifications(world: World) -> None:
    paid, canceled = await world.create(), await world.create()
    held = await world.create(capture=False)
    await world.gateway.pay(paid)
    await world.gateway.refund(paid, "40.00")
    await world.gateway.cancel(canceled)
    await world.gateway.pay(held)
    read = [WebhookNotificationFactory().create(got) for got in world.shop.got]
    assert [(one.type, one.event, type(one.object).__name__, one.object.status) for one in read] == [
        ("notification", "payment.succeeded", "PaymentResponse", "succeeded"),
        ("notification", "refund.succeeded", "RefundResponse", "succeeded"),
        ("notification", "payment.canceled", "PaymentResponse", "canceled"),
        ("notification", "payment.waiting_for_capture", "PaymentResponse", "waiting_for_capture"),
    ]
    assert (read[0].object.id, read[1].object.payment_id, read[2].object.id) == (paid, paid, canceled)
    assert read[1].object.amount.value == Decimal("40.00")
    assert read[2].object.cancellation_details.reason == "general_decline"


async def test_it_understands_our_refusals(world: World) -> None:
    with pytest.raises(NotFoundError) as missing:
        await ask(Payment.find_one, new_id("000f"))
    assert (missing.value.error.code, missing.value.error.parameter) == ("not_found", "payment_id")
    payment_id = await world.create()
    with pytest.raises(BadRequestError) as unpaid:
        await ask(Refund.create, {"payment_id": payment_id, "amount": money("1.00")})
    assert (unpaid.value.error.code, unpaid.value.error.parameter) == ("invalid_request", "payment_id")
    await ask(Payment.create, ORDER, "key-1")
    with pytest.raises(BadRequestError) as reused:
        await ask(Payment.create, ORDER | {"description": "Order 8"}, "key-1")
    assert reused.value.error.parameter == "Idempotence-Key"
    Configuration.secret_key = "another"
    with pytest.raises(UnauthorizedError) as stranger:
        await ask(Payment.find_one, payment_id)
    assert stranger.value.error.code == "invalid_credentials"


async def test_it_understands_that_the_outcome_is_not_known(world: World) -> None:
    """A 202 or a 500 for a payment that was made: the repeat with the same key tells which."""
    later = '{"type": "processing", "description": "", "retry_after": 1800}'
    world.gateway.faults.append(ApiFault(on="create", status=202, body=later, after=True))
    with pytest.raises(ResponseProcessingError):
        await ask(Payment.create, ORDER, "key-1")
    error = '{"type": "error", "id": "1", "code": "internal_server_error", "description": ""}'
    world.gateway.faults.append(ApiFault(on="create", status=500, body=error, after=True))
    with pytest.raises(InternalServerError):
        await ask(Payment.create, ORDER, "key-1")
    made = await ask(Payment.create, ORDER, "key-1")
    assert list(world.gateway.book.payments) == [made.id]


@pytest.mark.parametrize("network", SecurityHelper.YOOKASSA_NETWORKS)
def test_we_believe_the_addresses_that_it_believes(network: str) -> None:
    """Its IPv6 list is narrower than the documentation's 2a02:5180::/32, which is ours."""
    address = network if ":" in network else network.partition("/")[0]
    assert gateway().verify(Callback(event(), {}, address)).invoice_id


@pytest.mark.parametrize("address", [address for address in NEAR if "/" not in address])
def test_we_refuse_the_addresses_that_it_refuses(address: str) -> None:
    assert not SecurityHelper().is_ip_trusted(address)
    with pytest.raises(BadSignature):
        gateway().verify(Callback(event(), {}, address))
