"""`torg demo`: everything on one machine, a purchase from order to goods, then a shop to play with."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx

from app import settings as settings_floor
from app.demo import buyer, chatter, environment, seed
from app.demo.processes import Child, Start, running
from app.gateways import registry
from app.infra import embedded
from app.infra.migrate import migrate
from app.settings import Settings

START_S = 30.0  # patience with a process on a slow machine
TELL_S = 20.0  # a fresh worker is still loading aiogram, beside its other work
SIGN_AGAIN_S = 1800  # initData is good for an hour

Say = Callable[[str], None]


def demo(environ: Mapping[str, str], *, port: int | None, once: bool, say: Say) -> None:
    """The demo runs until Ctrl-C; with `once` until the goods are there.

    Raises: buyer.NotDelivered, processes.ProcessFailed, embedded.EmbeddedError, settings.BadSettings.
    """
    began = time.monotonic()
    with _backed(environ, port) as (env, settings):
        log_dir = Path(settings.data_dir) / "log"
        with running(log_dir, {**environ, **env}) as start:
            _start_all(start, env)
            say(f"ready in {time.monotonic() - began:.1f} s (logs in {log_dir})\n")
            _purchase(env, say)
            _chat(env, say)
            if not once:
                _serve(settings, env, start.children, say)


@contextmanager
def _backed(environ: Mapping[str, str], port: int | None) -> Iterator[tuple[dict[str, str], Settings]]:
    """The demo's whole environment, with its servers up and the database migrated and seeded."""
    environ = environment.without_own(environ)
    base = settings_floor.load(environ)
    data_dir = Path(base.data_dir).resolve()
    with embedded.serve(data_dir, postgres=not base.database_url, redis=not base.redis_url) as servers:
        web_port = port or (8000 if environment.is_free(8000) else environment.free_port())
        env = {
            **environment.secrets_of(data_dir),
            "TORG_ADMINS": str(environment.ADMIN["id"]),
            "TORG_DATA_DIR": str(data_dir),
            "TORG_DATABASE_URL": base.database_url or servers.database_url,
            "TORG_REDIS_URL": base.redis_url or servers.redis_url,
            environment.OWN: f"{servers.database_url} {servers.redis_url}",
            "TORG_PORT": str(web_port),
            "TORG_PUBLIC_URL": f"http://127.0.0.1:{web_port}",
            "TORG_TELEGRAM_API_URL": f"http://127.0.0.1:{environment.free_port()}",
            "TORG_MODEL_URL": f"http://127.0.0.1:{environment.free_port()}/v1",
            "TORG_MODEL_NAME": "sandbox-1",
            **{gateway_url(name): f"http://127.0.0.1:{environment.free_port()}" for name in registry.known()},
            "TORG_YOOKASSA_NETWORKS": "127.0.0.1/32",  # it proves itself by where it calls from
        }
        env |= _sign(env)
        settings = settings_floor.load({**environ, **env})
        asyncio.run(_prepare(settings))
        yield env, settings


def gateway_url(name: str) -> str:
    """The variable that says where the gateway is."""
    return f"TORG_{name.upper()}_URL"


def _sign(env: dict[str, str]) -> dict[str, str]:
    """Fresh initData; the file that others read has the whole environment with it."""
    env = env | environment.signed(env["TORG_TELEGRAM_BOT_TOKEN"])
    environment.write(Path(env["TORG_DATA_DIR"]) / environment.FILE, env)
    return env


async def _prepare(settings: Settings) -> None:
    await migrate(settings.database_url)
    await seed.fill(settings)
    await seed.hasten(settings, str(environment.ADMIN["first_name"]))


def _start_all(start: Start, env: dict[str, str]) -> None:
    """Every process runs, and those that answer HTTP have answered."""
    outside = {"telegram": env["TORG_TELEGRAM_API_URL"], "model": env["TORG_MODEL_URL"]}
    outside |= {name: env[gateway_url(name)] for name in registry.known()}
    start("sandbox", "sandbox", *(f"{name}={urlsplit(url).port}" for name, url in outside.items()))
    start("worker", "worker")
    start("web", "web")
    waits = {
        "sandbox": f"{list(outside.values())[-1]}/sandbox/log",  # they start one after another
        "web": f"{env['TORG_PUBLIC_URL']}/health/ready",
    }
    for child in start.children:
        if child.name in waits:
            child.wait_ready(waits[child.name], START_S)


def _purchase(env: dict[str, str], say: Say) -> None:
    """A scripted buyer buys; the timeline ends with the milliseconds from payment to goods."""

    def told(step: buyer.Step) -> None:
        say(f"  {step.what:<28}{step.took_ms:>8.1f} ms   {step.result}")

    bought = buyer.buy(env["TORG_PUBLIC_URL"], env["DEMO_BUYER_INIT_DATA"], told)
    for good in bought.goods:
        say(f"      {good['title']}: {good['content']}")
    number = bought.order["number"]
    say(
        f"  the bot tells the buyer:    {_told(env['TORG_TELEGRAM_API_URL'], number) or 'not yet (see the worker log)'}"
    )
    say(f"delivered in {bought.payment_to_goods_ms:.0f} ms")


def _chat(env: dict[str, str], say: Say) -> None:
    """Another scripted buyer buys by writing to the bot."""
    telegram_url = env["TORG_TELEGRAM_API_URL"]
    webhook_url = f"{env['TORG_PUBLIC_URL']}/api/webhook"
    chatter.listen(telegram_url, env["TORG_TELEGRAM_BOT_TOKEN"], webhook_url, env["TORG_TELEGRAM_WEBHOOK_SECRET"])
    say(f"\nThe same in the chat with the bot (which waits {seed.QUIET_MS} ms for more before it answers):")
    talked = chatter.talk(
        telegram_url, environment.guest(), lambda step: say(f"  {step.what:<28}{step.took_ms:>8.1f} ms   {step.result}")
    )
    say("".join(f"      {line}\n" for line in talked.told.splitlines()[1:] if line).rstrip())


def _told(telegram_url: str, number: int) -> str:
    """The first line of the bot's message about this order; empty when it does not come in time."""
    deadline = time.monotonic() + TELL_S
    while time.monotonic() < deadline:
        chat = f"{telegram_url}/sandbox/messages?chat_id={environment.BUYER['id']}"
        for message in httpx.get(chat, timeout=5).json():
            head = str(message["text"]).partition("\n")[0]
            if f" {number} " in head:
                return head
        time.sleep(0.05)
    return ""


def _serve(settings: Settings, env: dict[str, str], children: list[Child], say: Say) -> None:
    """The shop stays open until Ctrl-C or until one of its processes ends."""
    data = quote(env["DEMO_BUYER_INIT_DATA"], safe="")
    say("\nYour shop, as Telegram opens it for the demo's buyer:")
    say(f"  {settings.public_url}/#tgWebAppData={data}&tgWebAppVersion=8.0&tgWebAppPlatform=web")
    say(f"\nEnvironment for curl and others: {Path(settings.data_dir) / environment.FILE}")
    say("Ctrl-C stops everything; the data stay.")
    signed_at = time.monotonic()
    while all(child.process.poll() is None for child in children):
        time.sleep(0.5)
        if time.monotonic() - signed_at > SIGN_AGAIN_S:
            signed_at = time.monotonic()
            _sign(env)
    for child in children:
        if child.process.poll() is not None:
            say(f"{child.name} ended:\n{child.tail()}")
    raise buyer.NotDelivered("a process ended")
