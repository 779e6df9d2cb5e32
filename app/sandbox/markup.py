"""Telegram's formatted text: HTML and MarkdownV2 as plain text with entities, or the error Telegram answers.

Source: Bot API "Formatting options"; the errors' wording is TDLib's (td/telegram/MessageEntity.cpp), as its tests
(test/message_entities.cpp) show it. Offsets in errors count UTF-8 bytes, those in entities UTF-16 units.
"""

import html
import re
from typing import Any

import msgspec

TAGS = {
    "b": "bold",
    "strong": "bold",
    "i": "italic",
    "em": "italic",
    "u": "underline",
    "ins": "underline",
    "s": "strikethrough",
    "strike": "strikethrough",
    "del": "strikethrough",
    "span": "spoiler",
    "tg-spoiler": "spoiler",
    "tg-emoji": "custom_emoji",
    "code": "code",
    "pre": "pre",
    "a": "text_link",
    "blockquote": "blockquote",
}
PLAIN_HTML = re.compile(r"[^<&]+")
REFERENCE = re.compile(r"&(?:(lt|gt|amp|quot)|#([0-9]{1,7})|#[xX]([0-9a-fA-F]{1,6}));?")  # Telegram knows no others
TAG_NAME = re.compile(r"<([^\s>]*)(?=[\s>])")
ATTRIBUTE = re.compile(r"""\s+([^\s=>]+)(?:\s*=\s*("[^"]*"|'[^']*'|[A-Za-z0-9.\-]+))?""")
TAG_END = re.compile(r"\s*>")
CLOSING = re.compile(r"</([^\s>]*)\s*>")

RESERVED = "_*[]()~`>#+-=|{}.!"
# Longest first: `__` is always read greedily as underline (Bot API "MarkdownV2 style").
MARKS = {
    "```": "Pre",
    "__": "Underline",
    "||": "Spoiler",
    "_": "Italic",
    "*": "Bold",
    "~": "Strikethrough",
    "`": "Code",
}
BRACKETS = {"![": "CustomEmoji", "[": "TextUrl"}
TYPES = {"TextUrl": "text_link", "CustomEmoji": "custom_emoji"}
LANGUAGE = re.compile(r"[^\s`]+(?=\s)")


class BadMarkup(Exception):
    """The text's markup is broken; the message is what follows `can't parse entities: `."""


class Open(msgspec.Struct):
    """An entity that has begun."""

    mark: str
    start: int  # UTF-16 units of plain text before it
    at: int  # where its mark stands in the source
    entity: dict[str, Any]
    order: int


class Text:
    """Plain text growing piece by piece, and the entities over it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.pieces: list[str] = []
        self.units = 0
        self.stack: list[Open] = []
        self.done: list[tuple[int, dict[str, Any]]] = []
        self.opened = 0

    def add(self, piece: str) -> None:
        self.pieces.append(piece)
        self.units += utf16_units(piece)

    def begin(self, mark: str, at: int, entity: dict[str, Any]) -> None:
        self.stack.append(Open(mark, self.units, at, entity, self.opened))
        self.opened += 1

    def end(self) -> None:
        """The innermost entity is over; an empty one leaves no trace."""
        last = self.stack.pop()
        if self.units > last.start and last.entity:
            placed = {"offset": last.start, "length": self.units - last.start}
            self.done.append((last.order, {"type": last.entity["type"], **placed, **last.entity}))

    def bytes_before(self, at: int) -> int:
        return len(self.source[:at].encode(errors="surrogatepass"))

    def line_start(self) -> bool:
        return not self.pieces or self.pieces[-1].endswith("\n")

    def result(self) -> tuple[str, list[dict[str, Any]]]:
        return "".join(self.pieces), [entity for _, entity in sorted(self.done, key=lambda pair: pair[0])]


def parse(source: str, parse_mode: str) -> tuple[str, list[dict[str, Any]]]:
    """The plain text and its entities.

    Raises: BadMarkup.
    """
    if parse_mode == "html":
        return parse_html(source)
    if parse_mode == "markdownv2":
        return parse_markdown_v2(source)
    return source, []  # the legacy Markdown is let through unread


def utf16_units(text: str) -> int:
    return len(text.encode("utf-16-le", errors="surrogatepass")) // 2


def parse_html(source: str) -> tuple[str, list[dict[str, Any]]]:
    """The plain text and entities of HTML.

    Raises: BadMarkup for a tag that is unknown, unclosed or closed out of order.
    """
    text = Text(source)
    at = 0
    while at < len(source):
        if plain := PLAIN_HTML.match(source, at):
            text.add(plain[0])
            at = plain.end()
        elif source[at] == "&":
            found = REFERENCE.match(source, at)
            text.add(reference(found) if found else "&")
            at = found.end() if found else at + 1
        elif source.startswith("</", at):
            at = close_tag(text, at)
        else:
            at = open_tag(text, at)
    if text.stack:
        raise BadMarkup(f'Can\'t find end tag corresponding to start tag "{text.stack[-1].mark}"')
    return text.result()


def reference(found: re.Match[str]) -> str:
    name, decimal, hexadecimal = found.groups()
    if name:
        return html.unescape(f"&{name};")
    code = int(decimal) if decimal else int(hexadecimal, 16)
    return chr(code) if 0 < code < 0x10FFFF and not 0xD800 <= code < 0xE000 else found[0]


def open_tag(text: Text, at: int) -> int:
    where = f"at byte offset {text.bytes_before(at)}"
    named = TAG_NAME.match(text.source, at)
    if named is None:
        raise BadMarkup(f"Unclosed start tag {where}")
    tag = named[1].lower()
    if tag not in TAGS:
        raise BadMarkup(f'Unsupported start tag "{tag}" {where}')
    attributes: dict[str, str] = {}
    here = named.end()
    while attribute := ATTRIBUTE.match(text.source, here):
        attributes[attribute[1].lower()] = html.unescape((attribute[2] or "").strip("\"'"))
        here = attribute.end()
    ended = TAG_END.match(text.source, here)
    if ended is None:
        raise BadMarkup(f'Unclosed start tag "{tag}" {where}')
    if tag == "span" and attributes.get("class") != "tg-spoiler":
        raise BadMarkup(f'Tag "span" must have class "tg-spoiler" {where}')
    text.begin(tag, at, tag_entity(text, tag, attributes))
    return ended.end()


def tag_entity(text: Text, tag: str, attributes: dict[str, str]) -> dict[str, Any]:
    """The entity that a tag makes; empty when it makes none."""
    kind = TAGS[tag]
    outer = text.stack[-1] if text.stack else None
    if tag == "a":
        url = attributes.get("href", "")
        return {"type": kind, "url": url} if "." in url or "://" in url else {}
    if tag == "tg-emoji":
        return {"type": kind, "custom_emoji_id": attributes.get("emoji-id", "")}
    if tag == "blockquote" and "expandable" in attributes:
        return {"type": "expandable_blockquote"}
    language = attributes.get("class", "").removeprefix("language-")
    if (
        tag == "code"
        and language != attributes.get("class", "")
        and outer
        and outer.mark == "pre"
        and outer.start == text.units
    ):
        outer.entity["language"] = language  # <pre><code class="language-…"> is one entity
        return {}
    return {"type": kind}


def close_tag(text: Text, at: int) -> int:
    where = f"at byte offset {text.bytes_before(at)}"
    if not text.stack:
        raise BadMarkup(f"Unexpected end tag {where}")
    closing = CLOSING.match(text.source, at)
    if closing is None:
        raise BadMarkup(f"Unclosed end tag {where}")
    expected, found = text.stack[-1].mark, closing[1].lower()
    if found not in ("", expected):  # `</>` closes whatever is open
        raise BadMarkup(f'Unmatched end tag {where}, expected "</{expected}>", found "</{found}>"')
    text.end()
    return closing.end()


def parse_markdown_v2(source: str) -> tuple[str, list[dict[str, Any]]]:
    """The plain text and entities of MarkdownV2.

    Raises: BadMarkup for an entity without its end, or a reserved character that is not escaped.
    """
    text = Text(source)
    at = 0
    while at < len(source):
        char, inside = source[at], text.stack[-1].mark if text.stack else ""
        if char == "\\" and at + 1 < len(source) and 0 < ord(source[at + 1]) < 127:
            text.add(source[at + 1])
            at += 2
        elif inside in ("`", "```"):
            at = inside_code(text, at, inside)
        elif char not in RESERVED:
            text.add(char)
            at += 1
            if char == "\n" and inside == ">" and not source.startswith(">", at):
                text.end()
        else:
            at = markdown_mark(text, at, inside)
    if text.stack and text.stack[-1].mark == ">":
        text.end()
    if text.stack:
        last = text.stack[-1]
        kind = "PreCode" if "language" in last.entity else (MARKS | BRACKETS).get(last.mark, "BlockQuote")
        raise BadMarkup(f"Can't find end of {kind} entity at byte offset {text.bytes_before(last.at)}")
    return text.result()


def inside_code(text: Text, at: int, fence: str) -> int:
    if text.source.startswith(fence, at):
        text.end()
        return at + len(fence)
    text.add(text.source[at])
    return at + 1


def markdown_mark(text: Text, at: int, inside: str) -> int:
    source = text.source
    if source[at] == ">" and text.line_start():
        if inside != ">":
            text.begin(">", at, {"type": "blockquote"})
        return at + 1
    if source.startswith("||", at) and inside == ">" and source[at + 2 : at + 3] in ("", "\n"):
        text.stack[-1].entity["type"] = "expandable_blockquote"
        return at + 2
    if source[at] == "]" and inside in BRACKETS:
        return close_bracket(text, at)
    for mark, kind in (MARKS | BRACKETS).items():
        if source.startswith(mark, at):
            if inside == mark:
                text.end()
                return at + len(mark)
            text.begin(mark, at, {"type": TYPES.get(kind, kind.lower())})
            return after_fence(text, at + 3) if mark == "```" else at + len(mark)
    raise BadMarkup(f"Character '{source[at]}' is reserved and must be escaped with the preceding '\\'")


def after_fence(text: Text, at: int) -> int:
    """Past the language of a code block and the line break after it."""
    if language := LANGUAGE.match(text.source, at):
        text.stack[-1].entity["language"] = language[0]
        at = language.end()
    return at + 1 if text.source.startswith("\n", at) else at


def close_bracket(text: Text, at: int) -> int:
    """The link's text is over: its URL follows in parentheses, or there is no link."""
    last = text.stack[-1]
    if not text.source.startswith("(", at + 1):
        if last.mark == "![":
            raise BadMarkup("The entity must contain a tg://emoji or tg://time URL")
        last.entity.clear()
        text.end()
        return at + 1
    found = re.compile(r"\(((?:\\.|[^\\)])*)\)", re.DOTALL).match(text.source, at + 1)
    if found is None:
        raise BadMarkup(f"Can't find end of a URL at byte offset {text.bytes_before(at + 2)}")
    url = re.sub(r"\\(.)", r"\1", found[1])
    if last.mark == "![":
        if not url.startswith("tg://emoji?id="):
            raise BadMarkup("Invalid tg://emoji or tg://time URL specified")
        last.entity["custom_emoji_id"] = url.removeprefix("tg://emoji?id=")
    else:
        last.entity["url"] = url
    text.end()
    return found.end()
