"""`torg telegram`: where Telegram sends what is written to the bot, as an operator sets it at the machine."""

import asyncio
from typing import TYPE_CHECKING

import rich_click as click

from app.channels.telegram.updates import KINDS
from app.desk import settings_of_environment
from app.infra import observe

if TYPE_CHECKING:
    from app.infra.telegram import Order

PATH = "/api/webhook"


@click.group()
def telegram() -> None:
    """The shop's bot at Telegram."""


@telegram.group()
def webhook() -> None:
    """Where Telegram sends what is written to the bot."""


@webhook.command(name="set")
def webhook_set() -> None:
    """To this shop: TORG_PUBLIC_URL, proved by TORG_TELEGRAM_WEBHOOK_SECRET. What waits at Telegram comes then."""
    _webhook("set")


@webhook.command(name="show")
def webhook_show() -> None:
    """Where to, how much waits there, and what went wrong last."""
    _webhook("show")


@webhook.command(name="drop")
def webhook_drop() -> None:
    """Nowhere: what is written waits at Telegram, a day at most."""
    _webhook("drop")


def _webhook(order: "Order") -> None:
    """The order is carried out, and what Telegram has now is shown."""
    settings = settings_of_environment()
    missing = {"TORG_TELEGRAM_BOT_TOKEN": settings.telegram_bot_token}
    if order == "set":
        missing["TORG_TELEGRAM_WEBHOOK_SECRET"] = settings.telegram_webhook_secret
    if names := [name for name, value in missing.items() if not value]:
        raise click.ClickException(f"{' and '.join(names)} must be set")
    observe.configure(settings)
    from app.infra import telegram as bot_api  # seconds of import, of which the other commands know nothing

    now = asyncio.run(bot_api.webhook(settings, order, settings.public_url + PATH, KINDS))
    print(f"webhook  {now.url or 'none'}")
    print(f"waiting  {now.waiting}")
    if now.error:
        print(f"error    {now.error}")
