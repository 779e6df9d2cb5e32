"""Settings are decoded once from TORG_*; what is wrong stops the start with the variable's name, without its value."""

import httpx
import msgspec
import pytest

from app.gateways import registry
from app.settings import PREFIX, SECRET_FIELDS, SECRET_NAME, VARIABLES, BadSettings, Settings, env_example, load


def test_an_empty_environment_is_all_defaults() -> None:
    assert load({}) == Settings()
    assert load({"PATH": "/bin", "TORGX": "1", "torg_port": "x"}) == Settings()


def test_an_empty_value_is_the_default() -> None:
    assert load({f"{PREFIX}{name.upper()}": "" for name in VARIABLES}) == Settings()


def test_values_are_typed() -> None:
    settings = load({
        "TORG_PORT": "9000", "TORG_PARALLEL": "false", "TORG_LOG_JSON": "0", "TORG_PUBLIC_URL": "https://shop.example",
        "TORG_ADMINS": "1, 22,333", "TORG_SESSION_SECRET": "s" * 32,
    })  # fmt: skip
    assert (settings.port, settings.parallel, settings.log_json) == (9000, False, False)
    assert settings.admin_ids() == {1, 22, 333}
    assert Settings().admin_ids() == frozenset()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TORG_POOLMAX", "1"),
        ("TORG_", "1"),
        ("TORG_PORT", "abc"),
        ("TORG_PORT", "65536"),
        ("TORG_PORT", "-1"),
        ("TORG_PARALLEL", "perhaps"),
        ("TORG_SMTP_URL", "smtp+plain://shop:hidden@mx.example"),
        ("TORG_SMTP_URL", "https://shop:hidden@mx.example"),
        ("TORG_SMTP_FROM", "Shop of hidden"),
        ("TORG_PUBLIC_URL", "shop.example"),
        ("TORG_PUBLIC_URL", "https://shop.example/"),
        ("TORG_PUBLIC_URL", "https://shop.example/a b"),
        ("TORG_MODEL_URL", "http://model\u200b.hidden/v1"),
        ("TORG_MODEL_URL", "http://model.hidden/v1\n"),
        ("TORG_MODEL_URL", "http:///v1"),
        ("TORG_ADMINS", "1;2"),
        ("TORG_ADMINS", "anna"),
        ("TORG_PAYMENT_WINDOW_S", "59"),
        ("TORG_PAYMENT_WINDOW_S", "1e3.5"),
        ("TORG_REDIS_TIMEOUT_MS", "0"),
        ("TORG_LEASE_S", "0"),
        ("TORG_WORKER_JOBS", "0"),
        ("TORG_LOG_LEVEL", "loud"),
        ("TORG_SESSION_SECRET", "topsecretbutshort"),
        ("TORG_QSTASH_CURRENT_KEY", "sig_tooshort"),
        ("TORG_QSTASH_NEXT_KEY", "sig_without_a_current_one_0123456789"),
    ],
)
def test_a_wrong_variable_is_named_and_its_value_is_not(name: str, value: str) -> None:
    with pytest.raises(BadSettings, match=name.upper()) as caught:
        load({name: value})
    assert value not in str(caught.value) or len(value) < 5


def test_mail_needs_somebody_who_writes_it() -> None:
    given = {"TORG_SMTP_URL": "smtp://shop:hidden@mx.example"}
    with pytest.raises(BadSettings, match="TORG_SMTP_FROM"):
        load(given)
    assert load(given | {"TORG_SMTP_FROM": "Shop <orders@shop.example>"}).smtp_url == given["TORG_SMTP_URL"]


def test_every_secret_is_known_as_one() -> None:
    assert set(SECRET_FIELDS) == {
        "telegram_bot_token", "telegram_webhook_secret", "whatsapp_access_token", "whatsapp_app_secret",
        "whatsapp_verify_token", "model_key", "session_secret", "goods_keys", "qstash_current_key", "qstash_next_key",
        "metrics_token",
    }  # fmt: skip
    settings = msgspec.structs.replace(Settings(), **dict.fromkeys(SECRET_FIELDS, "hidden"))
    assert settings.secrets() == ("hidden",) * len(SECRET_FIELDS)
    assert Settings().secrets() == ()


def test_a_gateway_judges_its_own_variables() -> None:
    settings = load({"TORG_CRYSTALPAY_LOGIN": "desk", "TORG_CRYSTALPAY_SALT": "hidden", "TORG_CRYSTALPAY_URL": ""})
    assert settings.gateways == {"crystalpay": {"login": "desk", "salt": "hidden"}}
    assert settings.secrets() == ("hidden",)
    with pytest.raises(BadSettings, match="TORG_CRYSTALPAY_SLAT") as caught:
        registry.build(load({"TORG_CRYSTALPAY_SLAT": "hidden"}), httpx.AsyncClient(verify=False))
    assert "hidden" not in str(caught.value)
    for nobodys in ("TORG_CRYSTALPAY", "TORG_CRYSTALPAY_", "TORG_GATEWAYS", "TORG_PAYPAL_SECRET"):
        with pytest.raises(BadSettings, match=nobodys):
            load({nobodys: "x"})


def test_what_a_gateway_keeps_secret_has_a_name_that_says_so() -> None:
    for name, kind in registry.known().items():
        open_ = {"login", "url", "shop_id", "merchant_id", "test", "networks"}
        for field in msgspec.structs.fields(kind.settings):
            assert SECRET_NAME.search(field.name) or field.name in open_, f"{name}: is {field.name} a secret?"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Settings().port = 1  # type: ignore[misc]


def test_the_example_is_every_setting_with_its_default() -> None:
    lines = (env_example() + registry.env_example()).splitlines()
    assigned = dict(line.split("=", 1) for line in lines if not line.startswith("#") and line)
    of_gateways = [
        f"{n}_{f.name}" for n, kind in registry.known().items() for f in msgspec.structs.fields(kind.settings)
    ]
    assert list(assigned) == [f"{PREFIX}{name.upper()}" for name in [*VARIABLES, *of_gateways]]
    assert msgspec.structs.replace(load(assigned), gateways={}) == Settings()
    comments = [line for line in lines[2:] if line.startswith("#")]
    assert all(len(line) > 10 for line in comments)
    assert len(comments) == len(assigned)
