"""What an endpoint is sent is signed as Standard Webhooks says: the published vector, and the published verifier."""

import base64
from typing import get_args
from uuid import uuid4

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from app.base import clock
from app.domain import endpoints
from app.infra.secrets import Sealer, Unsealable, endpoint_row
from app.web.admin_endpoints import Type

SEALER = Sealer(f"k1:{base64.b64encode(b'k' * 32).decode()}")
BODY = b'{"type":"order.paid","data":{"number":7}}'


def test_the_published_vector() -> None:
    """PROTOCOLS §9."""
    headers = endpoints.signed(
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_the_published_verifier_agrees_and_sees_every_change() -> None:
    secret = endpoints.new_secret()
    headers = endpoints.signed([secret], "evt_1", clock.unix_s(), BODY)
    assert Webhook(secret).verify(BODY, headers) == {"type": "order.paid", "data": {"number": 7}}
    wrong = [
        (BODY + b" ", headers), (BODY, headers | {"webhook-id": "evt_2"}),
        (BODY, headers | {"webhook-timestamp": str(clock.unix_s() - 1)}),
        (BODY, endpoints.signed([secret], "evt_1", clock.unix_s() - 400, BODY)),
        (BODY, endpoints.signed([endpoints.new_secret()], "evt_1", clock.unix_s(), BODY)),
    ]  # fmt: skip
    for body, given in wrong:
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, given)


def test_while_secrets_are_rotated_each_of_the_two_verifies() -> None:
    old, new = endpoints.new_secret(), endpoints.new_secret()
    headers = endpoints.signed([new, old], "evt_1", clock.unix_s(), BODY)
    assert len(headers["webhook-signature"].split(" ")) == 2
    for secret in (old, new):
        Webhook(secret).verify(BODY, headers)


def test_a_secret_is_32_random_bytes_and_says_what_it_is() -> None:
    secrets = {endpoints.new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert {len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) for secret in secrets} == {32}
    assert all(secret.startswith("whsec_") for secret in secrets)


def test_a_secret_opens_only_for_its_own_endpoint() -> None:
    ours, theirs = uuid4(), uuid4()
    old, new = (SEALER.seal(secret, endpoint_row(ours)) for secret in (b"whsec_old", b"whsec_new"))
    target = endpoints.Target(1, "https://a.example/", new, old, "")
    assert endpoints.opened(SEALER, ours, target) == ["whsec_new", "whsec_old"]
    with pytest.raises(Unsealable):
        endpoints.opened(SEALER, theirs, target)


def test_what_can_be_asked_for_is_what_the_admin_api_takes() -> None:
    assert get_args(Type) == endpoints.TYPES
