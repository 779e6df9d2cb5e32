"""What the conformance suite asks of each gateway: its `Driver` is in tests/gateways/drivers/<name>.py."""

from contextlib import AsyncExitStack
from typing import Protocol

from app.errors import Problem

Sent = tuple[bytes, dict[str, str]]  # a callback's body and headers
Forgery = tuple[type[Problem], bytes, dict[str, str]]  # what must be raised, and the callback that must raise it


class Driver(Protocol):
    """One gateway's outside: a running simulator, its buyer, its merchant's cabinet, and those who would cheat it.

    Drivers subclass it, so that what only some gateways need has its answer here.
    """

    name: str  # the gateway's
    config: dict[str, str]  # its required settings, made up
    currency: str  # that its test invoices are in
    stranger: str = ""  # an address whose callbacks are refused whatever they say; "": this gateway asks nobody

    async def settings(self, stack: AsyncExitStack) -> dict[str, str]:
        """The simulator runs until the stack closes; all the settings that lead to it."""
        ...

    def listen(self, url: str) -> None:
        """Callbacks go to this URL, where the gateway is told so in its cabinet and not by each invoice."""

    async def pay(self, invoice_id: str, amount_minor: int | None = None) -> None:
        """The buyer pays, whole or so much; callbacks have been answered when it returns.

        Raises: NotImplementedError for an amount where the gateway takes the whole or nothing.
        """
        ...

    async def cancel(self, invoice_id: str) -> None:
        """It is not going to be paid. Raises: NotImplementedError where a gateway has no such thing."""
        ...

    async def refund(self, invoice_id: str, amount_minor: int | None = None) -> None:
        """Money goes back, and not by us. Raises: NotImplementedError where a gateway has no refunds."""
        ...

    def silence(self) -> None:
        """From now on no callback leaves the simulator."""
        ...

    def genuine(self, invoice_id: str, event: str = "paid") -> Sent:
        """The callback that the gateway would send now; `event` is paid, other or refunded.

        Raises: NotImplementedError for an event that this gateway has no callback for.
        """
        ...

    def forged(self, invoice_id: str) -> dict[str, Forgery]:
        """By name (`F4 wrong signature`), what must be refused and leave no row."""
        ...

    def edited(self, invoice_id: str, **changes: str) -> Sent:
        """A genuine callback whose fields say something else, as well signed as one without the secret can have it."""
        ...
