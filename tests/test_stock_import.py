"""`torg stock import` as its operator runs it: a process on a real database, and files as people have them."""

import asyncio
import csv
import io
import itertools
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.base import keys
from app.domain import catalog
from app.domain.catalog import NewProduct
from app.domain.units import Unit
from app.errors import Malformed
from app.flows.shelve import Fault, Twice
from app.flows.stock_import import MAX_LINE_BYTES, Ask, Source, run
from app.infra.pipe import Pipe
from app.infra.secrets import Sealer
from app.infra.sql import Postgres
from app.settings import Settings
from app.shop import opened
from tests.e2e.stage import environment_of
from tests.house.tree import ROOT
from tests.world import add_keys

NEW = NewProduct(
    seller_id=0, title="Key", description="", category="Keys", kind="unit", currency="RUB", list_price_minor=100
)
HINT = "mend the refused lines and run the file again with --skip-duplicates"
ACTIVE = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


class Desk:
    """A shop's product, and the operator's desk beside it."""

    def __init__(self, pg: Postgres, settings: Settings, folder: Path, product_id: int, seller_id: int) -> None:
        self.pg, self.settings, self.folder = pg, settings, folder
        self.product_id, self.seller_id = product_id, seller_id
        self.sealer = Sealer(settings.goods_keys)

    def file(self, content: str | bytes, name: str = "keys.txt") -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    async def start(self, path: Path, *options: str) -> asyncio.subprocess.Process:
        command = ["-m", "app.cli", "stock", "import", str(path), "--product", str(self.product_id), *options]
        env = environment_of(self.settings) | {"PATH": os.environ["PATH"]}
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            sys.executable, *command, cwd=ROOT, env=env, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
        )

    async def bring(self, path: Path, *options: str) -> tuple[int, list[str], str]:
        """Exit code, lines of output, what went to stderr."""
        process = await self.start(path, *options)
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode().splitlines(), err.decode()

    async def scalar(self, query: str, *args: object) -> Any:
        return (await self.pg.fetch(query, args))[0][0]

    async def units(self) -> int:
        return int(await self.scalar("SELECT count(*) FROM stock_items WHERE product_id = $1", self.product_id))

    def print_of(self, secret: str) -> str:
        return self.sealer.fingerprint(f"{self.product_id}/{secret}".encode()).hex()[:12]

    async def has(self, secrets: list[str]) -> bool:
        """These, and no others, are on the shelf."""
        prints = [self.sealer.fingerprint(f"{self.product_id}/{secret}".encode()) for secret in secrets]
        query = "SELECT count(*) FROM stock_items s JOIN unnest($1::bytea[]) p ON s.fingerprint = p"
        known = await self.scalar(query, prints)
        return bool(known == len(secrets) == await self.units())


@pytest.fixture
async def desk(pg: Postgres, redis: Pipe, settings: Settings, tmp_path: Path) -> Desk:
    seller_id = await catalog.add_seller(pg, "Seller")
    product_id = await catalog.add_product(pg, msgspec.structs.replace(NEW, seller_id=seller_id))
    return Desk(pg, settings, tmp_path, product_id, seller_id)


# ---- the command


async def test_20_000_lines_come_to_the_shelf(desk: Desk) -> None:
    secrets = [f"CANARY-{n:05}" for n in range(20_000)]
    code, out, err = await desk.bring(desk.file("\n".join(secrets)))
    assert (code, out, err) == (0, ["up to line 20000: 20000 units are added, 0 duplicates left out"], "")
    assert await desk.has(secrets)
    rows = await desk.pg.fetch("SELECT user_id, role, noun, what::text FROM changes ORDER BY id", ())
    assert len(rows) == 40
    whats = [msgspec.json.decode(row["what"]) for row in rows]
    assert {(row["user_id"], row["role"], row["noun"]) for row in rows} == {(None, "admin", "stock")}
    assert whats[1] == {"by": whats[0]["by"], "lines": "501-1000", "added": 500}
    assert whats[0]["by"]
    assert await desk.scalar("SELECT count(*) FROM changes WHERE what::text LIKE '%CANARY%'") == 0


async def test_the_first_refused_batch_ends_it_and_says_what_is_in(desk: Desk) -> None:
    await add_keys(desk.pg, desk.sealer, desk.product_id, ["KEY-7"])
    secrets = [f"KEY-{n}" for n in range(10)]
    path = desk.file("\n".join([*secrets, "KEY-3"]))
    code, out, err = await desk.bring(path, "--batch", "3")
    assert (code, err) == (1, "")
    assert out == [
        "lines 7-9 are refused, nothing of them added:",
        f"  line 8: there already, {desk.print_of('KEY-7')}",
        "up to line 6: 6 units are added, 0 duplicates left out",
        HINT,
    ]
    assert await desk.has([*secrets[:6], "KEY-7"])
    code, out, err = await desk.bring(path, "--batch", "3", "--skip-duplicates")
    assert (code, err) == (0, "")
    assert out == [
        *(f"  line {n + 1}: there already, {desk.print_of(f'KEY-{n}')}" for n in (0, 1, 2, 3, 4, 5, 7)),
        f"  line 11: there already, {desk.print_of('KEY-3')}",
        "up to line 11: 3 units are added, 8 duplicates left out",
    ]
    assert await desk.has(secrets)


async def test_faults_are_told_by_line_and_not_by_content(desk: Desk) -> None:
    lines = [b"CANARY-1", b"CANARY-\xff", b"", b"CANARY-\x00-x", b"CANARY" * 1000, b"CANARY-6"]
    code, out, err = await desk.bring(desk.file(b"\r\n".join(lines)))
    assert (code, err) == (1, "")
    assert out == [
        "lines 1-6 are refused, nothing of them added:",
        f"  line 2: not UTF-8, or longer than {MAX_LINE_BYTES} bytes",
        "  line 4: holds NUL",
        "  line 5: longer than 4000 characters",
        "0 units are added, 0 duplicates left out",
        HINT,
    ]
    assert await desk.units() == 0


async def test_a_dry_run_looks_through_the_whole_file_and_adds_nothing(desk: Desk) -> None:
    await add_keys(desk.pg, desk.sealer, desk.product_id, ["A"])
    path = desk.file(b"N1\nN2\nA\nN3\nN1\n\xff\nN4\nN5\n")
    code, out, _ = await desk.bring(path, "--batch", "2", "--dry-run")
    assert code == 1
    assert out == [
        "lines 3-4 would be refused, nothing of them added:",
        f"  line 3: there already, {desk.print_of('A')}",
        "lines 5-6 would be refused, nothing of them added:",
        f"  line 6: not UTF-8, or longer than {MAX_LINE_BYTES} bytes",
        "up to line 8: 4 units would be added, 0 duplicates left out",
    ]
    path = desk.file("N1\nN2\nN3\nN1\n")
    code, out, _ = await desk.bring(path, "--batch", "2", "--dry-run", "--skip-duplicates")
    assert (code, out) == (0, [
        f"  line 4: there already, {desk.print_of('N1')}",
        "up to line 4: 3 units would be added, 1 duplicates left out",
    ])  # fmt: skip
    assert (await desk.units(), await desk.scalar("SELECT count(*) FROM changes")) == (1, 0)


async def test_a_csv_brings_discounts_and_ends(desk: Desk) -> None:
    path = desk.file(
        'Secret,expires_at,discount_bp\r\nA,,\r\n"B, ""quoted""\nin two lines",2031-01-01T00:00:00Z,500\r\n', "k.CSV"
    )
    code, out, err = await desk.bring(path)
    assert (code, out, err) == (0, ["up to line 3: 2 units are added, 0 duplicates left out"], "")
    rows = await desk.pg.fetch("SELECT discount_bp, expires_at FROM stock_items ORDER BY discount_bp", ())
    assert [tuple(row) for row in rows] == [(0, None), (500, datetime(2031, 1, 1, tzinfo=UTC))]
    assert await desk.has(["A", 'B, "quoted"\nin two lines'])


async def test_a_csv_without_a_header_is_refused_and_not_quoted(desk: Desk) -> None:
    code, out, err = await desk.bring(desk.file("CANARY-1\nCANARY-2\n"), "--format", "csv")
    assert code == 1
    assert err.startswith("torg: line 1 is no header")
    assert "CANARY" not in "".join(out) + err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--product", "999"], "product 999 is not here"),
        (["--batch", "5001"], "5001 is not in the range"),
    ],
)
async def test_what_cannot_be_is_one_line(desk: Desk, options: list[str], told: str) -> None:
    code, _, err = await desk.bring(desk.file("CANARY\n"), *options)
    assert code != 0
    assert told in err
    assert "Traceback" not in err
    assert "CANARY" not in err
    assert await desk.units() == 0


async def test_the_shelf_and_its_counters_follow(desk: Desk, redis: Pipe) -> None:
    free = keys.stock_free(desk.seller_id)
    await redis.command("HSET", free, str(desk.product_id), "0")
    await redis.command("PEXPIRE", free, "20000")
    code, *_ = await desk.bring(desk.file("A\nB\n"))
    assert code == 0
    assert await redis.command("HGET", free, str(desk.product_id)) is None  # counted anew by the next buyer
    assert await desk.scalar("SELECT count(*) FROM outbox WHERE kind = 'refresh'") == 1


async def test_a_kill_leaves_whole_batches_and_a_second_run_the_rest(desk: Desk) -> None:
    secrets = [f"KEY-{n:05}" for n in range(20_000)]
    path = desk.file("\n".join(secrets))
    process = await desk.start(path, "--batch", "100")
    while not await desk.units():
        assert process.returncode is None
    process.kill()
    await process.wait()
    while await desk.scalar(f"{ACTIVE} AND state = 'active'"):
        pass  # its last statement ends one way or the other
    there = await desk.units()
    assert 0 < there < 20_000
    assert there % 100 == 0
    assert await desk.has(secrets[:there])
    assert await desk.scalar("SELECT count(*) FROM changes") == there // 100
    code, out, _ = await desk.bring(path, "--batch", "100", "--skip-duplicates")
    assert code == 0
    assert out[-1] == f"up to line 20000: {20_000 - there} units are added, {there} duplicates left out"
    assert len(out) == 21  # it lists some of them only
    assert await desk.has(secrets)


async def test_two_imports_of_one_file_at_once_add_it_once(desk: Desk) -> None:
    secrets = [f"KEY-{n}" for n in range(3000)]
    path = desk.file("\n".join(secrets))
    done = await asyncio.gather(*(desk.bring(path, "--batch", "50", "--skip-duplicates") for _ in range(2)))
    assert [code for code, *_ in done] == [0, 0]
    assert await desk.has(secrets)


# ---- the file


class Endless(io.RawIOBase):
    """Secrets without end."""

    def __init__(self) -> None:
        self.numbers = itertools.count()
        self.given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        line = b"KEY-%09d\n" % next(self.numbers)
        buffer[: len(line)] = line
        self.given += len(line)
        return len(line)


async def test_a_file_is_not_read_further_than_its_batch(desk: Desk) -> None:
    endless = Endless()
    ask = Ask(product_id=desk.product_id, format="txt", batch=500, skip_duplicates=False, dry_run=False, by="somebody")
    async with opened(desk.settings) as shop:
        steps = run(shop, io.BufferedReader(endless), ask)
        first, second = await anext(steps), await anext(steps)
        await steps.aclose()  # type: ignore[attr-defined]
    assert (first.last_line, second.last_line, second.added) == (500, 1000, 500)
    assert second.read_bytes == 14 * 1000
    assert endless.given <= 14 * 1001


def read(content: bytes, form: str = "txt") -> list[Any]:
    """Secrets, and faults by their lines, as the file has them."""
    source = Source(io.BytesIO(content))
    rows = list(source.csv() if form == "csv" else source.txt())
    return [(row.line, row.secret) if isinstance(row, Unit) else row.line for row in rows]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", []),
        (b"\n \n\t\r\n", []),
        (b"A", [(1, "A")]),
        (b"A\nB\n", [(1, "A"), (2, "B")]),
        (b"\xef\xbb\xbfA\r\nB\r\n", [(1, "A"), (2, "B")]),
        (b"\xef\xbb\xbf", []),
        (b"A\n\n\nB", [(1, "A"), (4, "B")]),
        (b"  A b \t\n", [(1, "A b")]),
        ("ключ\n🙂\n".encode(), [(1, "ключ"), (2, "🙂")]),
        (b'a,"b;c\n', [(1, 'a,"b;c')]),
        (b"A\n\xff\nB", [(1, "A"), 2, (3, "B")]),
        (b"\xff\xfeA\x00\n\x00", [1, 2]),
        (b"\xed\xa0\x80\nB", [1, (2, "B")]),
        (b"A\n" + b"x" * 3 * MAX_LINE_BYTES + b"\nB\n", [(1, "A"), 2, (3, "B")]),
        (b"x" * MAX_LINE_BYTES, [1]),
        (b"x" * (MAX_LINE_BYTES - 1) + b"\nB", [(1, "x" * (MAX_LINE_BYTES - 1)), (2, "B")]),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_text_file_is_read_line_by_line(content: bytes, found: list[Any]) -> None:
    assert read(content) == found


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"secret\nA\nB\n", [(2, "A"), (3, "B")]),
        (b"\xef\xbb\xbfsecret\r\nA\r\n", [(2, "A")]),
        (b'secret\n"A"\n"B ""b"""\n', [(2, "A"), (3, 'B "b"')]),
        (b'secret\n"A\nA"\nB\n', [(2, "A\nA"), (4, "B")]),
        (b"discount_bp,secret\n5,A\n,B\n", [(2, "A"), (3, "B")]),
        (b"secret\n\nA\n", [(3, "A")]),
        (b"secret\nA,5\nB\n", [2, (3, "B")]),
        (b"secret,discount_bp\nA,x\nB,-1\nC,1.5\nD,\xd9\xa3\nE,999999\n", [2, 3, 4, 5, 6]),
        (b"secret,expires_at\nA,soon\nB,2031-13-01\n", [2, 3]),
        (b"secret\n\xff\nB\n", [2, (3, "B")]),
        (b'secret\nA\n"open\nB\n', [(2, "A"), 3]),
        (b'secret\nA\n"B"C\nD\n', [(2, "A"), 3]),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_csv_file_is_read_record_by_record(content: bytes, found: list[Any]) -> None:
    assert read(content, "csv") == found


def test_a_quote_that_is_never_closed_is_not_read_to_the_end_of_the_file() -> None:
    source = Source(io.BytesIO(b'secret\n"' + b"x\n" * 200_000))
    assert [row.line for row in source.csv()] == [2]
    assert source.read_bytes < 1.1 * csv.field_size_limit()


@pytest.mark.parametrize(
    "header",
    [b"", b"\n", b"CANARY\n", b"secret,CANARY\n", b"secret,secret\n", b"discount_bp\n", b"secret;discount_bp\n"],
)
def test_a_header_must_name_what_we_know(header: bytes) -> None:
    with pytest.raises(Malformed) as refusal:
        list(Source(io.BytesIO(header)).csv())
    assert "CANARY" not in str(refusal.value)


def test_what_is_told_of_a_line_has_no_room_for_its_secret() -> None:
    assert Fault.__struct_fields__ == ("line", "reason")
    assert Twice.__struct_fields__ == ("line", "fingerprint")
