"""A signed call proves its body, its address and its time, or nothing; whatever it is, it is refused in one way."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from app.base import clock
from app.errors import BadSignature
from app.infra.qstash import LEEWAY_S, LONGEST_S, MAX_ID, Keys, Proven

CURRENT, FOLLOWING = "sig_current_key_of_the_tests_0123", "sig_following_key_of_the_tests_01"
URL = "https://shop.example/api/workers/deliver-goods"
BODY = b'{"order_id":"o1"}'
BODY_CLAIM = "apCOSQ0NiKVfg5h95UAMZdi60S22pK3lBnsAvDAQZew"  # PROTOCOLS §8, SELF

KEYS = Keys(CURRENT, FOLLOWING)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def claims(**changes: Any) -> dict[str, Any]:
    """As QStash makes them; a claim that is changed to None is left out."""
    now_s = clock.unix_s()
    made = {
        "iss": "Upstash",
        "sub": URL,
        "exp": now_s + 3600,
        "nbf": now_s,
        "iat": now_s,
        "jti": "jwt_1",
        "body": BODY_CLAIM,
    }
    return {name: value for name, value in (made | changes).items() if value is not None}


def token(payload: object = None, *, key: str = CURRENT, header: object = None, **changes: Any) -> str:
    """Signed by hand, so that it can be anything."""
    head = {"alg": "HS256", "typ": "JWT"} if header is None else header
    parts = [
        part if isinstance(part, bytes) else json.dumps(part).encode() for part in (head, payload or claims(**changes))
    ]
    text = ".".join(map(b64, parts))
    return f"{text}.{b64(hmac.digest(key.encode(), text.encode(), 'sha256'))}"


def verify(given: str, body: bytes = BODY, keys: Keys = KEYS) -> Proven:
    return keys.verify(given, body, URL)


@pytest.mark.parametrize("key", [CURRENT, FOLLOWING])
def test_what_either_key_signed_is_proven(key: str) -> None:
    made = claims()
    assert verify(jwt.encode(made, key, algorithm="HS256")) == Proven("jwt_1", made["exp"])
    assert verify(token(made, key=key)) == Proven("jwt_1", made["exp"])


def test_the_bodys_claim_is_the_one_of_the_vector() -> None:
    assert b64(hashlib.sha256(BODY).digest()) == BODY_CLAIM


def test_without_a_following_key_only_the_current_one_counts() -> None:
    keys = Keys(CURRENT, "")
    assert verify(token(), keys=keys).id == "jwt_1"
    for key in (FOLLOWING, "", "\0"):
        with pytest.raises(BadSignature):
            verify(token(key=key), keys=keys)
    with pytest.raises(BadSignature):
        verify(token(key=""), keys=Keys("", ""))


ALLOWED: dict[str, Callable[[], dict[str, Any]]] = {
    "a padded body claim": lambda: {"body": f"{BODY_CLAIM}="},
    "a clock that is a little ahead": lambda: {"nbf": clock.unix_s() + LEEWAY_S - 5},
    "a clock that is a little behind": lambda: {"exp": clock.unix_s() - LEEWAY_S + 5},
    "a fraction": lambda: {"exp": clock.unix_s() + 300.5},
    "no iat": lambda: {"iat": None},
    "an audience of nobody's": lambda: {"aud": "x"},
    "the longest id": lambda: {"jti": "j" * MAX_ID},
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_allowed(name: str) -> None:
    assert verify(token(**ALLOWED[name]()))


LATE = 10**9
WRONG: dict[str, Any] = {
    **{f"no {name}": {name: None} for name in ("iss", "sub", "exp", "nbf", "jti", "body")},
    "expired": {"exp": LATE}, "not yet": {"nbf": 4 * LATE}, "for ever": {"exp": 4 * LATE}, "exp 0": {"exp": 0},
    "exp of text": {"exp": "soon"}, "exp of a list": {"exp": [1]}, "exp of a dict": {"exp": {}},
    "exp true": {"exp": True},
    "exp huge": {"exp": 10**400}, "exp infinite": {"exp": float("inf")}, "exp not a number": {"exp": float("nan")},
    "nbf of a list": {"nbf": [1]}, "nbf infinite": {"nbf": float("inf")}, "exp negative": {"exp": -1},
    "another issuer": {"iss": "upstash"}, "a list of issuers": {"iss": ["Upstash"]}, "iss 1": {"iss": 1},
    "another job": {"sub": "https://shop.example/api/workers/settle-payment"},
    "another host": {"sub": URL.replace("shop", "x")},
    "another scheme": {"sub": URL.replace("https", "http")}, "a slash more": {"sub": f"{URL}/"},
    "a query": {"sub": f"{URL}?a"},
    "upper case": {"sub": URL.upper()}, "a path alone": {"sub": "/api/workers/deliver-goods"},
    "sub of a list": {"sub": [URL]},
    "another body": {"body": b64(hashlib.sha256(b"{}").digest())},
    "a body in hex": {"body": hashlib.sha256(BODY).hexdigest()},
    "the body itself": {"body": BODY.decode()}, "body of a list": {"body": [BODY_CLAIM]},
    "an empty body claim": {"body": ""},
    "a body cut short": {"body": BODY_CLAIM[:-1]}, "a body in upper case": {"body": BODY_CLAIM.upper()},
    "a surrogate body": {"body": "\ud800"}, "not ASCII": {"body": "é" * 43},
    "id 7": {"jti": 7}, "an empty id": {"jti": ""}, "a long id": {"jti": "j" * (MAX_ID + 1)},
    "NUL in the id": {"jti": "a\0b"},
    "a surrogate id": {"jti": "\ud800"}, "a line in the id": {"jti": "a\nb"},
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("key", [CURRENT, FOLLOWING])
def test_a_wrong_claim_is_refused_though_it_is_signed(name: str, key: str) -> None:
    with pytest.raises(BadSignature):
        verify(token(claims(**WRONG[name]), key=key))


def test_other_bytes_are_refused_though_they_mean_the_same() -> None:
    for body in (b'{"order_id": "o1"}', BODY + b"\n", b"", BODY[:-1], b"\xef\xbb\xbf" + BODY):
        with pytest.raises(BadSignature):
            verify(token(), body)


def public_key() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


GOOD = token()
HEAD, PAYLOAD, SIGNATURE = GOOD.split(".")
DEEP = b'{"alg":"HS256","a":' + b"[" * 1500 + b"]" * 1500 + b"}"
ALGORITHMS = ("none", "None", "NONE", "hs256", "RS256", "ES256", "HS512", "", None, 7, ["HS256"])
FORGED: dict[str, str] = {
    "none": "", "a blank": " ", "a dot": ".", "two dots": "..", "four dots": "....", "words": "Bearer x",
    "a million": "a" * 10**6,
    "no signature": f"{HEAD}.{PAYLOAD}.", "no third part": f"{HEAD}.{PAYLOAD}", "a part more": f"{GOOD}.x",
    "another key": token(key="sig_somebody_elses_key_0123456789"), "no key": token(key=""),
    "cut": GOOD[:-1], "a blank behind": f"{GOOD} ", "a line behind": f"{GOOD}\n", "upper case": GOOD.upper(),
    "two of them": f"{GOOD}, {GOOD}", "NUL": f"{GOOD}\0", "not ASCII": f"{GOOD}é", "bytes of old": GOOD.replace("e",
    "é"),
    "another signature": f"{HEAD}.{PAYLOAD}.{b64(bytes(32))}",
    "another payload": f"{HEAD}.{b64(json.dumps(claims(jti='x')).encode())}.{SIGNATURE}",
    "alg none": jwt.encode(claims(), "", algorithm="none"),
    **{f"alg {alg}": token(header={"alg": alg}) for alg in ALGORITHMS},
    "HS512 with our key": jwt.encode(claims(), CURRENT * 2, algorithm="HS512"),
    "no alg": token(header={"typ": "JWT"}), "a list as header": token(header=["HS256"]),
    "a header of bytes": token(header=b"\xff\xfe"),
    "a deep header": token(header=DEEP), "b64 false": token(header={"alg": "HS256", "b64": False, "crit": ["b64"]}),
    "crit": token(header={"alg": "HS256", "crit": ["x"], "x": 1}), "kid of a list": token(header={"alg": "HS256",
    "kid": [1]}),
    "a list as payload": token([1]), "text as payload": token("x"), "a payload of bytes": token(b"\xff"),
    "a deep payload": token(b"[" * 1500 + b"]" * 1500), "not base64": f"{HEAD}.!!!.{SIGNATURE}",
    "five parts": "a.b.c.d.e",
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_token_is_refused(name: str) -> None:
    with pytest.raises(BadSignature) as refused:
        verify(FORGED[name])
    assert CURRENT not in str(refused.value)


def test_a_public_key_is_no_secret_of_ours() -> None:
    """RS256 in the header must not turn a key that everybody has into one that signs."""
    header = {"alg": "RS256"}
    with pytest.raises(BadSignature):
        verify(token(header=header, key=public_key().decode()))


def test_the_longest_life_is_bounded() -> None:
    assert verify(token(exp=clock.unix_s() + LONGEST_S - 5))
    with pytest.raises(BadSignature):
        verify(token(exp=clock.unix_s() + LONGEST_S + 5))
