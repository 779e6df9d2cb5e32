"""Starts `torg web` and `torg worker` by fork: their imports, seconds of processor time, are paid once here.

One JSON array a line on stdin, one JSON value a line back: `["start", [arguments], {environment}, log file]` gives a
pid, `["kill", pid]` an exit code once that process is gone. At the end of stdin everything that still runs is killed.
"""

import gc
import json
import os
import signal
import ssl
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

import openai
import uvicorn

from app import cli
from app.bot import dispatch
from app.infra import telegram
from app.main import create_app
from app.settings import Settings
from tests.roots import read_once
from workers import main as worker

PRELOADED = (telegram, dispatch, openai, worker)  # what the children would import late


def main() -> None:
    ssl.create_default_context = read_once()
    # Litestar and uvicorn load much of themselves late: this is thrown away, what it loaded stays.
    uvicorn.Config(create_app(Settings(log_level="error")), loop="uvloop", http="httptools", log_config=None).load()
    gc.freeze()  # or the first collection in each child would copy every page
    alive: set[int] = set()
    say("ready")
    try:
        for line in sys.stdin:
            obey(json.loads(line), alive)
    finally:
        for pid in alive:
            kill(pid)


def obey(command: list[object], alive: set[int]) -> None:
    match command:
        case ["start", [*arguments], {**environment}, str(log)]:
            pid = os.fork()
            if pid == 0:
                become([str(word) for word in arguments], {str(k): str(v) for k, v in environment.items()}, log)
            alive.add(pid)
            say(pid)
        case ["kill", int(pid)] if pid in alive:
            alive.remove(pid)
            say(kill(pid))
        case _:
            raise ValueError(f"not a command: {command}")


def become(arguments: Sequence[str], environment: Mapping[str, str], log: str) -> NoReturn:
    """This process is `python -m app.cli …` from here on, and never comes back."""
    try:
        os.setsid()
        nothing, out = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for source, target in ((nothing, 0), (out, 1), (out, 2)):
            os.dup2(source, target)
        for name in [name for name in os.environ if name.startswith("TORG_")]:
            del os.environ[name]
        os.environ.update(environment)
        sys.argv = ["torg", *arguments]
        cli.main()
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(70)
    os._exit(0)


def kill(pid: int) -> int:
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def say(what: object) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
