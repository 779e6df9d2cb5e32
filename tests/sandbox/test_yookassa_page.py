"""The YooKassa simulator's other sides: the buyer's page, ordered faults, the control routes."""

import re

import httpx
import pytest

from app.sandbox.yookassa import ApiFault
from app.sandbox.yookassa_wire import new_id
from tests.sandbox.test_yookassa import ORDER, World, started
from tests.sandbox.test_yookassa import world as world


async def page_of(world: World, payment_id: str) -> httpx.Response:
    return await world.http.get("/checkout/payments/v2/contract", params={"orderId": payment_id})


async def press(world: World, payment_id: str, how: str) -> httpx.Response:
    return await world.http.post(f"/pay/{payment_id}", data={"how": how})


async def test_the_page_is_where_the_payment_says(world: World) -> None:
    made = (await world.post("/v3/payments", ORDER | {"description": "<b>Key</b>"})).json()
    page = await world.http.get(made["confirmation"]["confirmation_url"])
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<b>YooKassa</b>" in page.text
    assert "100.00\u00a0₽" in page.text
    assert "&lt;b&gt;Key&lt;/b&gt;" in page.text
    assert "59:5" in page.text or "1:00:00" in page.text
    assert re.findall(r'name="how" value="(\w+)"', page.text) == ["pay", "cancel"]


async def test_public_url_leads_buyers_to_the_page() -> None:
    async with started(public_url="https://pay.example/") as world:
        made = (await world.post("/v3/payments", ORDER)).json()
        url = f"https://pay.example/checkout/payments/v2/contract?orderId={made['id']}"
        assert made["confirmation"]["confirmation_url"] == url


async def test_the_pay_button_pays_and_leads_back_to_the_shop(world: World) -> None:
    payment_id = await world.create()
    answer = await press(world, payment_id, "pay")
    assert (answer.status_code, answer.headers["location"]) == (303, "https://shop.example/?order=7")
    await world.gateway.idle()
    assert world.heard() == [("payment.succeeded", "succeeded")]
    page = (await page_of(world, payment_id)).text
    assert "✓ Paid" in page
    assert "https://shop.example/?order=7" in page
    assert 'name="how"' not in page


async def test_the_cancel_button_stays_on_the_page_and_ends_it(world: World) -> None:
    payment_id = await world.create()
    answer = await press(world, payment_id, "cancel")
    assert answer.headers["location"] == f"/checkout/payments/v2/contract?orderId={payment_id}"
    await press(world, payment_id, "pay")
    await world.gateway.idle()
    assert world.heard() == [("payment.canceled", "canceled")]
    assert "This payment is canceled." in (await page_of(world, payment_id)).text


async def test_nobody_pays_less_here(world: World) -> None:
    payment_id = await world.create()
    assert (await press(world, payment_id, "less")).status_code == 303
    assert (await world.info(payment_id))["status"] == "pending"


@pytest.mark.parametrize("payment_id", ["", "7", new_id("000f")], ids=["none", "short", "unknown"])
async def test_an_unknown_payment_has_no_page(world: World, payment_id: str) -> None:
    assert (await page_of(world, payment_id)).status_code == 404
    assert (await press(world, payment_id or "x", "pay")).status_code == 404


async def test_a_test_payment_says_so_on_its_page() -> None:
    async with started(test=True) as world:
        assert "no money moves" in (await page_of(world, await world.create())).text


async def test_refunds_are_listed_the_newest_first(world: World) -> None:
    payment_id, other = await world.create(), await world.create()
    for one in (payment_id, other):
        await world.gateway.pay(one)
    values = ["1.00", "2.00", "3.00"]
    made = [(await world.give_back(payment_id, value)).json() for value in values]
    assert made[0]["payment_id"] == payment_id
    path = f"/v3/refunds?payment_id={payment_id}"
    assert (await world.http.get(path)).json() == {"type": "list", "items": made[::-1]}
    page = (await world.http.get(f"{path}&limit=2")).json()
    assert (page["items"], "next_cursor" in page) == (made[:0:-1], True)
    assert (await world.http.get(f"/v3/refunds?payment_id={other}")).json()["items"] == []
    for limit in ("0", "101", "x", "-1"):
        assert (await world.http.get(f"{path}&limit={limit}")).json()["parameter"] == "limit"


async def test_a_refund_keeps_its_metadata(world: World) -> None:
    payment_id = await world.create()
    await world.gateway.pay(payment_id)
    body = {"payment_id": payment_id, "amount": {"value": "1.00", "currency": "RUB"}, "metadata": {"key": "k"}}
    assert (await world.post("/v3/refunds", body)).json()["metadata"] == {"key": "k"}


# Faults and control.


async def test_an_ordered_500_does_no_work_and_with_after_it_does(world: World) -> None:
    world.gateway.faults.append(ApiFault(on="create", status=500))
    assert (await world.post("/v3/payments", ORDER, "key-1")).status_code == 500
    assert not world.gateway.book.payments
    world.gateway.faults.append(ApiFault(on="create", status=500, after=True))
    assert (await world.post("/v3/payments", ORDER, "key-1")).status_code == 500
    made = (await world.post("/v3/payments", ORDER, "key-1")).json()
    assert list(world.gateway.book.payments) == [made["id"]]


async def test_info_may_tell_about_another_payment_or_lie(world: World) -> None:
    one, two = await world.create(), await world.create()
    world.gateway.faults.append(ApiFault(on="info", id=one, instead=two))
    world.gateway.faults.append(ApiFault(on="info", id=two, edit={"status": "succeeded"}))
    assert (await world.info(one))["id"] == two
    lie = await world.info(two)
    assert (lie["id"], lie["status"]) == (two, "succeeded")
    assert (await world.info(two))["status"] == "pending"


async def test_a_refund_may_be_made_and_its_answer_lost(world: World) -> None:
    payment_id = await world.create()
    await world.gateway.pay(payment_id)
    world.gateway.faults.append(ApiFault(on="refund", body="<html>", after=True))
    assert (await world.give_back(payment_id, "40.00", "key-r")).text == "<html>"
    assert (await world.give_back(payment_id, "40.00", "key-r")).json()["status"] == "succeeded"
    assert (await world.info(payment_id))["refunded_amount"]["value"] == "40.00"


async def test_the_control_routes_do_what_the_methods_do(world: World) -> None:
    payment_id = await world.create()
    answer = await world.http.post("/sandbox/pay", json={"id": payment_id, "wait": True})
    assert answer.json()["invoice"]["status"] == "succeeded"
    assert [entry["status"] for entry in answer.json()["callbacks"]] == [200]
    answer = await world.http.post("/sandbox/refund", json={"id": payment_id, "amount": "40.00"})
    assert answer.json()["invoice"]["refunded_amount"]["value"] == "40.00"
    await world.gateway.idle()
    assert (await world.http.post(f"/sandbox/callbacks/{payment_id}")).json()[0]["status"] == 200
    plan = {"event": "refund.succeeded", "copies": 2}
    assert len((await world.http.post(f"/sandbox/callbacks/{payment_id}", json=plan)).json()) == 2
    assert (await world.http.put("/sandbox/callbacks", json={"drop": 11})).status_code == 200
    assert world.gateway.callbacks.drop == 11
    await world.http.delete("/sandbox/callbacks")
    assert world.gateway.callbacks.drop == 0
    assert [one["id"] for one in (await world.http.get("/sandbox/invoices")).json()] == [payment_id]
    assert [got["event"] for got in world.shop.got] == (
        ["payment.succeeded", "refund.succeeded", "payment.succeeded", "refund.succeeded", "refund.succeeded"]
    )


@pytest.mark.parametrize(
    ("path", "order"),
    [("pay", {"id": "7"}), ("pay", {}), ("pay", {"id": "7", "how": "x"}), ("refund", {"id": "7"}), ("callbacks/7", {})],
)
async def test_an_order_that_makes_no_sense_is_explained(world: World, path: str, order: dict[str, str]) -> None:
    answer = await world.http.post(f"/sandbox/{path}", json=order)
    assert answer.status_code == 400
    assert answer.json()["error"]


async def test_the_journal_tells_requests_without_the_secret(world: World) -> None:
    payment_id = await world.create()
    await world.info(payment_id)
    log = (await world.http.get("/sandbox/log")).text
    assert payment_id in log
    assert "Order 7" in log
    assert "test_secret" not in log
    assert "Basic" not in log
