"""Import: a file of secrets comes to the shelf batch by batch, each whole or not at all, and is never in memory whole.

txt: a secret per line. csv: a header with `secret`, and `discount_bp` and `expires_at` if there are any. Whatever
stops an import, what is in are whole batches, and the same file again with `skip_duplicates` goes on from there.
"""

import csv
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from itertools import islice
from typing import BinaryIO

import msgspec

from app.domain import units
from app.errors import Malformed
from app.flows import shelve
from app.flows.shelve import Fault, Twice
from app.shop import Shop

FORMATS = ("csv", "txt")
MAX_BATCH = 5000
MAX_LINE_BYTES = 65_536
COLUMNS = ("secret", "discount_bp", "expires_at")
UNREADABLE = "\udcff"  # what surrogateescape makes of a byte that is not UTF-8, and we of a line without an end


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What to import, and by whose hands."""

    product_id: int
    format: str
    batch: int
    skip_duplicates: bool
    dry_run: bool
    by: str


class Step(msgspec.Struct, frozen=True):
    """One batch: added (its duplicates left out, if that was asked), or refused whole for its faults or duplicates."""

    first_line: int
    last_line: int
    read_bytes: int  # of the file, so far
    added: int
    duplicates: list[Twice]
    faults: list[Fault]
    refused: bool


async def run(shop: Shop, file: BinaryIO, ask: Ask) -> AsyncIterator[Step]:
    """Each batch as it is done; a refused one is the last, but a dry run looks on.

    Raises: Malformed for a header that is none; NotFound, Conflict when the product takes no secrets; Unavailable.
    """
    source = Source(file)
    rows = source.csv() if ask.format == "csv" else source.txt()
    earlier: set[bytes] | None = set() if ask.dry_run else None  # the only thing that grows with the file
    while batch := list(islice(rows, ask.batch)):
        step = await _step(shop, ask, batch, source.read_bytes, earlier)
        yield step
        if step.refused and not ask.dry_run:
            return


async def _step(
    shop: Shop, ask: Ask, batch: list[units.Unit | Fault], read_bytes: int, earlier: set[bytes] | None
) -> Step:
    first, last = batch[0].line, batch[-1].line
    given = [row for row in batch if isinstance(row, units.Unit)]
    faults = [row for row in batch if isinstance(row, Fault)] + list(shelve.faults(given))
    if faults:
        return Step(first, last, read_bytes, 0, [], sorted(faults, key=lambda fault: fault.line), refused=True)
    actor = units.Actor(None, {"by": ask.by, "lines": f"{first}-{last}"})
    done = await shelve.shelve(
        shop, actor, ask.product_id, given,
        skip_duplicates=ask.skip_duplicates, dry_run=ask.dry_run, earlier=earlier,
    )  # fmt: skip
    return Step(first, last, read_bytes, done.units, done.duplicates, [], refused=isinstance(done, shelve.Clash))


class Source:
    """A file read line by line; a line that cannot be read is a fault of its own and not the end."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.read_bytes, self.line = file, 0, 0

    def txt(self) -> Iterator[units.Unit | Fault]:
        """A secret per line, less the blanks around it; blank lines are none."""
        for text in self._lines():
            if secret := text.strip():
                yield _unit(self.line, secret, "", "")

    def csv(self) -> Iterator[units.Unit | Fault]:
        """A secret per record; a quoted one may have line breaks. Raises: Malformed when the header is none."""
        records = csv.reader(self._lines(), strict=True)
        try:
            header = [name.strip().lower() for name in next(records, [])]
        except csv.Error:
            header = []
        if "secret" not in header or len(set(header)) < len(header) or not set(header) <= set(COLUMNS):
            # Not what stands there: a file without a header begins with a secret.
            raise Malformed(f"line 1 is no header: it names `secret`, and may name {' and '.join(COLUMNS[1:])}")
        line = self.line + 1
        try:
            for record in records:
                if len(record) == len(header):
                    found = dict(zip(header, record, strict=True))
                    secret = found["secret"].strip()
                    yield _unit(line, secret, found.get("discount_bp", ""), found.get("expires_at", ""))
                elif record:
                    yield Fault(line, f"{len(record)} fields where the header has {len(header)}")
                line = self.line + 1
        except csv.Error:
            yield Fault(line, "not CSV from here on: a quote that is not closed, or stands inside a field")

    def _lines(self) -> Iterator[str]:
        while raw := self.file.readline(MAX_LINE_BYTES):
            self.read_bytes += len(raw)
            self.line += 1
            text = raw.decode("utf-8-sig" if self.line == 1 else "utf-8", errors="surrogateescape")
            while len(raw) == MAX_LINE_BYTES and not raw.endswith(b"\n"):
                raw, text = self.file.readline(MAX_LINE_BYTES), UNREADABLE + "\n"
                self.read_bytes += len(raw)
            yield text


def _unit(line: int, secret: str, discount_bp: str, expires_at: str) -> units.Unit | Fault:
    """The unit of one line, as far as its text can be read; its values are judged where every unit's are."""
    if any("\udc80" <= char <= "\udcff" for char in secret):
        return Fault(line, f"not UTF-8, or longer than {MAX_LINE_BYTES} bytes")
    if "\0" in secret:
        return Fault(line, "holds NUL")
    text = discount_bp.strip()
    if text and not (text.isascii() and text.isdigit() and len(text) <= 5):
        return Fault(line, "discount_bp is not a whole number")
    try:
        moment = datetime.fromisoformat(expires_at.strip()) if expires_at.strip() else None
    except ValueError:
        return Fault(line, "expires_at is not a moment like 2030-12-31T23:59:59Z")
    return units.Unit(line, secret, int(text or 0), moment)
