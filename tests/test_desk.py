"""`torg ledger check` and `torg inbox`, as an operator runs them: processes on the shop's own database."""

import asyncio
import os
import sys

from tests.e2e.stage import environment_of
from tests.flows.scripted import PRICE, sell
from tests.house.tree import ROOT
from tests.world import World


async def torg(world: World, *command: str) -> tuple[int, str]:
    """The exit code and all that was said."""
    env = {"PATH": os.environ["PATH"], **environment_of(world.shop.deps.settings)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli", *command, cwd=ROOT, env=env,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_a_wrong_sum_is_named_and_fails_the_command(world: World) -> None:
    _, _, (sold,) = await sell(world, 1)
    code, said = await torg(world, "ledger", "check")
    assert (code, said.splitlines()[-1]) == (0, "every sum is right")
    await world.pg.fetch(
        "INSERT INTO balances (user_id, currency, balance_minor) VALUES ($1, 'RUB', 5)", (sold.user_id,)
    )
    await world.pg.fetch("UPDATE orders SET paid_by = 'x:1', status = 'paid', paid_at = now()", ())
    code, said = await torg(world, "ledger", "check")
    assert code == 1
    assert f"balance: {sold.user_id} RUB: expected 5, found 0" in said
    assert f"order: {sold.order_id}: expected {PRICE}, found 0" in said
    await world.pg.fetch("DELETE FROM balances", ())
    await world.pg.fetch("UPDATE orders SET paid_by = NULL, status = 'pending', paid_at = NULL", ())


async def test_an_event_that_waits_for_a_human_is_listed_and_can_be_worked_on_again(world: World) -> None:
    buyer, product = await world.buyer(), await world.product("KEY-1")
    order = (await buyer.order((product, 1))).json()
    invoice = order["payment"]["url"].rpartition("i=")[2]
    told = world.crystalpay.invoice(invoice)
    told.currency, told.state, told.remaining_amount = "USD", "payed", "0"
    await world.crystalpay.send_callback(invoice)
    await world.drain()
    code, said = await torg(world, "inbox", "list", "--state", "review")
    assert code == 0
    assert f"crystalpay {invoice}:payed review wrong_currency" in said
    event_id = said.splitlines()[-1].split()[0]

    told.currency = "RUB"  # the gateway has mended its record
    code, said = await torg(world, "inbox", "resend", event_id)
    assert (code, f"event {event_id} will be worked on" in said) == (0, True)
    await world.drain()
    assert await buyer.goods(order["order"]["id"]) == ["KEY-1"]
    code, said = await torg(world, "inbox", "resend", "999999")
    assert (code, "event 999999 is not here" in said) == (1, True)
