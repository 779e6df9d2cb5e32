"""Which gateways there are (a folder each), and which of them this shop has: those whose secrets are all set."""

import pkgutil
from functools import cache
from importlib import import_module

import httpx
import msgspec
import structlog

from app import gateways
from app.gateways.base import Gateway, Provider
from app.settings import PREFIX, BadSettings, Settings, field_lines

log = structlog.get_logger(__name__)

Gateways = dict[str, Gateway]


@cache
def known() -> dict[str, type[Provider]]:
    """Every gateway that this release speaks, by name."""
    names = [found.name for found in pkgutil.iter_modules(gateways.__path__) if found.ispkg]
    return {name: import_module(f"{gateways.__name__}.{name}.gateway").GATEWAY for name in names}


def build(settings: Settings, http: httpx.AsyncClient) -> Gateways:
    """The gateways by name; start-up says which are left out and why. Raises: BadSettings for a wrong TORG_<NAME>_*."""
    found: Gateways = {}
    for name, kind in known().items():
        config = _config(name, kind, settings.gateways.get(name, {}))
        missing = [_variable(name, field) for field in required(kind) if not getattr(config, field)]
        if missing:
            # Nothing is set: it is not wanted. Something is set, and not all: somebody should know.
            say = log.warning if name in settings.gateways else log.info
            say("gateway off", gateway=name, missing=missing)
        else:
            found[name] = kind(config, http)
    return found


def required(kind: type[Provider]) -> list[str]:
    """The fields without which the gateway is off: those with an empty default."""
    return [field.name for field in msgspec.structs.fields(kind.settings) if field.default == ""]


def secrets(settings: Settings, name: str) -> dict[str, str]:
    """What the gateway and its simulator both know."""
    given = settings.gateways.get(name, {})
    return {field: given.get(field, "") for field in required(known()[name])}


def env_example() -> str:
    """The part of `.env.example` that is about gateways."""
    return "".join(field_lines(kind.settings, f"{name}_") for name, kind in known().items())


def _config(name: str, kind: type[Provider], given: dict[str, str]) -> msgspec.Struct:
    fields = {field.name for field in msgspec.structs.fields(kind.settings)}
    for unknown in sorted(given.keys() - fields):
        raise BadSettings(f"unknown setting {_variable(name, unknown)}")
    try:
        return msgspec.convert(given, kind.settings, strict=False)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$.")
        # What several fields are wrong about together has no path.
        raise BadSettings(f"{_variable(name, path.rstrip('`')) if path else _variable(name, '*')}: {text}") from None


def _variable(name: str, field: str) -> str:
    return f"{PREFIX}{name.upper()}_{field.upper()}"
