"""Lua scripts as typed calls: a file is byte for byte what Redis runs, a Struct stands for each reply line.

A script whose header, body and Structs disagree is refused at import: documentation that nothing checks drifts
(STYLE 2.2). The grammar is in DESIGN section 3; the planted faults of tests/infra/test_lua.py show each rule.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha1
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any, Generic, Never, Protocol, TypeVar, cast, get_origin

import msgspec

from app.base import tally

ROOT = Path(__file__).parents[2] / "lua"
MOST_LINES = 60

Part = bytes | str | int  # no float: Lua rounds it, and tostring() keeps 14 digits (STYLE 4.4)
R = TypeVar("R")


class BadScript(Exception):
    """A script's header, body and Structs disagree; the text starts with file and line."""


class CommandFailed(Exception):
    """Redis answered with an error of its own: a defect here, not an outage."""


class ScriptFailed(CommandFailed):
    """The script raised, or broke a rule of Redis; the text is `name: error`."""


class BadReply(ScriptFailed):
    """The script answered something that its header does not declare."""


class Redis(Protocol):
    """What a script needs of a connection: `pipe.Pipe`, or the fake of the tests.

    Raises: errors.RedisDown; ScriptFailed from `evalsha`, CommandFailed from `command`.
    """

    async def evalsha(self, script: "Script[Any]", keys: Sequence[Part], args: Sequence[Part]) -> object: ...
    async def command(self, *parts: Part) -> object: ...


class Binding(msgspec.Struct, frozen=True):
    """One KEYS or ARGV as its `local` line declares it; `kind` is a Redis type or a unit."""

    line: int
    name: str
    kind: str
    meaning: str


class Reply(msgspec.Struct, frozen=True):
    """One reply line; a `tail` means that the last field takes the rest of the list."""

    line: int
    word: str
    fields: tuple[str, ...]
    tail: bool
    meaning: str


class Script(Generic[R]):
    """One script of `lua/<noun>/<verb>.lua`, called as a function that gives one of its Structs.

    Shape:  Structs in any order, one per reply line: `NotMine` is `not_mine`; fields equal in name and order,
            `left...` is a tuple of the rest. Integers arrive as int, everything else as bytes.
    Raises: BadScript at construction.
    """

    def __init__(self, name: str, *replies: type[R], root: Path = ROOT) -> None:
        text = Text(name, root)
        self.name, self.body = name, text.body
        self.sha = sha1(self.body.encode(), usedforsecurity=False).hexdigest()
        self.read_only = "no-writes" in text.flags()
        self.replies = text.replies()
        self.cost, self.slot = text.only("cost"), text.only("slot")
        self.keys, self.keys_tail = text.bindings("KEYS")
        self.args, self.args_tail = text.bindings("ARGV")
        text.check_body(self.replies)
        self._times = tally.SCRIPTS.of(name)
        self._outcomes = {reply.word.encode(): make for reply, make in _paired(text, self.replies, replies)}

    async def __call__(self, redis: Redis, keys: Sequence[Part] = (), args: Sequence[Part] = ()) -> R:
        """The outcome of one run, for one round trip, shared with every call of the same event-loop turn.

        Raises: TypeError for a wrong number of keys or args; ScriptFailed; errors.RedisDown.
        """
        self._check_count("keys", keys, self.keys, self.keys_tail)
        self._check_count("args", args, self.args, self.args_tail)
        reply: Any = await self._times.timed(redis.evalsha(self, keys, args))
        try:
            return self._outcomes[reply[0]](*reply[1:])
        except (KeyError, TypeError, IndexError):
            # Not its values: they may be somebody's goods, and this text goes to the log.
            shape = reply[:1] if isinstance(reply, list) else type(reply)
            raise BadReply(f"{self.name}: answered {shape!r:.80}") from None

    def _check_count(self, what: str, given: Sequence[Part], declared: tuple[Binding, ...], tail: str) -> None:
        if len(given) == len(declared) or (tail and len(given) > len(declared)):
            return
        names = [binding.name for binding in declared] + ["..."] * bool(tail)
        raise TypeError(f"{self.name} takes {len(declared)} {what} ({', '.join(names)}), got {len(given)}")


async def load(redis: Redis, scripts: Iterable[Script[Any]]) -> None:
    """Every script compiles on this server and is cached there, so that first calls are cheap.

    Raises: BadScript when the server cannot compile one; errors.RedisDown.
    """
    await asyncio.gather(*(_load(redis, script) for script in scripts))


async def _load(redis: Redis, script: Script[Any]) -> None:
    try:
        await redis.command("SCRIPT", "LOAD", script.body)
    except CommandFailed as error:
        raise BadScript(f"lua/{script.name}.lua: {error}") from None


def _paired(
    text: "Text", replies: tuple[Reply, ...], structs: tuple[type[R], ...]
) -> Iterator[tuple[Reply, Callable[..., R]]]:
    """Each reply line with what makes its Struct."""
    by_word = {re.sub(r"(?<!^)(?=[A-Z])", "_", struct.__name__).lower(): struct for struct in structs}
    for word in by_word.keys() - {reply.word for reply in replies}:
        text.refuse(1, f"class {by_word[word].__name__} has no line `-- reply  {word}`")
    for reply in replies:
        struct = by_word.get(reply.word) or text.refuse(reply.line, f"no class is given for the reply {reply.word!r}")
        fields = msgspec.structs.fields(cast(type[msgspec.Struct], struct))
        tuples = [field.name for field in fields if get_origin(field.type) is tuple]
        if tuple(field.name for field in fields) != reply.fields or tuples != list(reply.fields[-1:]) * reply.tail:
            shape = " ".join(f"{f.name}..." if f.name in tuples else f.name for f in fields)
            text.refuse(reply.line, f"class {struct.__name__} has the fields ({shape}), this line differs")
        yield reply, _with_tail(struct, len(reply.fields) - 1) if reply.tail else struct


def _with_tail(struct: type[R], fixed: int) -> Callable[..., R]:
    make = cast(Callable[..., R], struct)
    return lambda *values: make(*values[:fixed], values[fixed:])


FLAGS = {"no-writes", "allow-oom", "allow-stale"}  # the others would switch off the check that keys share a slot
MISSING = {"cjson", "cmsgpack", "struct", "bit", "sha1hex"}  # fakeredis lacks them (STYLE 4.2)
REPLY = re.compile(r"-- reply\s+([a-z]\w*)((?: \w+)*)(\.\.\.)?\s*(?:-- (.*))?")
BINDING = re.compile(r"local (\w+)\s*= (tonumber\()?(KEYS|ARGV)\[(\d+)\](?(2)\))\s*-- *(\S+)\s+(\S.*)")
TAIL = re.compile(r"-- (KEYS|ARGV)\[(\d+)\.\.\]\s+(\S.*)")
BUILT = re.compile(r"""\s*(?:local )?([\w, ]+?)\s*= (\{["']\w+["'].*)""")  # local cold, short = {"cold"}, {"short"}
TOKEN = re.compile(
    r"""--.*|\s+|\[=*\[|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[A-Za-z_]\w*|\d+(?:\.\d+)?|\.{2,3}|[=~<>]=|."""
)


class Text:
    """One script's text, read by line for what it declares and by token for what it does."""

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.path = root / f"{name}.lua"
        if not self.path.is_file():
            self.refuse(1, "no such file")
        self.body = self.path.read_bytes().decode()
        self.lines = self.body.splitlines()
        if len(self.lines) > MOST_LINES:
            self.refuse(len(self.lines), f"more than {MOST_LINES} lines")
        if len(self.lines) < 2 or not re.fullmatch(rf"-- {re.escape(name)}: \S.*", self.lines[1]):
            self.refuse(2, f"must read `-- {name}: what becomes true.`")
        self.tokens = [("", 1), *self._tokens()]

    def refuse(self, line: int, fault: str) -> Never:
        raise BadScript(f"lua/{self.name}.lua:{line}: {fault}")

    def flags(self) -> set[str]:
        found = re.fullmatch(r"#!lua flags=([a-z,-]*)", self.lines[0])
        flags = set(found[1].split(",")) - {""} if found else {"no shebang"}
        if not flags <= FLAGS:
            self.refuse(1, f"must read `#!lua flags=`, with flags of {', '.join(sorted(FLAGS))}")
        return flags

    def header(self, label: str) -> list[tuple[int, str]]:
        """The lines of one label in the comment block at the top."""
        block = takewhile(lambda line: line.startswith("--"), self.lines[1:])
        return [(number, line) for number, line in enumerate(block, 2) if re.match(rf"-- {label}\b", line)]

    def only(self, label: str) -> str:
        found = self.header(label)
        if len(found) != 1:
            self.refuse(found[1][0] if found else 2, f"needs one line `-- {label}`, has {len(found)}")
        line, text = found[0]
        return text.removeprefix(f"-- {label}").strip() or self.refuse(line, f"`-- {label}` says nothing")

    def replies(self) -> tuple[Reply, ...]:
        replies: dict[str, Reply] = {}
        for line, text in self.header("reply"):
            found = REPLY.fullmatch(text) or self.refuse(line, "must read `-- reply  word field field...  -- meaning`")
            word, fields, tail, meaning = found.groups("")
            if word in replies or (tail and not fields):
                self.refuse(line, f"{word} is declared twice" if word in replies else "`...` belongs to a field")
            replies[word] = Reply(line, word, tuple(fields.split()), bool(tail), meaning)
        return tuple(replies.values()) or self.refuse(2, "needs a line `-- reply`")

    def bindings(self, source: str) -> tuple[tuple[Binding, ...], str]:
        """What KEYS or ARGV hold, in order, and the meaning of their variadic tail ("" when there is none)."""
        bound: list[Binding] = []
        tail = ""
        for number, line in enumerate(self.lines, 1):
            found = BINDING.fullmatch(line) or TAIL.fullmatch(line)
            if found is None or source not in (found[1], found[3]):
                continue
            index = int(found[4] if found.re is BINDING else found[2])
            if tail or index != len(bound) + 1:
                self.refuse(number, f"{source}[{index}] is out of turn: each is bound once, in order, the tail last")
            if found.re is BINDING:
                bound.append(Binding(number, found[1], found[5], found[6]))
            else:
                tail = found[3]
        self._check_reads(source, bound, tail)
        return tuple(bound), tail

    def check_body(self, replies: tuple[Reply, ...]) -> None:
        """The body returns exactly the declared words, each with its fields, and needs nothing that the fake lacks."""
        for text, line in self.tokens:
            if text in MISSING:
                self.refuse(line, f"{text} is not everywhere; scripts use strings and integers only")
        declared = {reply.word: reply for reply in replies}
        returned = set()
        for line, word, values in self._returns():
            reply = declared.get(word) or self.refuse(line, f"the reply {word!r} is returned and not declared")
            if values is not None and (values < len(reply.fields) - 1 if reply.tail else values != len(reply.fields)):
                self.refuse(line, f"the reply {word!r} has {len(reply.fields)} fields, {values} are returned")
            returned.add(word)
        for reply in replies:
            if reply.word not in returned:
                self.refuse(reply.line, f"the reply {reply.word!r} is declared and never returned")

    def _tokens(self) -> Iterator[tuple[str, int]]:
        for number, line in enumerate(self.lines[1:], 2):
            for text in TOKEN.findall(line):
                if text.startswith(("--[[", "--[=", "[[", "[=")):
                    self.refuse(number, "long brackets hide code from the reader; use quotes and line comments")
                if not text.isspace() and not text.startswith("--"):
                    yield text, number

    def _around(self, i: int) -> str:
        """The token with the one before it and those after it, a space behind each."""
        return "".join(f"{text} " for text, _ in self.tokens[i - 1 : i + 6])

    def _check_reads(self, source: str, bound: list[Binding], tail: str) -> None:
        """Every bound name is read; KEYS and ARGV stand in binding lines, or where a declared tail is read."""
        # ARGV[i], unpack(ARGV, 3), table.concat(ARGV, " ", 3)
        reads = rf"\S* {source} \[ (?!\d+ \])|\( {source} , (\"[^\"]*\" , )?{len(bound) + 1} "
        reads += "" if bound else rf"|\( {source} \) "
        tail_is_read = not tail
        for i, (text, line) in enumerate(self.tokens):
            if text != source or BINDING.fullmatch(self.lines[line - 1]):
                continue
            is_read = re.match(reads, self._around(i)) is not None
            if not tail or not (is_read or self._around(i).startswith("# ")):
                self.refuse(line, f"{source} outside `local name = {source}[n]  -- type meaning` and a declared tail")
            tail_is_read |= is_read
        if not tail_is_read:
            self.refuse(1, f"{source}[{len(bound) + 1}..] is declared and never read")
        names = Counter(after for (before, _), (after, _) in pairwise(self.tokens) if before not in (".", ":"))
        for binding in bound:
            if names[binding.name] < 2:
                self.refuse(binding.line, f"{binding.name} is bound to {source} and never read")

    def _returns(self) -> Iterator[tuple[int, str, int | None]]:
        """Line, word and number of values of each reply; None where a table is built up before it is returned."""
        built: dict[str, tuple[int, str]] = {}
        for number, line in enumerate(self.lines, 1):
            if found := BUILT.fullmatch(line):
                words = [(number, word) for word in re.findall(r"""\{["'](\w+)""", found[2])]
                built |= zip(found[1].replace(" ", "").split(","), words, strict=False)
        for i, (_, line_number) in enumerate(self.tokens):
            if found := re.match(r"""return \{ ["'](\w+)["'] [,}] """, self._around(i)):
                yield line_number, found[1], self._values(i)
            elif (found := re.match(r"\S* return (\w+) (?![(.\[])", self._around(i))) and found[1] in built:
                yield *built[found[1]], None

    def _values(self, brace: int) -> int | None:
        """How many values follow the word in the table that opens here; None when `unpack` decides at run time."""
        depth = commas = 0
        for text, _ in self.tokens[brace:]:
            depth += (text in ("{", "(", "[")) - (text in ("}", ")", "]"))
            commas += depth == 1 and text == ","
            if text == "unpack" and depth == 1:
                return None
            if depth == 0:
                break
        return commas
