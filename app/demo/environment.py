"""The demo's environment: made-up secrets that last as long as its data, written where curl can read them."""

import base64
import os
import secrets
import shlex
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.gateways import registry
from app.sandbox.initdata import sign_init_data

FILE = "demo.env"
OWN = "DEMO_SERVERS"  # the addresses of embedded servers, so that a later demo knows them for its own

BUYER = {"id": 5_000_001, "first_name": "Anna", "last_name": "Demo", "username": "anna_demo", "language_code": "en"}
ADMIN = {"id": 5_000_002, "first_name": "Oleg", "last_name": "Admin", "username": "oleg_admin", "language_code": "ru"}

# Kept from run to run: goods that were sealed, and sessions that were opened, stay good.
OF_GATEWAYS = {
    f"TORG_{name.upper()}_{field.upper()}": field
    for name, kind in registry.known().items()
    for field in registry.required(kind)
}
OF_CHATS = ("TORG_TELEGRAM_WEBHOOK_SECRET", "TORG_MODEL_KEY")
KEPT = ("TORG_TELEGRAM_BOT_TOKEN", "TORG_SESSION_SECRET", "TORG_GOODS_KEYS", *OF_CHATS, *OF_GATEWAYS)


def secrets_of(data_dir: Path) -> dict[str, str]:
    """The demo's secrets: those of its earlier runs, and new ones where those had none."""
    path = data_dir / FILE
    earlier = read(path) if path.exists() else {}
    made = {
        "TORG_TELEGRAM_BOT_TOKEN": f"{secrets.randbelow(9 * 10**9) + 10**9}:{secrets.token_urlsafe(26)}",
        "TORG_SESSION_SECRET": secrets.token_urlsafe(32),
        "TORG_GOODS_KEYS": f"demo:{base64.b64encode(secrets.token_bytes(32)).decode()}",
        **{name: secrets.token_hex(20) for name in (*OF_CHATS, *OF_GATEWAYS)},
    }
    return made | {name: earlier[name] for name in KEPT if earlier.get(name)}


def without_own(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what an earlier `. demo.env` in the same shell says of embedded servers."""
    own = environ.get(OWN, "").split()
    return {name: value for name, value in environ.items() if not (name.startswith("TORG_") and value in own)}


def signed(bot_token: str) -> dict[str, str]:
    """Fresh initData of a buyer and of an admin, signed as Telegram signs: good for an hour."""
    now = int(time.time())
    return {
        "DEMO_BUYER_INIT_DATA": sign_init_data(bot_token, BUYER, auth_date=now),
        "DEMO_ADMIN_INIT_DATA": sign_init_data(bot_token, ADMIN, auth_date=now),
    }


def guest() -> dict[str, Any]:
    """Somebody who was never here: who says again what was said in the last minutes gets no second answer."""
    return BUYER | {"id": int(time.time())}


def write(path: Path, environment: dict[str, str]) -> None:
    """The file holds the environment for `set -a; . file`, readable by its owner alone, replaced in one step."""
    text = "# Made by `torg demo`, anew at every start. Use it with: set -a; . .torg/demo.env; set +a\n"
    text += "".join(f"{name}={shlex.quote(value)}\n" for name, value in environment.items())
    draft = path.with_suffix(".new")
    draft.touch(mode=0o600)
    draft.write_text(text)
    os.replace(draft, path)


def read(path: Path) -> dict[str, str]:
    """What `write` wrote."""
    words = shlex.split(path.read_text(), comments=True)
    return dict(word.split("=", 1) for word in words if "=" in word)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
