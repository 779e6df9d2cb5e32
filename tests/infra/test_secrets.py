"""Goods are sealed to their own row, tokens prove exactly what was issued."""

import base64
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.infra.secrets import (
    BadKeys,
    Confirmation,
    Confirmations,
    Sealer,
    Session,
    Tokens,
    Unsealable,
    same,
    shared_row,
    stock_row,
)

ROW = "stock_items/0197f0aa-0000-7000-8000-000000000001"


def key(name: str, letter: bytes) -> str:
    return f"{name}:{base64.b64encode(letter * 32).decode()}"


OLD, NEW = key("2025", b"o"), key("2026", b"n")


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_what_was_sealed_opens(plain: bytes) -> None:
    assert Sealer(OLD).open(Sealer(OLD).seal(plain, ROW), ROW) == plain


def test_a_seal_hides_what_it_holds_and_never_looks_the_same() -> None:
    seals = {Sealer(OLD).seal(b"KEY-1234-5678", ROW) for _ in range(100)}
    assert len(seals) == 100
    assert not any(b"KEY" in seal for seal in seals)


@pytest.mark.parametrize("row", ["", ROW + "x", ROW[:-1] + "2", "shared_goods/1", f"{ROW} "])
def test_a_seal_opens_in_its_own_row_alone(row: str) -> None:
    with pytest.raises(Unsealable):
        Sealer(OLD).open(Sealer(OLD).seal(b"secret", ROW), row)


def test_every_altered_byte_is_noticed() -> None:
    seal = Sealer(OLD).seal(b"secret", ROW)
    for at in range(len(seal)):
        for bit in (1, 0x80):
            altered = seal[:at] + bytes((seal[at] ^ bit,)) + seal[at + 1 :]
            with pytest.raises(Unsealable):
                Sealer(f"{OLD},{NEW}").open(altered, ROW)


def test_every_cut_is_noticed() -> None:
    seal = Sealer(OLD).seal(b"", ROW)
    for size in range(len(seal)):
        with pytest.raises(Unsealable):
            Sealer(OLD).open(seal[:size], ROW)
    with pytest.raises(Unsealable):
        Sealer(OLD).open(seal + b"\0", ROW)


def test_another_key_opens_nothing() -> None:
    seal = Sealer(OLD).seal(b"secret", ROW)
    for keys in (NEW, key("2025", b"x")):
        with pytest.raises(Unsealable) as caught:
            Sealer(keys).open(seal, ROW)
        assert "secret" not in str(caught.value)


def test_after_a_rotation_the_new_key_seals_and_both_open() -> None:
    before, after = Sealer(OLD), Sealer(f"{NEW}, {OLD}")
    old_seal, new_seal = before.seal(b"secret", ROW), after.seal(b"secret", ROW)
    assert after.open(old_seal, ROW) == after.open(new_seal, ROW) == b"secret"
    with pytest.raises(Unsealable):
        before.open(new_seal, ROW)
    assert Sealer(NEW).open(new_seal, ROW) == b"secret"


def test_a_fingerprint_survives_a_rotation_and_tells_nothing_without_the_key() -> None:
    assert Sealer(OLD).fingerprint(b"KEY") == Sealer(f"{NEW},{OLD}").fingerprint(b"KEY")
    assert Sealer(OLD).fingerprint(b"KEY") != Sealer(NEW).fingerprint(b"KEY")
    assert Sealer(OLD).fingerprint(b"KEY") != Sealer(OLD).fingerprint(b"KEZ")


@pytest.mark.parametrize(
    "keys",
    ["", " , ", "k", "k:", "k:!!!", "k:" + base64.b64encode(b"x" * 31).decode(), ":" + OLD.partition(":")[2],
     "x" * 17 + ":" + OLD.partition(":")[2], "ключ:" + OLD.partition(":")[2], f"{OLD},k:AAAA"],
    ids=lambda keys: repr(keys[:24]),
)  # fmt: skip
def test_bad_keys_are_refused_without_being_told(keys: str) -> None:
    with pytest.raises(BadKeys) as caught:
        Sealer(keys)
    for part in keys.split(","):
        secret = part.partition(":")[2]
        assert len(secret) < 4 or secret not in str(caught.value)


def test_rows_have_names_of_their_own() -> None:
    one, other = uuid4(), uuid4()
    assert len({stock_row(one), stock_row(other), shared_row(1), shared_row(11)}) == 4
    assert stock_row(UUID(int=1)) == "stock_items/00000000-0000-0000-0000-000000000001"


# Tokens.

SECRET = "s" * 32
ANN = Session(user_id=7, role="buyer", expires_s=2_000)


def test_a_token_proves_its_session_until_it_ends() -> None:
    token = Tokens(SECRET).issue(ANN)
    assert Tokens(SECRET).read(token, now_s=1_999) == ANN
    assert Tokens(SECRET).read(token, now_s=2_000) is None
    assert Tokens("t" * 32).read(token, now_s=0) is None


def test_every_altered_character_of_a_token_is_noticed() -> None:
    token = Tokens(SECRET).issue(ANN)
    for at in range(len(token)):
        for other in "A0.":
            altered = token[:at] + other + token[at + 1 :]
            assert altered == token or Tokens(SECRET).read(altered, now_s=0) is None, altered
    for size in range(len(token)):
        assert Tokens(SECRET).read(token[:size], now_s=0) is None


@pytest.mark.parametrize(
    "text", ["", ".", "....", "v1.7.admin.2000.", "v1.7.admin.2000", "é", "\0", "a" * 100_000, "١.١.١"]
)
def test_what_is_no_token_proves_nothing(text: str) -> None:
    assert Tokens(SECRET).read(text, now_s=0) is None


ASKED = Confirmation(7, "o'hara+x@xn--80a1acny.xn--p1ai", 2_000_000_000)


def test_a_link_proves_who_asked_for_which_address_and_until_when() -> None:
    token = Confirmations(SECRET).issue(ASKED)
    assert Confirmations(SECRET).read(token) == ASKED
    assert Confirmations("another secret of 32 characters!").read(token) is None


def test_every_altered_character_of_a_link_is_noticed() -> None:
    links = Confirmations(SECRET)
    token = links.issue(ASKED)
    for place in range(len(token)):
        for other in "A1._-é":
            altered = token[:place] + other + token[place + 1 :]
            # The last character's spare bits say nothing: the same bytes in another spelling.
            assert altered == token or links.read(altered) in ((None, ASKED) if place == len(token) - 1 else (None,))
        assert links.read(token[:place]) is None


def test_a_session_is_no_link_and_a_link_is_no_session() -> None:
    link = Confirmations(SECRET).issue(ASKED)
    assert Tokens(SECRET).read(link, now_s=0) is None
    assert Confirmations(SECRET).read(Tokens(SECRET).issue(Session(7, "email", 2_000_000_000))) is None


@given(
    st.text(max_size=120) | st.from_regex(r"v1\.[0-9]{1,3}\.email\.[0-9]{1,12}\.[A-Za-z0-9_-]{0,80}", fullmatch=True)
)
def test_what_is_no_link_proves_nothing(text: str) -> None:
    assert Confirmations(SECRET).read(text) is None


def test_sameness_is_of_every_byte() -> None:
    assert same(b"", b"")
    assert same("é".encode(), "é".encode())
    assert not same(b"a", b"ab")
    assert not same(b"a", b"b")
