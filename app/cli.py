"""`torg`: the commands of the people who run a shop."""

import asyncio
import gc
import os
import signal
import sys
import time
from typing import Any, NoReturn

import rich_click as click
import uvloop

from app import desk, desk_dead, desk_telegram
from app import settings as settings_floor
from app.base.version import VERSION
from app.demo import processes
from app.demo.buyer import NotDelivered
from app.demo.run import demo as run_demo
from app.demo.seed import fill
from app.desk import backed, hold_on, servers_of, settings_of_environment
from app.errors import Problem
from app.gateways import registry
from app.infra import embedded
from app.infra.migrate import BadMigration, migrate
from app.infra.secrets import BadKeys

# What may go wrong on the way up and is the operator's to mend: one line each, no traceback.
FAILURES = (
    settings_floor.BadSettings, embedded.EmbeddedError, processes.ProcessFailed, NotDelivered, BadMigration, BadKeys,
    Problem,
)  # fmt: skip

CHATS = ("telegram", "whatsapp", "model")  # the outside parties that are no gateways

lifeline = click.option("--lifeline", type=int, hidden=True, help="stop when this pipe's other end is gone")


@click.group(help="Torg: a self-hosted backend for shops that sell inside Telegram.")
@click.version_option(VERSION, prog_name="torg")
def cli() -> None:
    signal.signal(signal.SIGTERM, _terminate)


@cli.command()
@click.option("--once", is_flag=True, help="exit after the purchase; non-zero when the goods do not come within 30 s")
@click.option("--port", type=click.IntRange(1, 65535), help="port of the shop [default: 8000, else a free one]")
def demo(once: bool, port: int | None) -> None:
    """Start everything, buy something, and keep the shop open."""
    run_demo(os.environ, port=port, once=once, say=lambda line: print(line, flush=True))


@cli.command()
@lifeline
def web(lifeline: int | None) -> None:
    """Serve HTTP."""
    from app.main import create_app  # each process loads what it runs: together they take seconds
    from app.web.server import serve

    with backed(lifeline) as settings:
        app = create_app(settings)
        gc.collect()
        gc.freeze()  # what a process is made of is no garbage: looking through it held up every request for 70 ms
        serve(app, settings)


@cli.command()
@lifeline
def worker(lifeline: int | None) -> None:
    """Do the jobs: settle, deliver, tell, expire."""
    from workers import main as worker_main

    with backed(lifeline) as settings, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(worker_main.serve(settings))


@cli.command(name="migrate")
def migrate_command() -> None:
    """Bring the database up to this release."""
    with servers_of(settings_of_environment(), redis=False) as settings:
        applied = asyncio.run(migrate(settings.database_url))
        print("\n".join(f"applied {name}" for name in applied) or "nothing to apply")


@cli.command()
def seed() -> None:
    """Fill the shelf with the demo's catalog."""
    with servers_of(settings_of_environment()) as settings:
        print(f"{asyncio.run(fill(settings))} products on the shelf")


@cli.command()
@click.argument("parties", nargs=-1, required=True, metavar="NAME=PORT...")
@click.option("--host", default="127.0.0.1", show_default=True)
@lifeline
def sandbox(parties: tuple[str, ...], host: str, lifeline: int | None) -> None:
    """Play outside parties on loopback, with the secrets of TORG_*: telegram, whatsapp, model, or any gateway.

    `torg sandbox crystalpay=9001 telegram=9002`
    """
    from app.sandbox import serve as sandbox_serve

    hold_on(lifeline)
    settings = settings_of_environment()
    playing: dict[int, sandbox_serve.Simulator] = {}
    for party in parties:
        name, _, port = party.partition("=")
        known = (*CHATS, *registry.known())
        if name not in known or not port.isdecimal() or not 0 < int(port) < 65536:
            raise click.BadParameter(f"{party}: say {'=PORT, '.join(known)}=PORT")
        secrets = _secrets(settings, name)
        path = name if name in CHATS else f"payment/{name}"
        told = sandbox_serve.cabinet(
            name, callback_url=f"{settings.public_url}/api/webhook/{path}", return_url=settings.public_url
        )
        playing[int(port)] = sandbox_serve.make(name, **secrets, **told)
    asyncio.run(sandbox_serve.run(host, playing))


@cli.command()
def settings() -> None:
    """Print every setting with its meaning and default."""
    print(settings_floor.env_example() + registry.env_example(), end="")


def _secrets(settings: settings_floor.Settings, name: str) -> dict[str, Any]:
    """What a simulator shares with the shop, and what makes it differ from its earlier runs."""
    match name:
        case "telegram":
            return {"token": settings.telegram_bot_token, "born": time.time_ns() // 1_000_000}
        case "model":
            return {"key": settings.model_key}
        case "whatsapp":
            phone_id, app_secret = settings.whatsapp_phone_id, settings.whatsapp_app_secret
            return {"token": settings.whatsapp_access_token, "phone_id": phone_id, "app_secret": app_secret}
    return registry.secrets(settings, name)


def _terminate(_signal: int, _frame: object) -> NoReturn:
    # As an exception, so that every `with` above gets its turn.
    raise SystemExit(128 + signal.SIGTERM)


for group in (desk.stock, desk.ledger, desk.inbox, desk_dead.dead, desk_telegram.telegram):
    cli.add_command(group)


def main() -> None:
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except FAILURES as error:
        print(f"torg: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
