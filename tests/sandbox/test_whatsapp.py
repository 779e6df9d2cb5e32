"""The simulator of the Cloud API sends, refuses, tells statuses and calls its webhook as Meta does."""

import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from litestar import Litestar, Request, Response, post

from app.base import clock
from app.sandbox.serve import make, running
from app.sandbox.whatsapp import STATUSES, WhatsApp
from app.sandbox.whatsapp_wire import GraphFault, Said

TOKEN, PHONE_ID, ANN, SECRET = "EAAB-token", "106540352242922", "380501234567", "app-secret"
PATH = f"/v23.0/{PHONE_ID}/messages"


class Hook:
    """A webhook that answers what a test wrote down, then 200."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.answers: list[int] = []

    def app(self) -> Litestar:
        @post("/hook")
        async def hook(request: Request[Any, Any, Any]) -> Response[None]:
            body = await request.body()
            proof = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
            assert request.headers["x-hub-signature-256"] == f"sha256={proof}"
            self.got.append(json.loads(body))
            return Response(None, status_code=self.answers.pop(0) if self.answers else 200)

        return Litestar([hook], openapi_config=None, logging_config=None)

    def values(self) -> list[dict[str, Any]]:
        return [change["value"] for body in self.got for entry in body["entry"] for change in entry["changes"]]


class World(msgspec.Struct):
    api: WhatsApp
    hook: Hook
    http: httpx.AsyncClient

    async def send(self, content: dict[str, Any], to: str = ANN, token: str = TOKEN) -> httpx.Response:
        body = {"messaging_product": "whatsapp", "to": to, **content}
        return await self.http.post(PATH, json=body, headers={"Authorization": f"Bearer {token}"})

    async def refused(self, content: dict[str, Any], **more: str) -> tuple[int, int]:
        answer = await self.send(content, **more)
        return answer.status_code, answer.json()["error"]["code"]


def text(body: str) -> dict[str, Any]:
    return {"type": "text", "text": {"body": body}}


def buttons(*pairs: tuple[str, str], body: str = "Which?") -> dict[str, Any]:
    told = [{"type": "reply", "reply": {"id": id_, "title": title}} for id_, title in pairs]
    return {
        "type": "interactive",
        "interactive": {"type": "button", "body": {"text": body}, "action": {"buttons": told}},
    }


@pytest.fixture
async def world() -> AsyncIterator[World]:
    hook = Hook()
    async with running(hook.app()) as hooked:
        api = WhatsApp(TOKEN, PHONE_ID, app_secret=SECRET, callback_url=f"{hooked}/hook")
        api.heard_s[ANN], api.pause_ms = clock.unix_s(), 1
        async with running(api.app()) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
            yield World(api, hook, http)


async def test_a_message_is_kept_and_its_statuses_are_told_in_any_order(world: World) -> None:
    answer = (await world.send(text("hello"))).json()
    assert answer["contacts"] == [{"input": ANN, "wa_id": ANN}]
    message_id = answer["messages"][0]["id"]
    assert message_id.startswith("wamid.")
    await world.api.idle()
    told = [(status["id"], status["status"]) for value in world.hook.values() for status in value["statuses"]]
    assert told == [(message_id, status) for status in STATUSES]
    assert (await world.http.get(f"/sandbox/messages?to={ANN}")).json() == world.api.sent_to(ANN)
    assert world.api.texts_to(ANN) == ["hello"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (text(""), 131009), (text("x" * 4097), 131009), ({"type": "text"}, 100), ({"type": "sticker"}, 131051),
        (buttons(), 131009), (buttons(*[(str(n), str(n)) for n in range(4)]), 131009),
        (buttons(("1", "x" * 21)), 131009), (buttons(("i" * 257, "x")), 131009), (buttons(("1", "")), 131009),
        (buttons(("1", "x"), ("2", "x")), 131009), (buttons(("1", "x"), ("1", "y")), 131009),
        (buttons(("1", "x"), body="y" * 1025), 131009), (text("hello") | {"messaging_product": "sms"}, 100),
    ],
)  # fmt: skip
async def test_what_meta_does_not_take_is_refused(world: World, content: dict[str, Any], code: int) -> None:
    assert await world.refused(content) == (400, code)
    assert world.api.sent_to(ANN) == []


async def test_the_longest_that_meta_takes_is_taken(world: World) -> None:
    assert (await world.send(text("x" * 4096))).status_code == 200
    longest = buttons(*[(f"{n}" * 256, f"{n}" * 20) for n in range(3)], body="y" * 1024)
    assert (await world.send(longest)).status_code == 200


async def test_another_token_is_refused(world: World) -> None:
    assert await world.refused(text("hello"), token="x") == (401, 190)


async def test_the_window_is_open_for_a_day_after_what_a_user_wrote(world: World) -> None:
    closed = {"wa_id": ANN, "silent_s": 86_400}
    assert (await world.http.put("/sandbox/users", json=closed)).status_code == 200
    assert await world.refused(text("hello")) == (400, 131047)
    await world.http.post("/sandbox/say", json={"from": ANN, "text": "hi"})
    assert (await world.send(text("hello"))).status_code == 200
    assert await world.refused(text("hello"), to="79990000000") == (400, 131047)


async def test_a_message_may_fail_after_it_was_accepted(world: World) -> None:
    world.api.heard_s.clear()
    world.api.late = "status"
    assert (await world.send(text("hello"))).status_code == 200
    await world.api.idle()
    (value,) = world.hook.values()
    (status,) = value["statuses"]
    assert (status["status"], status["recipient_id"], status["errors"][0]["code"]) == ("failed", ANN, 131047)
    assert world.api.sent_to(ANN) == []


async def test_who_cannot_be_reached_is_refused_and_may_come_back(world: World) -> None:
    await world.http.put("/sandbox/users", json={"wa_id": ANN, "state": "unreachable"})
    assert await world.refused(text("hello")) == (400, 131026)
    await world.http.put("/sandbox/users", json={"wa_id": ANN})
    assert (await world.send(text("hello"))).status_code == 200


async def test_what_a_user_says_is_signed_and_offered_until_it_is_taken(world: World) -> None:
    world.hook.answers = [503, 500]
    said = {"from": ANN, "name": "Ann", "text": "hi", "tries": 5}
    entry = (await world.http.post("/sandbox/say", json=said)).json()
    assert (entry["status"], len(world.hook.got), len({json.dumps(body) for body in world.hook.got})) == (200, 3, 1)
    value = world.hook.values()[0]
    assert value["contacts"] == [{"profile": {"name": "Ann"}, "wa_id": ANN}]
    assert value["metadata"]["phone_number_id"] == PHONE_ID
    (message,) = value["messages"]
    assert (message["from"], message["type"], message["text"]) == (ANN, "text", {"body": "hi"})


async def test_buttons_pictures_and_batches_are_said(world: World) -> None:
    ids = ("wamid.1", "wamid.2", "wamid.3")
    ann, bob = {"from": ANN, "button": "pay:7", "id": ids[0]}, {"from": "79991234567", "type": "image", "id": ids[1]}
    again = {"from": ANN, "text": "x", "id": ids[2]}
    order = {"entries": [[[ann, bob], [again]], [[again]]]}
    assert (await world.http.post("/sandbox/batch", json=order)).json()["status"] == 200
    (body,) = world.hook.got
    assert [len(entry["changes"]) for entry in body["entry"]] == [2, 1]
    told = [message for value in world.hook.values() for message in value["messages"]]
    assert [message["id"] for message in told] == [*ids, ids[2]]
    assert told[0]["interactive"]["button_reply"]["id"] == "pay:7"
    assert told[1]["type"] == "image"


async def test_faults_are_played_to_whom_they_are_meant_for(world: World) -> None:
    ordered = {"on": "messages", "code": 131056, "to": ANN, "retry_after_s": 9}
    await world.http.post("/sandbox/faults", json=ordered)
    world.api.heard_s["79990000000"] = clock.unix_s()
    assert (await world.send(text("hello"), to="79990000000")).status_code == 200
    answer = await world.send(text("hello"))
    assert (answer.status_code, answer.json()["error"]["code"], answer.headers["retry-after"]) == (400, 131056, "9")
    world.api.faults.append(GraphFault(status=500, body="oops", after=True))
    assert (await world.send(text("arrived"))).status_code == 500
    assert world.api.texts_to(ANN) == ["arrived"]


async def test_nonsense_is_answered_with_a_reason(world: World) -> None:
    assert (await world.http.post("/sandbox/say", json={"from": "Ann"})).status_code == 400
    assert (await world.http.post(PATH, content=b"[", headers={"Authorization": f"Bearer {TOKEN}"})).status_code == 400
    world.api.callback_url = ""
    assert (await world.http.post("/sandbox/say", json={"from": ANN, "text": "hi"})).status_code == 400


async def test_is_made_by_name() -> None:
    assert isinstance(make("whatsapp", token=TOKEN, phone_id=PHONE_ID, app_secret=SECRET), WhatsApp)
    with pytest.raises(ValueError, match="access token"):
        make("whatsapp", token="", phone_id="")
    assert Said(sender=ANN).text == ""
