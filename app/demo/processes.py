"""The demo's processes: started together, stopped together, and none outlives the demo, even after kill -9."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

STOP_S = 12  # a worker drains its jobs first

LAST_LINES = 15


class ProcessFailed(Exception):
    """A process ended or did not answer; the text has the last lines of its log, where secrets are masked."""


class Child:
    """One process of the service, with its log."""

    def __init__(self, name: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.name, self.process, self.log = name, process, log

    def wait_ready(self, url: str, patience_s: float) -> None:
        """`url` answers 200. Raises: ProcessFailed."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise ProcessFailed(f"{self.name} ended:\n{self.tail()}")
            try:
                with urlopen(url, timeout=2) as answer:  # noqa: S310  (our own loopback address)
                    if answer.status == 200:
                        return
            except (URLError, OSError):
                time.sleep(0.02)
        raise ProcessFailed(f"{self.name} does not answer after {patience_s:.0f} s:\n{self.tail()}")

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LAST_LINES:])


@contextmanager
def running(log_dir: Path, environ: dict[str, str]) -> Iterator["Start"]:
    """A way to start processes that all end with this block."""
    log_dir.mkdir(mode=0o700, exist_ok=True)
    lifeline, held = os.pipe()
    os.set_inheritable(lifeline, True)
    start = Start(log_dir, environ, lifeline)
    try:
        yield start
    finally:
        # Closing our end is the signal that also works when we are killed: the kernel closes it then.
        os.close(held)
        os.close(lifeline)
        deadline = time.monotonic() + STOP_S
        for child in start.children:
            try:
                child.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()


class Start:
    """Starts `torg …` processes on one environment."""

    def __init__(self, log_dir: Path, environ: dict[str, str], lifeline: int) -> None:
        self.log_dir, self.environ, self.lifeline = log_dir, environ, lifeline
        self.children: list[Child] = []

    def __call__(self, name: str, *args: str) -> Child:
        log = self.log_dir / f"{name}.log"
        command = [sys.executable, "-m", "app.cli", *args, "--lifeline", str(self.lifeline)]
        with log.open("wb") as out:
            process = subprocess.Popen(  # noqa: S603  (our own command line)
                command,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                pass_fds=[self.lifeline],
                start_new_session=True,  # Ctrl-C reaches the demo first, and the demo stops the rest in order
            )
        child = Child(name, process, log)
        self.children.append(child)
        return child


def hold_on_to(lifeline: int) -> None:
    """This process gets SIGTERM when the one at the other end of the pipe is gone, however it went."""

    def watch() -> None:
        os.read(lifeline, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
