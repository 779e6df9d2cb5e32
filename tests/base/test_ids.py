"""Ids ascend, are UUIDs of version 7, and have one spelling."""

import time
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.base.ids import new_id, parse_id

calm = settings(deadline=None)  # the machine may be busy


def test_an_id_is_a_uuid_of_version_7() -> None:
    for value in [new_id() for _ in range(1000)]:
        assert (value.version, value.variant) == (7, RFC_4122)


def test_ids_of_later_milliseconds_are_greater() -> None:
    ids = []
    for _ in range(20):
        ids.append(new_id())
        time.sleep(0.002)
    assert ids == sorted(ids)
    assert [str(one) for one in ids] == sorted(str(one) for one in ids)


def test_an_id_carries_its_moment() -> None:
    before_ms = time.time_ns() // 1_000_000
    stamp_ms = new_id().int >> 80
    assert before_ms <= stamp_ms <= time.time_ns() // 1_000_000


def test_ids_of_one_millisecond_differ_in_every_random_bit() -> None:
    ids = [new_id().int for _ in range(2000)]
    assert len(set(ids)) == 2000
    random = (1 << 62) - 1 | ((1 << 12) - 1) << 64
    seen_one, seen_zero = 0, 0
    for value in ids:
        seen_one |= value
        seen_zero |= ~value
    assert seen_one & random == random
    assert seen_zero & random == random


@calm
@given(st.uuids())
def test_an_id_is_read_from_its_canonical_spelling(value: UUID) -> None:
    assert parse_id(str(value)) == value
    if str(value) != str(value).upper():
        assert parse_id(str(value).upper()) is None
    for other in (value.hex, f"{{{value}}}", f"urn:uuid:{value}", f" {value}", f"{value}\n", str(value)[:-1]):
        assert parse_id(other) is None


@pytest.mark.parametrize("text", ["", "x", "1", "\0", "a" * 10_000, "٠" * 32, "é", "0" * 32, "-" * 36, "g" * 36])
def test_what_is_no_id_is_none(text: str) -> None:
    assert parse_id(text) is None
