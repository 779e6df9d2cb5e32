"""initData is believed only as Telegram signed it, for our bot, and fresh (PROTOCOLS §7.2)."""

import hmac
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from app.channels.telegram.initdata import MAX_FUTURE_S, TelegramUser, verify
from app.errors import BadInitData
from app.sandbox.initdata import sign_init_data

TOKEN = "7342037359:AAHI25ES9xCOMPokpYoz-p8XVrZUdygo2J4"
NOW = 1_733_509_700
ANN = {"id": 5001, "first_name": "Ann"}

# PUBLISHED: telegram-apps, apps/docs/platform/init-data.md and init-data-golang.md.
PUBLISHED = (
    "user=%7B%22id%22%3A279058397%2C%22first_name%22%3A%22Vladislav%20%2B%20-%20%3F%20%5C%2F%22%2C%22last_name%22%3A%22"
    "Kibenko%22%2C%22username%22%3A%22vdkfrost%22%2C%22language_code%22%3A%22ru%22%2C%22is_premium%22%3Atrue%2C%22"
    "allows_write_to_pm%22%3Atrue%2C%22photo_url%22%3A%22https%3A%5C%2F%5C%2Ft.me%5C%2Fi%5C%2Fuserpic%5C%2F320%5C%2F"
    "4FPEE4tmP3ATHa57u6MqTDih13LTOiMoKoLDRG4PnSA.svg%22%7D&chat_instance=8134722200314281151&chat_type=private&"
    "auth_date=1733509682&signature=TYJxVcisqbWjtodPepiJ6ghziUL94-KNpG8Pau-X7oNNLNBM72APCpi_RKiUlBvcqo5L-LAxIc3dnTzcZX_"
    "PDg&hash=a433d8f9847bd6addcc563bff7cc82c89e97ea0d90c11fe5729cae6796a36d73"
)


def signed(user: Any = ANN, *, auth_date: int = NOW, token: str = TOKEN, **extra: str) -> str:
    return sign_init_data(token, user, auth_date=auth_date, **extra)


def check(init_data: str, *, now_s: int = NOW, max_age_s: int = 3600, token: str = TOKEN) -> TelegramUser:
    return verify(init_data, token, now_s=now_s, max_age_s=max_age_s)


def refused(init_data: str, why: str, **how: int) -> None:
    with pytest.raises(BadInitData) as caught:
        check(init_data, **how)  # type: ignore[arg-type]
    assert why in caught.value.detail
    assert "AAHI25" not in str(caught.value)


def test_the_published_vector_is_verified() -> None:
    user = check(PUBLISHED)
    assert (user.id, user.name, user.username, user.language_code) == (
        279058397, "Vladislav + - ? / Kibenko", "vdkfrost", "ru",
    )  # fmt: skip


def test_the_published_vector_holds_with_its_signature_field_alone() -> None:
    start, _, rest = PUBLISHED.partition("&signature=")
    refused(f"{start}&hash={rest.partition('&hash=')[2]}", "hash")


def test_every_altered_character_is_noticed() -> None:
    plain = signed(query_id="AA", start_param="")
    for at in range(0, len(plain), 3):
        other = "0" if plain[at] != "0" else "1"
        with pytest.raises(BadInitData):
            check(plain[:at] + other + plain[at + 1 :])


@pytest.mark.parametrize(
    ("now_s", "why"),
    [
        (NOW, ""),
        (NOW + 3600, ""),
        (NOW + 3601, "older"),
        (NOW - MAX_FUTURE_S, ""),
        (NOW - MAX_FUTURE_S - 1, "future"),
        (0, "future"),
    ],
)
def test_only_fresh_data_counts(now_s: int, why: str) -> None:
    if why:
        refused(signed(), why, now_s=now_s)
    else:
        assert check(signed(), now_s=now_s).id == 5001


@pytest.mark.parametrize(
    "auth_date", ["", "x", "-1", "1e9", "NaN", "1733509700.5", "١", "9" * 13, "9" * 5000, " 1", "+1"]
)
def test_an_auth_date_that_is_no_number_is_refused(auth_date: str) -> None:
    fields = {"user": '{"id":5001,"first_name":"Ann"}', "auth_date": auth_date}
    refused(by_hand(fields), "auth_date")


def test_data_without_an_auth_date_is_refused() -> None:
    refused(by_hand({"user": '{"id":5001,"first_name":"Ann"}'}), "auth_date")


def by_hand(fields: dict[str, str], token: str = TOKEN) -> str:
    """Signed without the simulator, which always has a user and a date."""
    text = "\n".join(f"{name}={fields[name]}" for name in sorted(fields))
    secret = hmac.digest(b"WebAppData", token.encode(), "sha256")
    return urlencode(fields | {"hash": hmac.digest(secret, text.encode(), "sha256").hex()}, quote_via=quote)


@pytest.mark.parametrize(
    ("init_data", "why"),
    [
        (signed(token="1:A"), "hash"),
        (signed() + "&start_param=", "hash"),
        (signed(start_param="").replace("&start_param=", ""), "hash"),
        (signed().replace("hash=", "hash=00"), "hash"),
        (signed().rpartition("&hash=")[0], "hash"),
        (signed().rpartition("&hash=")[0] + "&hash=%D0%B0", "hash"),
        ("hash=" + signed().rpartition("=")[2].upper() + "&" + signed().rpartition("&hash=")[0], "hash"),
        (signed() + "&user=x", "repeated"),
        (signed() + "&hash=x", "repeated"),
        ("auth_date=1&" + signed(), "repeated"),
        ("", "hash"),
        ("hello", "query string"),
        (signed() + "&", "query string"),
        (signed() + "&a=%FF", "query string"),
        (signed(start_param="x" * 9000), "too long"),
        (signed(start_param="я" * 4500).replace(quote("я"), "я"), "too long"),
        ("user=\ud800", "query string"),
        (signed(**{f"f{n}": "" for n in range(62)}), "query string"),  # type: ignore[arg-type]
        (signed(ANN | {"is_bot": True}), "user"),
        (signed(ANN | {"id": 0}), "user"),
        (signed(ANN | {"id": -5}), "user"),
        (signed(ANN | {"id": 2**52}), "user"),
        (signed(ANN | {"id": "5001"}), "user"),
        (signed({"id": 5001}), "user"),
        (signed([]), "user"),
        (signed(ANN | {"username": "a\0"}), "NUL"),
        (by_hand({"auth_date": str(NOW)}), "user"),
        (by_hand({"auth_date": str(NOW), "user": ""}), "user"),
        (by_hand({"auth_date": str(NOW), "user": "{"}), "user"),
    ],
    ids=lambda value: repr(value[-40:]),
)
def test_what_proves_nothing_is_refused_with_its_reason(init_data: str, why: str) -> None:
    refused(init_data, why)


@pytest.mark.parametrize(
    ("user", "name"),
    [
        ({"first_name": "Ann"}, "Ann"),
        ({"first_name": "Ann", "last_name": "Lee"}, "Ann Lee"),
        ({"first_name": " ", "last_name": "Lee"}, "Lee"),
        ({"first_name": ""}, ""),
        ({"first_name": "Анна", "last_name": "🙂"}, "Анна 🙂"),
        ({"first_name": "a\0b"}, "ab"),
        ({"first_name": "x" * 150, "last_name": "y" * 150}, "x" * 150 + " " + "y" * 49),
    ],
    ids=repr,
)
def test_the_name_is_what_can_be_shown(user: dict[str, Any], name: str) -> None:
    assert check(signed({"id": 1} | user)).name == name
