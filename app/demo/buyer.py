"""A scripted buyer: the main job over public HTTP alone, as a Mini App and a gateway's page would do it."""

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import msgspec

PATIENCE_S = 30
TRIES = 5
POLL_S = 0.02


class NotDelivered(Exception):
    """The purchase did not end with goods in time; the text says how far it came."""


class Step(msgspec.Struct, frozen=True):
    """One line of the timeline."""

    what: str
    took_ms: float
    result: str


class Bought(msgspec.Struct, frozen=True):
    """What the buyer has in the end."""

    order: dict[str, Any]
    goods: list[dict[str, Any]]
    payment_to_goods_ms: float


Tell = Callable[[Step], None]


def buy(base_url: str, init_data: str, tell: Tell) -> Bought:
    """A licence key and a voucher, from sign-in to goods; every step is told as it ends.

    Raises: NotDelivered; httpx.HTTPError when a part does not answer.
    """
    with PatientClient(base_url=base_url, timeout=10) as http:
        timed = Timeline(tell)
        entered = timed("POST /api/session", lambda: answered(http.post("/api/session", json={"init_data": init_data})))
        timed.result(f"signed in as {entered['user']['name']}")
        http.headers["Authorization"] = f"Bearer {entered['token']}"

        shelf = timed("GET /api/catalog", lambda: answered(http.get("/api/catalog")))
        timed.result(f"{len(shelf['products'])} products in {len(shelf['categories'])} categories")

        key, voucher = _instant_pair(shelf)
        shown = timed(f"GET /api/products/{key}", lambda: answered(http.get(f"/api/products/{key}")))
        timed.result(f"{shown['title']}: {_money(shown['price_minor'], shown['currency'])}, {shown['left']} left")

        lines = [{"product_id": product_id, "quantity": 1} for product_id in (key, voucher)]
        headers = {"Idempotency-Key": str(uuid4())}
        cart = {"lines": lines, "provider": "crystalpay"}
        placed = timed("POST /api/orders", lambda: answered(http.post("/api/orders", json=cart, headers=headers)))
        order = placed["order"]
        timed.result(f"order {order['number']}: {_money(order['total_minor'], order['currency'])}, goods held")

        paid_at = time.perf_counter()
        timed("pay on the gateway's page", lambda: paid_on_page(placed["payment"]["url"]))
        timed.result(placed["payment"]["url"])

        order = timed("goods delivered", lambda: _await_delivery(http, order["id"]))
        payment_to_goods_ms = (time.perf_counter() - paid_at) * 1000
        timed.result(f"status {order['status']}")

        found = timed("GET goods", lambda: answered(http.get(f"/api/orders/{order['id']}/goods")))
        timed.result(f"{len(found['goods'])} goods, opened for their owner")
        return Bought(order, found["goods"], payment_to_goods_ms)


class PatientClient(httpx.Client):
    """Comes again when it is told to, as a Mini App should: the shop is limited, or a part of it is away."""

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        for _ in range(TRIES):
            response = super().send(request, **options)
            if response.status_code not in (429, 503):
                break
            time.sleep(float(response.headers.get("retry-after", "1")))
        return response


class Timeline:
    """Times a step and tells it once its result is known."""

    def __init__(self, tell: Callable[[Step], None]) -> None:
        self.tell, self.what, self.took_ms = tell, "", 0.0

    def __call__(self, what: str, do: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        started = time.perf_counter()
        found = do()
        self.what, self.took_ms = what, (time.perf_counter() - started) * 1000
        return found

    def result(self, text: str) -> None:
        self.tell(Step(self.what, self.took_ms, text))


def answered(response: httpx.Response) -> dict[str, Any]:
    if not response.is_success:
        raise NotDelivered(f"{response.request.method} {response.request.url.path}: {response.text[:300]}")
    found: dict[str, Any] = response.json()
    return found


def _instant_pair(shelf: dict[str, Any]) -> tuple[int, int]:
    """Two products that are delivered at once, by one seller: an order has one."""
    by_seller: dict[int, list[int]] = {}
    for product in shelf["products"]:
        if product["kind"] == "unit" and product["left"]:
            by_seller.setdefault(product["seller"]["id"], []).append(product["id"])
    for ids in by_seller.values():
        if len(ids) >= 2:
            return ids[0], ids[1]
    raise NotDelivered("no seller has two kinds of keys left")


def paid_on_page(url: str) -> dict[str, Any]:
    """The buyer opens the link and presses the page's button."""
    parts = urlsplit(url)
    (invoice_id,) = parse_qs(parts.query)["i"]
    with httpx.Client(base_url=f"{parts.scheme}://{parts.netloc}", timeout=10) as gateway:
        page = gateway.get("/", params={"i": invoice_id})
        page.raise_for_status()
        pressed = gateway.post(f"/pay/{invoice_id}", data={"how": "pay"})
        if pressed.status_code not in (200, 302, 303):
            raise NotDelivered(f"the gateway's page answered {pressed.status_code}")
    return {}


def _await_delivery(http: httpx.Client, order_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        order: dict[str, Any] = answered(http.get(f"/api/orders/{order_id}"))["order"]
        if order["status"] == "delivered":
            return order
        time.sleep(POLL_S)
    raise NotDelivered(f"order {order_id} is {order['status']} after {PATIENCE_S} s")


def _money(minor: int, currency: str) -> str:
    return f"{minor // 100}.{minor % 100:02d} {currency}"
