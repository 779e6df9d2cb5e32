"""JSON from strangers has one meaning or none."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.base.strictjson import BadJson, decode_object

calm = settings(deadline=None)  # the machine may be busy

# What Postgres text and UTF-8 can hold.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
objects = st.dictionaries(texts, values, max_size=6)


@calm
@given(objects, st.booleans(), st.sampled_from([None, 1]))
def test_an_unambiguous_object_is_what_json_says(given_: dict[str, Any], ascii_only: bool, indent: int | None) -> None:
    body = json.dumps(given_, ensure_ascii=ascii_only, indent=indent).encode()
    assert decode_object(body) == json.loads(body) == given_


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (rb'{"a": "\\u0000"}', r"\u0000"),  # as somebody writes it who speaks of it
        (rb'{"a": "\\\\u0000 \\ud800"}', r"\\u0000 \ud800"),
        (rb'{"a": "\"\\"}', '"\\'),
    ],
)
@pytest.mark.parametrize("mend", [False, True])
def test_an_escaped_backslash_begins_no_escape(body: bytes, text: str, mend: bool) -> None:
    assert decode_object(body, mend=mend) == {"a": text}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (rb'{"a": "x\u0000y"}', "x\ufffdy"),
        (rb'{"a": "\ud83d"}', "\ufffd"),
        (rb'{"a": "\ude42\ud83d"}', "\ufffd\ufffd"),
        (rb'{"a": "\ud83d\ud83d\ude42\ude42"}', "\ufffd\U0001f642\ufffd"),
        (rb'{"a": "\uD83D\uDE42\\\u0000"}', "\U0001f642\\\ufffd"),
    ],
)
def test_what_people_write_into_is_mended(body: bytes, text: str) -> None:
    assert decode_object(body, mend=True) == {"a": text}


@calm
@given(st.text(st.characters(exclude_categories=[]), max_size=20))
def test_any_text_of_people_is_read(text: str) -> None:
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # as JSON pairs halves, too
    assert decode_object(json.dumps({"a": text}).encode(), mend=True) == {"a": whole.replace("\0", "\ufffd")}


@calm
@given(st.binary(max_size=60))
def test_any_bytes_are_an_object_or_bad_json(body: bytes) -> None:
    try:
        assert isinstance(decode_object(body), dict)
    except BadJson:
        return


@calm
@given(objects.filter(bool), values)
def test_a_repeated_key_is_refused_wherever_it_is(given_: dict[str, Any], value: Any) -> None:
    first = next(iter(given_))
    twice = f"{{{json.dumps(first)}: {json.dumps(value)}, {json.dumps(given_)[1:]}"
    for body in (twice, f'{{"inside": {twice}}}', f'{{"list": [1, {twice}]}}'):
        with pytest.raises(BadJson, match=r"repeated|NUL"):
            decode_object(body.encode())


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"{} {}", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": 01}', "not JSON"),
        (b'{"a": 1,}', "not JSON"),
        (b'{"a": "\n"}', "not JSON"),
        (b'{"a": "\x00"}', "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"a":' * 100_000, "not JSON"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not JSON"),
        (b"[]", "not an object"),
        (b'"a"', "not an object"),
        (b"1", "not an object"),
        (b"null", "not an object"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b'{"a": "\\u0000"}', "NUL"),
        (b'{"a": "\\ud800"}', "UTF-8"),
        (b'{"\\udfff": 1}', "UTF-8"),
        (b'{"a": ["\\udc00\\ud800"]}', "UTF-8"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "UTF-8"),
        (b'{"a": 1, "\\u0061": 2}', "repeated"),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_what_is_not_one_object_is_refused_and_says_why(body: bytes, why: str) -> None:
    with pytest.raises(BadJson, match=why):
        decode_object(body)


def test_a_surrogate_pair_is_one_character() -> None:
    assert decode_object(b'{"a": "\\ud83d\\ude42"}') == {"a": "🙂"}


def test_a_refusal_does_not_tell_what_the_body_holds() -> None:
    with pytest.raises(BadJson) as caught:
        decode_object(b'{"secret-key": "s3cret", "secret-key": NaN')
    assert "secret" not in str(caught.value)
    assert "s3cret" not in str(caught.value)
