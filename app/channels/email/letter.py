"""A mail: text and HTML that say the same, and the message that a mail server takes.

The email package writes the headers and refuses a line break in any; whatever stands in HTML was escaped on its way in.
"""

from collections.abc import Sequence
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from html import escape

import msgspec

from app.base.mailbox import Sender
from app.channels.email import texts
from app.channels.telegram.texts import MAX_LENGTH, language, order_news

_POLICY = SMTP.clone(cte_type="7bit")  # nothing that a server on the way must know 8BITMIME or SMTPUTF8 for

_PAGE = """\
<!doctype html>
<html lang="{language}"><head><meta charset="utf-8"><title>{subject}</title></head>
<body style="margin:0;padding:24px;background:#f4f3ee;color:#1b1e1b;font:16px/1.5 system-ui,sans-serif">
<div style="max-width:560px;margin:0 auto;padding:24px;background:#fff;border-radius:12px">
<p style="margin:0 0 16px">{lead}</p>
"""
_TABLE = '<table style="width:100%;border-collapse:collapse">\n'
_ROW = """\
<tr><td style="padding:4px 0">{what}</td><td style="padding:4px 0;text-align:right;white-space:nowrap">{price}</td></tr>
"""
_TOTAL = """\
<tr><th style="padding:8px 0;text-align:left">{what}</th><th style="padding:8px 0;text-align:right">{price}</th></tr>
</table>
"""
_NOTE = '<p style="margin:16px 0 0">{text}</p>\n'
_END = """\
<p style="margin:24px 0"><a href="{link}" style="color:#17694f">{open}</a></p>
<p style="margin:0;color:#6a716b;font-size:14px">{why}</p>
</div></body></html>
"""


class Letter(msgspec.Struct, frozen=True):
    """What is written, as text and as HTML."""

    subject: str
    text: str
    html: str


class Line(msgspec.Struct, frozen=True):
    """What was bought, and for how much, as people read it."""

    title: str
    quantity: int
    price: str


def order_letter(
    status: str, code: str, number: int, lines: Sequence[Line], *, total: str, link: str, amount: str, due: str
) -> Letter:
    """News of an order with what was bought: never the goods themselves, which stay in the shop."""
    words, subject = texts.order(code), texts.subject(status, code, number)
    lead = order_news(status, code, number, [], max_length=MAX_LENGTH, amount=amount, due=due)
    bought = [(f"{line.quantity} x {_one_line(line.title)}", line.price) for line in lines]
    note = words["goods"] if status in texts.IN_SHOP else ""
    told = [f"{what}: {price}" for what, price in (*bought, (words["total"], total))]
    plain = [lead, "\n".join(told), note, f"{words['open']}: {link}", words["why"]]
    html = [
        _filled(_PAGE, language=language(code), subject=subject, lead=lead), _TABLE,
        *(_filled(_ROW, what=what, price=price) for what, price in bought),
        _filled(_TOTAL, what=words["total"], price=total), _filled(_NOTE, text=note) if note else "",
        _filled(_END, link=link, open=words["open"], why=words["why"]),
    ]  # fmt: skip
    return Letter(subject, "\n\n".join(filter(None, plain)), "".join(html))


def confirmation_letter(code: str, *, link: str, hours: int) -> Letter:
    """The one mail that an address gets before it is confirmed."""
    words = texts.confirmation(code)
    subject, lead, why = words["subject"], words["lead"], words["why"].format(hours=hours)
    html = _filled(_PAGE, language=language(code), subject=subject, lead=lead)
    return Letter(subject, "\n\n".join((lead, link, why)), html + _filled(_END, link=link, open=words["open"], why=why))


def message(letter: Letter, sender: Sender, to: str, *, key: str, at: datetime) -> bytes:
    """The message as it is sent. `key` is the mail's own: who has it twice sees one Message-ID."""
    made = EmailMessage(policy=_POLICY)
    made["From"] = Address(sender.name, addr_spec=sender.address)
    made["To"] = Address(addr_spec=to)
    made["Subject"] = _one_line(letter.subject)
    made["Date"] = format_datetime(at)
    made["Message-ID"] = f"<{key}@{sender.domain()}>"
    made["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office notes, please
    made.set_content(letter.text)
    made.add_alternative(letter.html, subtype="html")
    return made.as_bytes()


def _filled(template: str, **plain: str) -> str:
    return template.format(**{name: escape(text) for name, text in plain.items()})


def _one_line(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
