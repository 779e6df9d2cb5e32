"""A reader of server-sent events, strictly after the HTML standard (9.2.6), fed by any pieces."""

import codecs
import re
from typing import NamedTuple


class Event(NamedTuple):
    """What `EventSource` would dispatch."""

    kind: str
    data: str
    last_id: str


class Source:
    """Everything that was dispatched so far."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.comments: list[str] = []
        self.retry_ms: int | None = None
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._begun = self._after_cr = False
        self._line = ""
        self._data, self._kind, self._id = "", "", ""

    def feed(self, piece: bytes) -> None:
        """More of it; a piece may end inside a line, a character, or between CR and LF."""
        for char in self._decode(piece):
            if not self._begun and char == "\ufeff":  # one byte order mark at the very beginning is none of it
                self._begun = True
                continue
            self._begun = True
            if char == "\n" and self._after_cr:
                self._after_cr = False
                continue
            self._after_cr = char == "\r"
            if char in "\r\n":
                line, self._line = self._line, ""
                self._take(line)
            else:
                self._line += char

    def _take(self, line: str) -> None:
        if not line:
            self._dispatch()
            return
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name and ":" in line:
            self.comments.append(value)
        elif name == "event":
            self._kind = value
        elif name == "data":
            self._data += value + "\n"
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and re.fullmatch("[0-9]+", value):
            self.retry_ms = int(value)

    def _dispatch(self) -> None:
        if self._data:
            self.events.append(Event(self._kind or "message", self._data.removesuffix("\n"), self._id))
        self._data = self._kind = ""


def read(pieces: list[bytes]) -> Source:
    """What these pieces say, one after another; what has no end is dropped, as there."""
    source = Source()
    for piece in pieces:
        source.feed(piece)
    return source
