"""A message to WhatsApp ends in one of three ways or is tried again; what may have arrived is told apart."""

import traceback
from collections.abc import AsyncIterator

import httpx
import pytest
from structlog.testing import capture_logs

from app.base import clock
from app.errors import ProviderDown
from app.infra import whatsapp
from app.infra.http import client
from app.infra.messenger import Sent
from app.infra.whatsapp import Button, WhatsApp
from app.sandbox.serve import running
from app.sandbox.whatsapp import WhatsApp as Simulator
from app.sandbox.whatsapp_wire import GraphFault

TOKEN, PHONE_ID, ANN = "EAAB-access-token-of-the-tests", "106540352242922", "380501234567"


@pytest.fixture
def api() -> Simulator:
    api = Simulator(TOKEN, PHONE_ID)
    api.heard_s[ANN] = clock.unix_s()
    return api


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with client(timeout_ms=2000) as http:
        yield http


@pytest.fixture
async def phone(api: Simulator, http: httpx.AsyncClient) -> AsyncIterator[WhatsApp]:
    async with running(api.app()) as url:
        yield WhatsApp(http, f"{url}/v23.0", PHONE_ID, TOKEN)


async def test_a_text_arrives_as_it_is(phone: WhatsApp, api: Simulator) -> None:
    text = "Order 7 *is* <b>here</b>\nKEY-1 & 🙂"
    assert await phone.text(ANN, text) is Sent.DELIVERED
    assert [(one["to"], one["text"]["body"]) for one in api.sent_to(ANN)] == [(ANN, text)]


async def test_buttons_arrive_with_their_ids(phone: WhatsApp, api: Simulator) -> None:
    buttons = [Button("pay:" + "t" * 56, "Pay 100.00 RUB"), Button("pay:2", "2")]
    assert await phone.ask(ANN, "Which?", buttons) is Sent.DELIVERED
    (message,) = api.sent_to(ANN)
    assert message["interactive"] == {
        "body": "Which?",
        "buttons": [{"id": "pay:" + "t" * 56, "title": "Pay 100.00 RUB"}, {"id": "pay:2", "title": "2"}],
    }


@pytest.mark.parametrize("text", ["", " ", "x" * 4097])
async def test_a_message_that_meta_refuses_is_refused(phone: WhatsApp, text: str) -> None:
    assert await phone.text(ANN, text) is Sent.REFUSED


@pytest.mark.parametrize("code", [131047, 470])
async def test_who_was_silent_for_a_day_gets_nothing(phone: WhatsApp, api: Simulator, code: int) -> None:
    api.heard_s[ANN] -= 86_400
    assert await phone.text(ANN, "hello") is Sent.REFUSED
    api.heard_s[ANN] += 86_400
    api.faults.append(GraphFault(code=code))
    assert await phone.text(ANN, "hello") is Sent.REFUSED
    assert api.sent_to(ANN) == []


async def test_who_cannot_be_reached_is_told_apart(phone: WhatsApp, api: Simulator) -> None:
    api.unreachable.add(ANN)
    assert await phone.text(ANN, "hello") is Sent.BLOCKED


@pytest.mark.parametrize(
    ("fault", "wait_s"),
    [
        (GraphFault(code=130429), whatsapp.PAUSE_S),
        (GraphFault(code=130429, retry_after_s=17), 17),
        (GraphFault(code=131056), whatsapp.PAIR_PAUSE_S),
        (GraphFault(code=4), whatsapp.PAUSE_S),
        (GraphFault(status=429), whatsapp.PAUSE_S),
    ],
)
async def test_metas_limits_are_waits_and_nothing_has_arrived(
    phone: WhatsApp, api: Simulator, fault: GraphFault, wait_s: int
) -> None:
    api.faults.append(fault)
    with pytest.raises(ProviderDown) as caught:
        await phone.text(ANN, "hello")
    assert (caught.value.retry_after_s, caught.value.unsure) == (wait_s, False)


@pytest.mark.parametrize(
    ("fault", "unsure"),
    [
        (GraphFault(status=500), True),
        (GraphFault(code=131000), True),
        (GraphFault(status=502, body="<html>Bad Gateway</html>", content_type="text/html"), True),
        (GraphFault(status=200, body="<html>hello</html>", content_type="text/html"), True),
        (GraphFault(status=200, body="{}"), True),
        (GraphFault(status=200, body="{}", after=True), True),
        (GraphFault(status=400, body="{}"), False),
        (GraphFault(status=404, body="not here", content_type="text/plain"), False),
        (GraphFault(wait_ms=20_000), True),
        (GraphFault(hold_ms=20_000), True),
    ],
    ids=["500", "131000", "502 HTML", "200 HTML", "no ids", "obeyed", "400", "404", "hangs before", "hangs after"],
)
async def test_any_other_failure_is_tried_again_and_tells_no_token(
    phone: WhatsApp, api: Simulator, fault: GraphFault, unsure: bool
) -> None:
    api.faults.append(fault)
    with pytest.raises(ProviderDown) as caught:
        await phone.text(ANN, "hello")
    assert (caught.value.retry_after_s, caught.value.unsure) == (None, unsure)
    tells_no_token(caught.value)
    assert await phone.text(ANN, "again") is Sent.DELIVERED


@pytest.mark.parametrize("fault", [GraphFault(code=190), GraphFault(code=368), GraphFault(code=131042)])
async def test_a_refusal_of_ourselves_is_loud(
    phone: WhatsApp, api: Simulator, fault: GraphFault, monkeypatch: pytest.MonkeyPatch
) -> None:
    import structlog

    plain = structlog.wrap_logger(None, wrapper_class=structlog.BoundLogger)  # whatever level others have set
    monkeypatch.setattr(whatsapp, "log", plain)
    api.faults.append(fault)
    with capture_logs() as said, pytest.raises(ProviderDown) as caught:
        await phone.text(ANN, "hello")
    assert not caught.value.unsure
    assert [(line["log_level"], line["code"]) for line in said] == [("error", fault.code)]
    assert ANN not in str(said)


async def test_another_token_and_another_number_are_refused(api: Simulator, http: httpx.AsyncClient) -> None:
    async with running(api.app()) as url:
        with pytest.raises(ProviderDown):
            await WhatsApp(http, url + "/v23.0", PHONE_ID, "other").text(ANN, "hello")
        assert await WhatsApp(http, url + "/v23.0", "1", TOKEN).text(ANN, "hello") is Sent.REFUSED
    assert api.sent_to(ANN) == []


async def test_a_server_that_is_not_there_has_nothing(http: httpx.AsyncClient) -> None:
    with pytest.raises(ProviderDown) as caught:
        await WhatsApp(http, "http://127.0.0.1:9/v23.0", PHONE_ID, TOKEN).text(ANN, "hello")
    assert not caught.value.unsure
    tells_no_token(caught.value)


def tells_no_token(error: BaseException) -> None:
    assert TOKEN not in "".join(traceback.format_exception(error)) + repr(error)
