"""Which gateways this shop has: those whose secrets are all set."""

import httpx
import structlog

from app.gateways.base import Gateway
from app.gateways.crystalpay.gateway import CrystalPay
from app.settings import Settings

log = structlog.get_logger(__name__)

Gateways = dict[str, Gateway]


def build(settings: Settings, http: httpx.AsyncClient) -> Gateways:
    """The gateways by name; start-up says which are left out and why."""
    found: Gateways = {}
    needs = ("crystalpay_login", "crystalpay_secret", "crystalpay_salt")
    missing = [f"TORG_{name.upper()}" for name in needs if not getattr(settings, name)]
    if missing:
        log.warning("gateway off", gateway=CrystalPay.name, missing=missing)
    else:
        found[CrystalPay.name] = CrystalPay(
            http,
            settings.crystalpay_url,
            login=settings.crystalpay_login,
            secret=settings.crystalpay_secret,
            salt=settings.crystalpay_salt,
        )
    return found
