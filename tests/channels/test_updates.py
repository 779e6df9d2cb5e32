"""Telegram's updates: what of them is heard, and as what; all else is nothing, whatever its shape."""

import json
import random
from typing import Any

import pytest

from app.channels.telegram import updates
from app.channels.telegram.updates import MAX_RAW_BYTES, OK, Told
from app.errors import Malformed

NOW_S = 1_800_000_000
ANN = {
    "id": 1001,
    "is_bot": False,
    "first_name": "Ann",
    "last_name": "Lee",
    "username": "ann",
    "language_code": "pt-br",
}
PRIVATE = {"id": 1001, "type": "private", "first_name": "Ann"}


def message(**more: Any) -> dict[str, Any]:
    said = {"message_id": 5, "from": ANN, "chat": PRIVATE, "date": NOW_S - 2, "text": "do you have keys?"}
    return {"update_id": 700, "message": {name: value for name, value in (said | more).items() if value is not None}}


def query(**more: Any) -> dict[str, Any]:
    under = {"message_id": 4, "chat": PRIVATE, "date": NOW_S - 60, "text": "an offer"}
    asked = {"id": "44", "from": ANN, "message": under, "chat_instance": "-7", "data": "buy:x"}
    return {"update_id": 701, "callback_query": asked | more}


def read(update: Any) -> Told | None:
    return updates.read(update if isinstance(update, bytes) else json.dumps(update).encode(), NOW_S)


def heard(update: Any) -> Told:
    told = read(update)
    assert told is not None
    return told


def test_words_are_heard_with_who_says_them_and_answered_with_typing() -> None:
    told = heard(message())
    assert told.peer == "1001"
    assert (told.heard.external_id, told.heard.at_s) == ("u700", NOW_S - 2)
    assert (told.heard.name, told.heard.username, told.heard.language) == ("Ann Lee", "ann", "pt-br")
    assert (told.heard.text, told.heard.raw) == ("do you have keys?", "")
    assert json.loads(told.reply) == {"method": "sendChatAction", "chat_id": 1001, "action": "typing"}


@pytest.mark.parametrize(
    "more",
    [{"text": "/start abc"}, {"text": "/x"}, {"text": None, "photo": [{"file_id": "x"}], "caption": "this?"},
     {"text": None, "sticker": {"emoji": "x"}}, {"text": None, "contact": {"phone_number": "1"}}, {"text": " \x00 "},
     {"text": ""}],
    ids=str,
)  # fmt: skip
def test_a_command_and_what_is_no_words_go_to_the_bot_as_they_came(more: dict[str, Any]) -> None:
    body = json.dumps(message(**more)).encode()
    told = heard(body)
    assert (told.peer, told.heard.text, told.heard.raw, told.reply) == ("1001", "", body.decode(), OK)


def test_a_button_goes_to_the_bot_and_is_answered_at_once() -> None:
    body = json.dumps(query()).encode()
    told = heard(body)
    assert (told.peer, told.heard.external_id, told.heard.at_s) == ("1001", "u701", NOW_S)
    assert (told.heard.text, told.heard.raw) == ("", body.decode())
    assert json.loads(told.reply) == {"method": "answerCallbackQuery", "callback_query_id": "44"}
    old = query(message={"message_id": 4, "chat": PRIVATE, "date": 0})
    assert heard(old).peer == heard(query(message=None)).peer == "1001"


@pytest.mark.parametrize(
    "update",
    [message(chat={"id": -5, "type": "group"}), message(chat={"id": -5, "type": "supergroup"}),
     message(chat={"id": -5, "type": "channel"}), message(**{"from": None}),
     message(**{"from": ANN | {"is_bot": True}}),
     query(message={"message_id": 4, "chat": {"id": -5, "type": "group"}, "date": 1}),
     {"update_id": 1, "edited_message": message()["message"]}, {"update_id": 1, "channel_post": message()["message"]},
     {"update_id": 1}, {"update_id": 1, "of_tomorrow": {"x": 1}}],
    ids=lambda update: str(update)[:60],
)  # fmt: skip
def test_what_does_not_concern_the_shop_is_nothing(update: Any) -> None:
    assert read(update) is None


@pytest.mark.parametrize(
    "update",
    [{}, [], "x", 7, None, {"update_id": "7"}, {"update_id": -1}, {"update_id": 10**30}, {"update_id": 1.5},
     message(chat={"id": 2**60, "type": "private"}), message(**{"from": ANN | {"id": 0}}), message(date=-1),
     message(text=7), message(chat=None), query(**{"from": None}), query(id=None), {"update_id": 1, "message": []},
     message(text=None, caption="x" * MAX_RAW_BYTES)],
    ids=lambda update: str(update)[:60],
)  # fmt: skip
def test_what_has_another_shape_is_nothing_or_it_would_come_for_days(update: Any) -> None:
    assert read(update) is None


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b'{"update_id":1,"x":"\xff"}', b"nonsense", b'{"x":' * 100_000, b'{"update_id":1}x',
     b'{"update_id":1,"message":{"text":"\\ud800"}}', "\ufeff{}".encode(), '{"update_id":1}'.encode("utf-16")],
    ids=lambda body: str(body[:30]),
)  # fmt: skip
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        read(body)


def test_postgres_can_hold_all_that_is_heard() -> None:
    told = heard(message(text="a\0b" + "x" * 9000, **{"from": ANN | {"first_name": "\0A" * 300, "username": "a\0"}}))
    assert told.heard.text.startswith("abx")
    assert (len(told.heard.text), len(told.heard.name), told.heard.username) == (4096, 100, "a")


def test_random_damage_is_heard_or_nothing_or_malformed() -> None:
    chance = random.Random(4)
    for _ in range(3000):
        body = bytearray(json.dumps(chance.choice([message(), query()])).encode())
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(body))
            body[at : at + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
        try:
            told = read(bytes(body))
        except Malformed:
            continue
        if told is not None:
            assert told.heard.text or told.heard.raw
            assert "\0" not in told.heard.text
            (told.heard.raw + told.heard.text + told.heard.name).encode()
