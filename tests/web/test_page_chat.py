"""The chat's page beside the server that it speaks to: what is sent and read exists, on both sides."""

import re
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from app import errors
from app.channels.line import Offer
from app.flows import offer
from app.flows.put_aside import Aside
from app.web import chat, reply
from app.web.cart import Taken
from app.web.orders import NewOrder
from tests.web.test_page import INDEX, SOURCES, names

VIEW, CARD = SOURCES["view-chat.js"], SOURCES["offer.js"]


def fields(kind: type[msgspec.Struct]) -> set[str]:
    return set(kind.__struct_fields__)


def found(pattern: str, source: str) -> set[str]:
    """The names that the pattern's one group takes out of the source, of which there are some."""
    told = set(re.findall(pattern, source))
    assert told, pattern
    return told


def test_a_message_is_sent_as_the_api_reads_it() -> None:
    (kept,) = found(r"const asked = \{ (.*?) \};", VIEW)
    (more,) = found(r"api\.chat\(\{ \.\.\.asked, (.*?) \}", VIEW)
    assert {name.partition(":")[0] for name in names(kept) | names(more)} == fields(chat.Asked)
    (most,) = found(r"const MOST_TEXT = (\d+);", VIEW)
    said = {"id": str(uuid4()), "language": "uk"}
    assert msgspec.convert(said | {"text": "x" * int(most)}, chat.Asked)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(said | {"text": "x" * (int(most) + 1)}, chat.Asked)


def test_every_kind_of_event_is_heard() -> None:
    sent = Path(reply.__file__).read_text()
    kinds = found(r'_framed\(b"(\w+)"', sent) | found(r'b"event: (\w+)\\n', sent)
    assert found(r'kind === "(\w+)"', VIEW) == kinds


def test_what_is_read_of_an_event_is_in_it() -> None:
    assert found(r"what\.(\w+)", VIEW) <= fields(reply.Piece) | {"status"}  # the text, and a problem's own member
    (end,) = found(r"function finish\(place, words, offers, \{ (.*?) \}", VIEW)
    assert {name.partition(":")[0] for name in names(end)} <= fields(reply.Done)
    assert found(r"\bone\.(\w+)", CARD) <= fields(Offer)


def test_what_is_read_of_the_chat_so_far_is_in_it() -> None:
    assert found(r"\b(?:so|now)\.(\w+)", VIEW) == fields(chat.Chat)
    (read,) = found(r"function old\(\{ (.*?) \}\)", VIEW)
    assert names(read) == fields(chat.Said)
    (roles,) = found(r"const OF_HUMANS = new Set\(\[(.*?)\]\)", VIEW)
    assert names(roles.replace('"', "")) == {"agent", "system"}


def test_an_offer_is_ordered_as_the_api_reads_it() -> None:
    (sent,) = found(r"`offer\.\$\{offer\}`, JSON\.stringify\(\{ (.*?) \}\)", SOURCES["checkout.js"])
    assert names(sent) <= fields(NewOrder)
    assert msgspec.convert(dict.fromkeys(names(sent), "crystalpay"), NewOrder)


def test_an_offer_that_cannot_be_had_loses_its_button() -> None:
    (over,) = found(r"const OVER = new Set\(\[(.*?)\]\)", CARD)
    assert names(over.replace('"', "")) == {errors.BadOffer.type, errors.OfferStale.type, errors.OutOfStock.type}


def test_an_offer_is_kept_by_the_page_for_as_long_as_it_is_good() -> None:
    ((minutes, ms),) = re.findall(r"const OFFERED_MS = (\d+) \* ([\d_]+);", VIEW)
    assert int(minutes) * int(ms) == offer.LIFE_S * 1000


def test_what_was_put_aside_is_read_as_it_is_told() -> None:
    source = SOURCES["aside.js"]
    assert found(r"found\.(\w+)", source) == fields(Taken)
    (line,) = found(r"filter\(\(\{ (.*?) \}\)", source)
    assert names(line) == fields(Aside)


def test_the_keyboard_leaves_the_field_in_sight() -> None:
    assert "interactive-widget=resizes-content" in INDEX
    assert 'setProperty("--keys"' in VIEW
