"""The markup that the Bot API simulator understands, and what it says of broken markup: Telegram's own words."""

from typing import Any

import pytest

from app.sandbox import markup

HTML_CASES: list[tuple[str, str, list[dict[str, Any]]]] = [
    ("plain", "plain", []),
    ("&lt;a&gt; &amp; &quot; &#65;&#x42; &copy;", '<a> & " AB &copy;', []),
    (
        "<b>a<i>б🙂</i></b>",
        "aб🙂",
        [{"type": "bold", "offset": 0, "length": 4}, {"type": "italic", "offset": 1, "length": 3}],
    ),
    ('<a href="https://x.example/?a=1&amp;b">x</a>', "x", [{"type": "text_link", "url": "https://x.example/?a=1&b"}]),
    ("<pre><code class='language-py'>1</code></pre>", "1", [{"type": "pre", "language": "py"}]),
    ("<code class='language-py'>1</code>", "1", [{"type": "code"}]),
    (
        "<span class='tg-spoiler'>x</span><tg-spoiler>y</>",
        "xy",
        [{"type": "spoiler"}, {"type": "spoiler", "offset": 1}],
    ),
    ("<blockquote expandable>q</blockquote>", "q", [{"type": "expandable_blockquote"}]),
    ("<b></b>x > y", "x > y", []),
]


@pytest.mark.parametrize(("source", "text", "entities"), HTML_CASES)
def test_html_becomes_text_and_entities(source: str, text: str, entities: list[dict[str, Any]]) -> None:
    told, found = markup.parse(source, "html")
    assert told == text
    assert len(found) == len(entities)
    for got, wanted in zip(found, entities, strict=True):
        assert got | wanted == got


# The wording is TDLib's, as its tests state it (test/message_entities.cpp).
@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("🏟 🏟&lt;<abacaba", "Unclosed start tag at byte offset 13"),
        ("🏟 🏟&lt;<abac aba>", 'Unsupported start tag "abac" at byte offset 13'),
        ("🏟 🏟&lt;<i    aba>", 'Can\'t find end tag corresponding to start tag "i"'),
        ("🏟 🏟&lt;</", "Unexpected end tag at byte offset 13"),
        ("🏟 🏟&lt;<b></b></", "Unexpected end tag at byte offset 20"),
        ("🏟 🏟&lt;<i>a</i   ", "Unclosed end tag at byte offset 17"),
        ("🏟 🏟&lt;<i>a</em   >", 'Unmatched end tag at byte offset 17, expected "</i>", found "</em>"'),
        ("<b>a<i>b</b></i>", 'Unmatched end tag at byte offset 8, expected "</i>", found "</b>"'),
        ("a < b and c > d", 'Unsupported start tag "" at byte offset 2'),
        ("<span>x</span>", 'Tag "span" must have class "tg-spoiler" at byte offset 0'),
        ("<br/>", 'Unsupported start tag "br/" at byte offset 0'),
    ],
)
def test_broken_html_is_told_in_telegrams_words(source: str, error: str) -> None:
    with pytest.raises(markup.BadMarkup) as caught:
        markup.parse(source, "html")
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("source", "text", "kinds"),
    [
        (r"1\.5 \- ok\!", "1.5 - ok!", []),
        (
            "*b* _i_ __u__ ~s~ ||h|| `c.d`",
            "b i u s h c.d",
            ["bold", "italic", "underline", "strikethrough", "spoiler", "code"],
        ),
        ("*a _b_*", "a b", ["bold", "italic"]),
        ("```py\nx = 1.0\n```", "x = 1.0\n", ["pre"]),
        (r"[a\.b](https://x.example/a_\)b)", "a.b", ["text_link"]),
        ("![👍](tg://emoji?id=1)", "👍", ["custom_emoji"]),
        (">quote\n>more\nafter", "quote\nmore\nafter", ["blockquote"]),
    ],
)
def test_markdown_becomes_text_and_entities(source: str, text: str, kinds: list[str]) -> None:
    told, found = markup.parse(source, "markdownv2")
    assert told == text
    assert [entity["type"] for entity in found] == kinds


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("🏟 🏟_abacaba", "Can't find end of Italic entity at byte offset 9"),
        ("🏟 🏟_abac * asd ", "Can't find end of Bold entity at byte offset 15"),
        ("🏟 🏟_abac * asd _", "Can't find end of Italic entity at byte offset 21"),
        ("🏟 🏟`", "Can't find end of Code entity at byte offset 9"),
        ("🏟 🏟```a", "Can't find end of Pre entity at byte offset 9"),
        ("🏟 🏟```a ", "Can't find end of PreCode entity at byte offset 9"),
        ("🏟 🏟_🏟 🏟__", "Can't find end of Underline entity at byte offset 19"),
        (r"[telegram\.org](asd\)", "Can't find end of a URL at byte offset 16"),
        ("🏟 🏟!", "Character '!' is reserved and must be escaped with the preceding '\\'"),
        ("🏟 🏟>", "Character '>' is reserved and must be escaped with the preceding '\\'"),
    ],
)
def test_broken_markdown_is_told_in_telegrams_words(source: str, error: str) -> None:
    with pytest.raises(markup.BadMarkup) as caught:
        markup.parse(source, "markdownv2")
    assert str(caught.value) == error
