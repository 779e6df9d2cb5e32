"""`torg telegram webhook`, as an operator runs it, against a Bot API."""

import asyncio

import msgspec
from click.testing import CliRunner, Result

from app.desk_telegram import telegram
from app.errors import ProviderRefused
from app.settings import Settings
from tests.channels.test_updates import message
from tests.e2e.stage import environment_of
from tests.web.test_doors import ON, SECRET
from tests.world import World


async def webhook(settings: Settings, order: str) -> Result:
    """In this process: a new one takes seconds to import what it needs."""
    env = environment_of(settings)
    return await asyncio.to_thread(CliRunner().invoke, telegram, ["webhook", order], env=env)


async def test_the_webhook_is_set_shown_and_dropped(world: World) -> None:
    deaf = world.shop.deps.settings
    assert (await webhook(deaf, "show")).output == "webhook  none\nwaiting  0\n"
    refused = await webhook(deaf, "set")
    assert (refused.exit_code, "TORG_TELEGRAM_WEBHOOK_SECRET must be set" in refused.output) == (1, True)

    settings = msgspec.structs.replace(deaf, **ON)
    address = f"{settings.public_url}/api/webhook"
    done = await webhook(settings, "set")
    assert (done.exit_code, done.output) == (0, f"webhook  {address}\nwaiting  0\n")
    hook = world.telegram.webhook
    assert hook
    assert (hook.url, hook.secret_token, hook.allowed_updates) == (address, SECRET, ["message", "callback_query"])

    # This world's own web process has no secret: Telegram is told so, and tells us.
    entry = await world.telegram.push_update(message())
    assert entry.status == 404
    assert "error    Wrong response from the webhook: 404" in (await webhook(settings, "show")).output

    assert (await webhook(settings, "drop")).output == "webhook  none\nwaiting  0\n"
    assert world.telegram.webhook is None


async def test_what_telegram_refuses_is_told_without_the_token(world: World) -> None:
    settings = msgspec.structs.replace(world.shop.deps.settings, telegram_bot_token="1234567890:another-token")
    refused = await webhook(settings, "show")
    assert isinstance(refused.exception, ProviderRefused)
    assert "Unauthorized" in str(refused.exception)
    assert "another-token" not in str(refused.exception) + refused.output
