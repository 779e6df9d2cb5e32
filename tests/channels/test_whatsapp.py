"""A WhatsApp webhook is read as far as it is understood, and proven before; replies fit what WhatsApp takes."""

import hashlib
import hmac
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.base.heard import Heard
from app.channels.line import Offer
from app.channels.whatsapp import texts, wire
from app.channels.whatsapp.line import is_open, written
from app.errors import Malformed
from app.infra.whatsapp import MAX_BODY, MAX_BUTTONS, MAX_TEXT, MAX_TITLE
from app.sandbox import whatsapp_wire as meta

SECRET = "app_secret"
EMPTY = b'{"object":"whatsapp_business_account","entry":[]}'
VECTOR = "sha256=c236c758c9b2bd40b388a550eeca09eaca72384dd0aa5e7c31d19cddac5bba46"  # PROTOCOLS §6, SELF
PHONE_ID, ANN, BOB = "106540352242922", "380501234567", "79991234567"


def text_of(sender: str, body: str, number: int = 1) -> dict[str, Any]:
    return {
        "from": sender, "id": f"wamid.{number}", "timestamp": "1700000000", "type": "text", "text": {"body": body},
    }  # fmt: skip


def value_of(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    metadata = {"display_phone_number": "15550100000", "phone_number_id": PHONE_ID}
    contacts = [{"profile": {"name": "Ann"}, "wa_id": ANN}]
    told = {"messaging_product": "whatsapp", "metadata": metadata, "contacts": contacts, "messages": list(messages)}
    return told | more


def body_of(*values: dict[str, Any], field: str = "messages", entries: int = 1) -> bytes:
    changes = [{"field": field, "value": value} for value in values]
    entry = [{"id": str(n), "changes": changes} for n in range(entries)]
    return json.dumps({"object": "whatsapp_business_account", "entry": entry}).encode()


# ---- proof


def test_the_published_signature_is_believed() -> None:
    assert wire.signed(EMPTY, VECTOR, SECRET)


@pytest.mark.parametrize(
    "header",
    [
        "", "sha256=", VECTOR.removeprefix("sha256="), VECTOR.upper(), f"sha256={VECTOR[7:].upper()}", f"{VECTOR} ",
        f" {VECTOR}", VECTOR[:-1], f"{VECTOR}0", VECTOR.replace("sha256", "sha1"), "sha256=é", "sha256=\udcff",
        "\ud800",
        f"{VECTOR},{VECTOR}", "sha256=" + "0" * 64,
    ],
)  # fmt: skip
def test_any_other_header_is_not_believed(header: str) -> None:
    assert not wire.signed(EMPTY, header, SECRET)


def test_other_bytes_another_secret_and_none_are_not_believed() -> None:
    assert not wire.signed(EMPTY + b" ", VECTOR, SECRET)
    assert not wire.signed(EMPTY, VECTOR, "other")
    unset = "sha256=" + hmac.new(b"", EMPTY, hashlib.sha256).hexdigest()
    assert not wire.signed(EMPTY, unset, "")


def challenge(**changes: str) -> str | None:
    query = {"hub.mode": "subscribe", "hub.verify_token": "tökén", "hub.challenge": "1158201444"}
    return wire.challenge({k: v for k, v in (query | changes).items() if v != "-"}, "tökén")


def test_who_knows_the_verify_token_gets_the_challenge_back() -> None:
    assert challenge() == "1158201444"


@pytest.mark.parametrize(
    "changes",
    [
        {"hub.verify_token": "token"}, {"hub.verify_token": ""}, {"hub.verify_token": "-"},
        {"hub.verify_token": "\ud800"}, {"hub.mode": "unsubscribe"}, {"hub.mode": "-"}, {"hub.challenge": "-"},
    ],
)  # fmt: skip
def test_nobody_else_does(changes: dict[str, str]) -> None:
    assert challenge(**changes) is None


def test_without_a_token_of_ours_nobody_is_believed() -> None:
    asked = {"hub.mode": "subscribe", "hub.challenge": "1"}
    assert wire.challenge(asked, "") is None
    assert wire.challenge(asked | {"hub.verify_token": ""}, "") is None


# ---- what users wrote


def test_words_are_read_with_their_writer() -> None:
    assert wire.read(body_of(value_of(text_of(ANN, "  Hello ")))).messages == [
        (PHONE_ID, ANN, Heard("wamid.1", 1_700_000_000, "Ann", text="Hello"))
    ]


def test_entries_changes_and_messages_are_all_read_in_their_order() -> None:
    values = [value_of(text_of(ANN, "1", 1), text_of(BOB, "2", 2)), value_of(text_of(ANN, "3", 3))]
    found = wire.read(body_of(*values, entries=2)).messages
    assert [(peer, heard.name, heard.text) for _, peer, heard in found] == [
        (ANN, "Ann", "1"), (BOB, "", "2"), (ANN, "Ann", "3"),
    ] * 2  # fmt: skip


@pytest.mark.parametrize("kind", ["image", "audio", "location", "reaction", "unsupported", "order", "what comes next"])
def test_what_is_no_words_keeps_its_json(kind: str) -> None:
    message = {"from": ANN, "id": "wamid.1", "timestamp": "1", "type": kind, kind: {"id": "7"}}
    ((_, _, heard),) = wire.read(body_of(value_of(message))).messages
    assert (heard.text, json.loads(heard.raw)) == ("", message)


def test_a_pressed_button_keeps_its_json_and_a_huge_message_only_its_kind() -> None:
    said = meta.message_of(meta.Said(sender=ANN, button="pay:token"), "wamid.1", 7)
    ((_, _, heard),) = wire.read(body_of(value_of(said))).messages
    assert json.loads(heard.raw)["interactive"]["button_reply"]["id"] == "pay:token"
    huge = {"from": ANN, "id": "wamid.2", "timestamp": "1", "type": "image", "image": {"caption": "x" * 9000}}
    ((_, _, heard),) = wire.read(body_of(value_of(huge))).messages
    assert json.loads(heard.raw) == {"type": "image"}


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Hello", ""), ("", ""), ("12 €", ""), ("Привет, ключи есть?", "ru"), ("Netflix на месяц", "ru"),
        ("Привіт", "uk"), ("Ґанок", "uk"), ("є ключі?", "uk"),
    ],
)  # fmt: skip
def test_letters_tell_the_language(text: str, language: str) -> None:
    assert wire.language(text) == language


def test_a_long_text_and_name_are_cut_and_a_blank_text_is_no_words() -> None:
    named = value_of(text_of(ANN, "x" * 5000), contacts=[{"profile": {"name": "N" * 500}, "wa_id": ANN}])
    ((_, _, heard),) = wire.read(body_of(named)).messages
    assert (len(heard.text), len(heard.name)) == (wire.MAX_TEXT, wire.MAX_NAME)
    ((_, _, blank),) = wire.read(body_of(value_of(text_of(ANN, " \n")))).messages
    assert (blank.text, json.loads(blank.raw)["type"]) == ("", "text")


@pytest.mark.parametrize(
    "body",
    [
        EMPTY,
        b'{"object":"page","entry":[{"changes":[{"field":"messages","value":{}}]}]}',
        body_of({"anything": 1}, field="account_update"),
        body_of(value_of(messages=[], errors=[{"code": 131051}])),
        body_of(value_of({"id": "wamid.1", "timestamp": "1", "type": "text", "text": {"body": "hi"}})),
        body_of(value_of(text_of("US.1234567890", "from behind a user name"))),
    ],
    ids=["empty", "another object", "another field", "errors", "no phone", "no digits"],
)  # fmt: skip
def test_what_is_not_ours_is_skipped(body: bytes) -> None:
    assert wire.read(body) == wire.Told([], [], [])


def broken(change: Callable[[dict[str, Any]], object]) -> bytes:
    message = text_of(ANN, "hi")
    change(message)
    return body_of(value_of(message))


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"null", b"{", b'{"object":1}', b'{"entry":[]}', b'\xff{"object":"x"}',
        b'{"object":"whatsapp_business_account","object":"x","entry":[]}',
        b'{"object":"whatsapp_business_account","entry":{}}',
        body_of(value_of(*[text_of(ANN, "x")] * (wire.MOST + 1))),
        b'{"object":"whatsapp_business_account","entry":' + b"[" * 50_000,
    ],
)  # fmt: skip
def test_what_is_no_webhook_of_theirs_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        wire.read(body)
    assert ANN not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b'{"object":"whatsapp_business_account","entry":[7]}',
        b'{"object":"whatsapp_business_account","entry":[{"changes":[7]}]}',
        b'{"object":"whatsapp_business_account","entry":[{"changes":[{"field":"messages","value":[]}]}]}',
        body_of({"messages": []}), body_of(value_of(metadata={"phone_number_id": "1/../2"})),
        broken(lambda m: m.pop("id")), broken(lambda m: m.update(id="")), broken(lambda m: m.update(id="x" * 201)),
        broken(lambda m: m.update(id="a b")), broken(lambda m: m.update(timestamp=1)),
        broken(lambda m: m.update(timestamp="-1")), broken(lambda m: m.update(timestamp="٣")),
        broken(lambda m: m.update({"from": 380501234567})),
    ],
)  # fmt: skip
def test_a_part_that_contradicts_its_shape_is_left_out_and_told(body: bytes) -> None:
    told = wire.read(body)
    assert (told.messages, told.failed, len(told.odd)) == ([], [], 1)
    assert ANN not in told.odd[0]


def test_what_is_beside_it_is_read() -> None:
    bad: list[Any] = [7, None, {}, text_of(ANN, "x") | {"id": "a b"}, text_of(ANN, "x") | {"timestamp": 1}]
    failures = [None, {"id": 5}, {"id": "q", "status": "failed", "errors": 7}, meta.status_of("w", ANN, "failed", 1, 7)]
    contacts = [5, {"wa_id": BOB, "profile": None}, {"wa_id": ANN, "profile": {"name": "Ann"}}]
    value = value_of(*bad, text_of(ANN, "hi"), contacts=contacts, statuses=failures)
    told = wire.read(body_of({"metadata": 7}, value, value_of(contacts=None, messages=None, statuses=None)))
    assert told.messages == [(PHONE_ID, ANN, Heard("wamid.1", 1_700_000_000, "Ann", text="hi"))]
    assert [one.code for one in told.failed] == [7]
    assert len(told.odd) == 1 + 2 + 5 + 3


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a\x00b", "a\ufffdb"), ("\ud800", "\ufffd"), (r"what does \u0000 mean", r"what does \u0000 mean"),
        ("half \ud83d", "half \ufffd"), ("\ud83d\ude42", "🙂"),
    ],
)  # fmt: skip
def test_whatever_somebody_writes_is_read_as_far_as_it_can_be_kept(text: str, read: str) -> None:
    told = wire.read(body_of(value_of(text_of(ANN, text))))
    assert ([heard.text for _, _, heard in told.messages], told.odd) == ([read], [])


def test_words_that_are_none_are_kept_as_something_else() -> None:
    told = wire.read(broken(lambda m: m.update(text="hi")))
    assert [(heard.text, json.loads(heard.raw)["type"]) for _, _, heard in told.messages] == [("", "text")]
    assert len(told.odd) == 1


@given(st.binary(max_size=200))
def test_no_bytes_give_anything_but_messages_or_a_refusal(body: bytes) -> None:
    with suppress(Malformed):
        assert wire.read(body)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12) | st.sampled_from([ANN, "text", "failed", "1"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["from", "id", "timestamp", "type", "text", "body", "metadata", "phone_number_id", "messages", "statuses",
             "contacts", "errors", "status", "wa_id", "profile", "name", "code", "changes", "field", "value"]
        ),
        inner, max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip


@given(ANYTHING, st.sampled_from(["messages", "statuses", "contacts", "metadata"]))
def test_no_json_gives_anything_but_messages_or_a_refusal(anything: Any, place: str) -> None:
    for body in (body_of(value_of(**{place: anything})), body_of(anything), body_of(value_of(**{place: [anything]}))):
        with suppress(Malformed):
            assert wire.read(body)


def test_failures_of_our_messages_are_told_apart() -> None:
    told = [
        meta.status_of("wamid.1", ANN, "read", 1), meta.status_of("wamid.1", ANN, "sent", 1),
        meta.status_of("wamid.2", ANN, "failed", 1, 131047), meta.status_of("wamid.3", ANN, "failed", 1, 131026),
        meta.status_of("wamid.4", ANN, "failed", 1), {"id": "wamid.5", "status": "what comes next"},
    ]  # fmt: skip
    body = body_of(value_of(messages=[], statuses=told))
    told_of = wire.read(body)
    failed = told_of.failed
    assert [one.code for one in failed] == [131047, 131026, 0]
    assert len({one.external_id for one in failed}) == 3
    assert "wamid" not in str(failed)  # Meta's ids spell phones
    assert (told_of.messages, told_of.odd) == ([], [])


# ---- replies


def offers(count: int, *, price_minor: int = 10_000, title: str = "Key") -> list[Offer]:
    return [Offer(n, f"{title} {n}", 1, price_minor, "RUB", f"token{n}") for n in range(1, count + 1)]


def test_a_reply_with_offers_is_one_message_with_a_button_for_each() -> None:
    (one,) = written("en", "Here it is.", offers(1))
    assert (one.text, [(b.id, b.title) for b in one.buttons]) == ("Here it is.", [("pay:token1", "Pay 100.00 RUB")])
    (several,) = written("en", "Look:", offers(3))
    assert [button.title for button in several.buttons] == [f"{n}: pay 100.00 RUB" for n in (1, 2, 3)]
    assert several.text == "Look:\n\n1. Key 1: 100.00 RUB\n2. Key 2: 100.00 RUB\n3. Key 3: 100.00 RUB"


def test_offers_beyond_three_are_listed() -> None:
    (reply,) = written("uk", "Ось:", offers(5))
    assert [button.id for button in reply.buttons] == ["pay:token1", "pay:token2", "pay:token3"]
    assert f"{texts.more('uk')}\nKey 4: 100.00 RUB\nKey 5: 100.00 RUB" in reply.text


@given(
    st.sampled_from(["en", "ru", "uk", "pt-br", ""]), st.text(max_size=200), st.integers(0, 60), st.integers(0, 6),
    st.integers(1, 2**47), st.text(max_size=150),
)  # fmt: skip
def test_whatever_is_said_is_what_whatsapp_takes(
    language: str, text: str, times: int, count: int, price_minor: int, title: str
) -> None:
    parts = written(language, text * times, offers(count, price_minor=price_minor, title=title))
    for part in parts:
        buttons = {"buttons": [{"type": "reply", "reply": {"id": b.id, "title": b.title}} for b in part.buttons]}
        kind: dict[str, Any] = {"type": "text", "text": {"body": part.text}}
        if part.buttons:
            kind = {"type": "interactive", "interactive": {"type": "button", "body": {"text": part.text}}}
            kind["interactive"]["action"] = buttons
        assert meta.checked(kind)
    pressed = [button for part in parts for button in part.buttons]
    assert len(pressed) == min(count, MAX_BUTTONS)
    assert not parts or all(not part.buttons for part in parts[:-1])
    assert all(len(button.title) <= MAX_TITLE for button in pressed)


def test_a_long_reply_goes_ahead_of_its_buttons() -> None:
    text = "\n".join(f"line {n}" for n in range(1000))
    parts = written("ru", text, offers(2))
    assert [len(part.buttons) for part in parts] == [0, 0, 0, 2]
    assert "\n".join(part.text for part in parts[:-1]) == text
    assert all(len(part.text) <= MAX_TEXT for part in parts)
    assert len(parts[-1].text) <= MAX_BODY


def test_nothing_said_is_nothing_sent() -> None:
    assert written("en", " \n") == []


def test_the_window_is_a_day_from_what_was_written_last() -> None:
    now = datetime(2026, 11, 22, tzinfo=UTC)
    assert is_open(now - timedelta(hours=23, minutes=58), now)
    assert not is_open(now - timedelta(hours=23, minutes=59), now)  # Meta's clock is not ours
    assert not is_open(None, now)


def test_every_text_is_there_in_every_language() -> None:
    for code in ("en", "ru", "uk"):
        for word in texts.WORDS:
            assert texts.said(word, code)
        assert len({texts.said(word, code) for word in texts.WORDS}) == len(texts.WORDS)
