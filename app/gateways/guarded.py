"""A gateway behind its circuit: every call that leaves the house is counted, and not made while the circuit is open."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from app.base.money import Money
from app.gateways.base import Ask, Callback, Gateway, Invoice, InvoiceState, Notice, Refunded

Calling = Callable[[str], AbstractAsyncContextManager[None]]


class Guarded:
    """`gateway`, whose calls each run inside `calling(its name)`; what it raises, this raises, and ProviderDown."""

    def __init__(self, gateway: Gateway, calling: Calling) -> None:
        self.name, self.traits = gateway.name, gateway.traits
        self.gateway, self.calling = gateway, calling

    def verify(self, callback: Callback) -> Notice:
        return self.gateway.verify(callback)

    async def create(self, ask: Ask) -> Invoice:
        async with self.calling(self.name):
            return await self.gateway.create(ask)

    async def fetch(self, invoice_id: str) -> InvoiceState:
        async with self.calling(self.name):
            return await self.gateway.fetch(invoice_id)

    async def refund(self, invoice_id: str, money: Money, key: str) -> Refunded:
        async with self.calling(self.name):
            return await self.gateway.refund(invoice_id, money, key)
