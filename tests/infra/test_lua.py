"""Scripts whose header, body and Structs disagree are refused; replies become Structs."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.infra import lua
from app.infra.lua import BadReply, BadScript, Part, Script, ScriptFailed
from tests.fake_redis import FakeRedis

GOOD = """\
#!lua flags=
-- till/take: take what is there, once for each ticket.
--
-- reply  taken left ttl_ms       -- the units are taken
-- reply  not_enough wanted...    -- nothing was taken: product, left, product, left …
-- reply  repeated                -- this ticket was here before
-- cost   O(lines), at most 9 commands
-- slot   {s:<seller>}

local free   = KEYS[1]            -- hash  units free to sell, by product
local ticket = ARGV[1]            -- bytes ticket id
local ttl_ms = tonumber(ARGV[2])  -- ms    > 0
-- ARGV[3..] product, quantity, product, quantity …

if redis.call("HSETNX", free, "ticket:" .. ticket, 1) == 0 then
  return {"repeated"}
end
local wanted = {"not_enough"}
for i = 3, #ARGV, 2 do
  local left = tonumber(redis.call("HGET", free, ARGV[i]) or "0")
  if left < tonumber(ARGV[i + 1]) then
    wanted[#wanted + 1] = ARGV[i]
    wanted[#wanted + 1] = left
  end
end
if #wanted > 1 then
  return wanted
end
local left = 0
for i = 3, #ARGV, 2 do
  left = left + redis.call("HINCRBY", free, ARGV[i], -tonumber(ARGV[i + 1]))
end
redis.call("PEXPIRE", free, ttl_ms)
return {"taken", left, redis.call("PTTL", free)}
"""


class Taken(msgspec.Struct, frozen=True):
    left: int
    ttl_ms: int


class NotEnough(msgspec.Struct, frozen=True):
    wanted: tuple[bytes | int, ...]


Repeated = msgspec.defstruct("Repeated", [], frozen=True)


def planted(root: Path, text: str, *structs: type[Any], name: str = "till/take") -> Script[Any]:
    path = root / f"{name}.lua"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return Script(name, *structs or (Taken, NotEnough, Repeated), root=root)


def test_a_script_knows_its_header(tmp_path: Path) -> None:
    script = planted(tmp_path, GOOD)
    assert script.name == "till/take"
    assert script.body == GOOD
    assert len(script.sha) == 40
    assert not script.read_only
    assert script.cost == "O(lines), at most 9 commands"
    assert script.slot == "{s:<seller>}"
    assert [(b.name, b.kind, b.meaning) for b in script.keys] == [("free", "hash", "units free to sell, by product")]
    assert [(b.name, b.kind, b.meaning) for b in script.args] == [
        ("ticket", "bytes", "ticket id"),
        ("ttl_ms", "ms", "> 0"),
    ]
    assert (script.keys_tail, script.args_tail) == ("", "product, quantity, product, quantity …")
    assert [(r.word, r.fields, r.tail) for r in script.replies] == [
        ("taken", ("left", "ttl_ms"), False),
        ("not_enough", ("wanted",), True),
        ("repeated", (), False),
    ]


def test_no_writes_is_read_only(tmp_path: Path) -> None:
    assert planted(tmp_path, GOOD.replace("flags=", "flags=no-writes,allow-stale")).read_only


FREE = "local free   = KEYS[1]            -- hash  units free to sell, by product\n"
TICKET = "local ticket = ARGV[1]            -- bytes ticket id\n"
TTL = "local ttl_ms = tonumber(ARGV[2])  -- ms    > 0\n"
TAIL = "-- ARGV[3..] product, quantity, product, quantity …\n"
FAULTS = [
    ("no shebang", "#!lua flags=\n", "-- no flags\n", 1, "#!lua flags="),
    ("unknown flag", "flags=", "flags=no-cluster", 1, "#!lua flags="),
    ("another name", "-- till/take:", "-- till/give:", 2, "till/take"),
    ("no meaning", "take what is there, once for each ticket.", "", 2, "till/take"),
    ("a malformed reply", "-- reply  repeated ", "-- reply  Repeated ", 6, "must read"),
    ("a reply twice", "-- reply  repeated ", "-- reply  taken ", 6, "taken is declared twice"),
    ("a tail without a field", "not_enough wanted...", "not_enough...", 5, "belongs to a field"),
    ("no reply", GOOD[GOOD.index("-- reply") : GOOD.index("-- cost")], "", 2, "needs a line `-- reply`"),
    ("no cost", "-- cost ", "-- price", 2, "-- cost"),
    ("two costs", "-- slot ", "-- cost ", 8, "-- cost"),
    ("an empty cost", "-- cost   O(lines), at most 9 commands", "-- cost", 7, "says nothing"),
    ("no slot", "-- slot   {s:<seller>}\n", "", 2, "-- slot"),
    ("a binding without comment", FREE, "local free = KEYS[1]\n", 10, "KEYS outside"),
    ("a binding without meaning", FREE, "local free = KEYS[1]  -- hash\n", 10, "KEYS outside"),
    ("an indented binding", FREE, "  " + FREE, 10, "KEYS outside"),
    ("bindings out of order", FREE, FREE.replace("KEYS[1]", "KEYS[2]"), 10, "KEYS[2] is out of turn"),
    ("bound twice", TICKET, TICKET + TICKET.replace("ticket =", "again  ="), 12, "ARGV[1] is out of turn"),
    ("a binding after the tail", TAIL, TAIL + TTL.replace("[2]", "[3]"), 14, "ARGV[3] is out of turn"),
    ("a tail that starts elsewhere", TAIL, TAIL.replace("3..", "4.."), 13, "ARGV[4] is out of turn"),
    ("a direct use", '"ticket:" .. ticket', '"ticket:" .. ARGV[1]', 15, "ARGV outside"),
    ("no tail declared", TAIL, "", 18, "ARGV outside"),
    ("a tail that is not read", GOOD[GOOD.index("for i") :], 'return {"taken", ttl_ms, 1}\n', 1, "never read"),
    ("keys computed without a tail", 'HGET", free', 'HGET", KEYS[i]', 20, "KEYS outside"),
    ("the whole list taken", "#ARGV, 2 do\n  local", "#{unpack(ARGV)} do\n  local", 19, "ARGV outside"),
    ("an unread key", FREE, FREE + FREE.replace("free ", "other").replace("[1]", "[2]"), 11, "other is bound"),
    ("an unread argument", '"ticket:" .. ticket', '"ticket:"', 11, "ticket is bound to ARGV and never read"),
    ("read in a comment only", '"ticket:" .. ticket', '"ticket" -- ticket', 11, "ticket is bound"),
    ("an undeclared reply", 'return {"repeated"}', 'return {"seen"}', 16, "'seen' is returned and not declared"),
    ("an undeclared built reply", 'local wanted = {"not_enough"}', 'local wanted = {"few"}', 18, "'few' is returned"),
    ("a reply never returned", '  return {"repeated"}\n', "  return wanted\n", 6, "'repeated' is declared and never"),
    ("a built reply never returned", "  return wanted\n", "", 5, "'not_enough' is declared and never"),
    ("too few values", 'left, redis.call("PTTL", free)}', "left}", 34, "2 fields, 1 are"),
    ("too many values", 'return {"repeated"}', 'return {"repeated", {1, 2}}', 16, "0 fields, 1 are"),
    ("cjson", '"ticket:" .. ticket', "cjson.encode(ticket)", 15, "cjson"),
    ("sha1hex", '"ticket:" .. ticket', "redis.sha1hex(ticket)", 15, "sha1hex"),
    ("a long comment", "local left = 0\n", "--[[ local left = 0 ]]\n", 29, "long brackets"),
    ("a long string", "local left = 0\n", "local left = [[0]]\n", 29, "long brackets"),
    ("too long", "local left = 0\n", "local left = 0\n" * 28, 61, "more than 60"),
]


@pytest.mark.parametrize(("old", "new", "line", "says"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_planted_fault_is_refused(tmp_path: Path, old: str, new: str, line: int, says: str) -> None:
    assert old in GOOD
    with pytest.raises(BadScript) as caught:
        planted(tmp_path, GOOD.replace(old, new, 1))
    assert str(caught.value).startswith(f"lua/till/take.lua:{line}: ")
    assert says in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadScript, match=r"lua/till/take.lua:1: no such file"):
        Script("till/take", Taken, root=tmp_path)


@pytest.mark.parametrize(
    "accepted",
    [
        "unpack(ARGV, 3)",
        'table.concat(ARGV, " ", 3)',
        "ARGV[1 + ttl_ms]",
        "redis.sha1hex2",
        '"KEYS[7] and cjson" -- KEYS[7] cjson',
        "{'taken', 1}",
    ],
)
def test_what_breaks_no_rule_is_accepted(tmp_path: Path, accepted: str) -> None:
    planted(tmp_path, GOOD.replace("local left = 0\n", f"local left = 0\nlocal more = {accepted}\n"))


def test_a_list_that_is_all_tail_may_be_passed_whole(tmp_path: Path) -> None:
    text = """\
#!lua flags=
-- till/wipe: these products are gone.
-- reply  wiped gone
-- reply  nothing
-- cost   O(products), at most 1 command
-- slot   {s:<seller>}
local free = KEYS[1]  -- hash  units free to sell
-- ARGV[1..] products
local wiped, nothing = {"wiped", redis.call("HDEL", free, unpack(ARGV))}, {"nothing"}
if #ARGV > 0 then return wiped end
return nothing
"""

    structs = msgspec.defstruct("Wiped", [("gone", int)]), msgspec.defstruct("Nothing", [])
    script = planted(tmp_path, text, *structs, name="till/wipe")
    assert (script.args, script.args_tail) == ((), "products")


SWAPPED = msgspec.defstruct("Taken", [("ttl_ms", int), ("left", int)])
FEWER = msgspec.defstruct("Taken", [("left", int)])
TAILED = msgspec.defstruct("Taken", [("left", int), ("ttl_ms", tuple[int, ...])])
UNTAILED = msgspec.defstruct("NotEnough", [("wanted", int)])
STRAY = msgspec.defstruct("SoonBack", [])


@pytest.mark.parametrize(
    ("structs", "line", "says"),
    [
        ((Taken, NotEnough), 6, "no class is given for the reply 'repeated'"),
        ((Taken, NotEnough, Repeated, STRAY), 1, "class SoonBack has no line `-- reply  soon_back`"),
        ((SWAPPED, NotEnough, Repeated), 4, "class Taken has the fields (ttl_ms left)"),
        ((FEWER, NotEnough, Repeated), 4, "class Taken has the fields (left)"),
        ((TAILED, NotEnough, Repeated), 4, "class Taken has the fields (left ttl_ms...)"),
        ((Taken, UNTAILED, Repeated), 5, "class NotEnough has the fields (wanted)"),
    ],
)
def test_structs_that_differ_from_the_header_are_refused(
    tmp_path: Path, structs: tuple[type[Any], ...], line: int, says: str
) -> None:
    with pytest.raises(BadScript) as caught:
        planted(tmp_path, GOOD, *structs)
    assert f"take.lua:{line}: {says}" in str(caught.value)


class Canned:
    """A server that gives one answer and remembers what it was asked."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.asked: list[tuple[str, list[Part], list[Part]]] = []

    async def evalsha(self, script: Script[Any], keys: Sequence[Part], args: Sequence[Part]) -> object:
        self.asked.append((script.name, list(keys), list(args)))
        return self.answer

    async def command(self, *parts: Part) -> object:
        return self.answer


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ([b"taken", 4, 900], Taken(left=4, ttl_ms=900)),
        ([b"not_enough", b"sku-1", 0, b"sku-2", 3], NotEnough(wanted=(b"sku-1", 0, b"sku-2", 3))),
        ([b"not_enough"], NotEnough(wanted=())),
        ([b"repeated"], Repeated()),
    ],
)
async def test_a_reply_becomes_its_struct(tmp_path: Path, answer: list[object], outcome: object) -> None:
    canned = Canned(answer)
    assert await planted(tmp_path, GOOD)(canned, keys=["{s:1}free"], args=["t1", 900, "sku-1", 2]) == outcome
    assert canned.asked == [("till/take", ["{s:1}free"], ["t1", 900, "sku-1", 2])]


@pytest.mark.parametrize("answer", [[b"lost"], [b"taken", 4], [b"taken", 4, 5, 6], [], None, b"OK", 7, [[b"taken"]]])
async def test_an_undeclared_reply_is_bad(tmp_path: Path, answer: object) -> None:
    with pytest.raises(BadReply, match="till/take: answered"):
        await planted(tmp_path, GOOD)(Canned(answer), keys=["{s:1}free"], args=["t1", 900])


@pytest.mark.parametrize(
    ("keys", "args", "says"),
    [
        ([], ["t1", 900], r"till/take takes 1 keys \(free\), got 0"),
        (["a", "b"], ["t1", 900], r"till/take takes 1 keys \(free\), got 2"),
        (["a"], ["t1"], r"till/take takes 2 args \(ticket, ttl_ms, \.\.\.\), got 1"),
    ],
)
async def test_a_wrong_count_never_leaves(tmp_path: Path, keys: list[Part], args: list[Part], says: str) -> None:
    canned = Canned([b"repeated"])
    with pytest.raises(TypeError, match=says):
        await planted(tmp_path, GOOD)(canned, keys=keys, args=args)
    assert canned.asked == []


@pytest.fixture
async def fake() -> AsyncIterator[FakeRedis]:
    fake = FakeRedis()
    yield fake
    await fake.aclose()


async def test_the_fake_runs_a_script(tmp_path: Path, fake: FakeRedis) -> None:
    take = planted(tmp_path, GOOD)
    await lua.load(fake, [take])
    await fake.command("HSET", "{s:1}free", "sku-1", 5)
    assert await take(fake, keys=["{s:1}free"], args=["t1", 900, "sku-1", 2]) == Taken(left=3, ttl_ms=900)
    assert await take(fake, keys=["{s:1}free"], args=["t1", 900, "sku-1", 2]) == Repeated()
    assert await take(fake, keys=["{s:1}free"], args=["t2", 900, "sku-1", 4]) == NotEnough(wanted=(b"sku-1", 3))


async def test_the_fake_fails_like_a_server(tmp_path: Path, fake: FakeRedis) -> None:
    take = planted(tmp_path, GOOD)
    await fake.command("SET", "{s:1}free", "not a hash")
    with pytest.raises(ScriptFailed, match=r"^till/take: .*WRONGTYPE"):
        await take(fake, keys=["{s:1}free"], args=["t1", 900])


@pytest.mark.parametrize("path", sorted(lua.ROOT.glob("*/*.lua")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_script_of_the_house_keeps_its_header(path: Path) -> None:
    text = lua.Text(f"{path.parent.name}/{path.stem}", lua.ROOT)
    text.flags()
    text.bindings("KEYS")
    text.bindings("ARGV")
    text.check_body(text.replies())
