"""The gateway's pay page: one HTML page without outside resources, light and dark, made for a phone first."""

from html import escape
from string import Template
from typing import Literal

import msgspec

SYMBOLS = {"RUB": "₽", "USD": "$", "EUR": "€", "UAH": "₴", "KZT": "₸", "BYN": "Br", "USDT": "₮"}

# The shop's link opens outside the frame that a Mini App may be in.
PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<link rel="icon" href="data:,">
<title>$title</title>
<style>
:root { --bg: #eef1f6; --card: #fff; --line: #e3e7ee; --text: #131a26; --soft: #616c7d; --go: #2f6bff; --go-text: #fff;
  --good: #12854a; --good-bg: #e3f6ec; --bad: #b3312b; --bad-bg: #fdecea; --warn: #8a5a00; --warn-bg: #fff3d9; }
@media (prefers-color-scheme: dark) {
  :root { --bg: #0e1218; --card: #171d26; --line: #29313d; --text: #eef2f7; --soft: #98a3b3; --go: #4a82ff;
    --go-text: #fff; --good: #5bd69a; --good-bg: #12301f; --bad: #ff8d85; --bad-bg: #3a1a19; --warn: #ffc766;
    --warn-bg: #372a10; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; min-height: 100dvh; display: grid; place-items: center; padding: 16px;
  background: var(--bg); color: var(--text); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { width: 100%; max-width: 400px; background: var(--card); border: 1px solid var(--line); border-radius: 20px;
  padding: 24px; box-shadow: 0 12px 40px rgb(10 20 40 / .08); }
header { display: flex; align-items: center; justify-content: space-between; gap: 12px;
  font-size: 14px; color: var(--soft); }
header b { color: var(--text); font-weight: 650; letter-spacing: -.01em; }
.tag { font-size: 12px; padding: 2px 10px; border-radius: 99px; background: var(--warn-bg); color: var(--warn); }
h1 { margin: 28px 0 4px; font-size: clamp(28px, 9vw, 42px); line-height: 1.1; font-weight: 700; letter-spacing: -.03em;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.what { margin: 0; color: var(--soft); overflow-wrap: anywhere; }
.note { margin: 20px 0 0; padding: 10px 14px; border-radius: 12px; font-size: 15px; }
.good { background: var(--good-bg); color: var(--good); } .bad { background: var(--bad-bg); color: var(--bad); }
.warn { background: var(--warn-bg); color: var(--warn); }
dl { margin: 24px 0; padding: 14px 0; border: solid var(--line); border-width: 1px 0; display: grid; row-gap: 8px;
  grid-template-columns: auto 1fr; font-size: 14px; }
dt { color: var(--soft); } dd { margin: 0 0 0 16px; text-align: right; overflow-wrap: anywhere;
  font-variant-numeric: tabular-nums; }
form { display: grid; grid-template-columns: 1fr 1fr; gap: 10px; }
button, .back { font: inherit; font-weight: 600; padding: 13px 16px; border-radius: 12px; border: 1px solid var(--line);
  background: transparent; color: var(--text); cursor: pointer; text-align: center;
  text-decoration: none; display: block; }
.go { grid-column: 1 / -1; background: var(--go); border-color: var(--go); color: var(--go-text); }
button:hover, .back:hover { filter: brightness(1.07); border-color: var(--soft); }
.go:hover { border-color: var(--go); }
button:focus-visible, .back:focus-visible { outline: 3px solid var(--go); outline-offset: 2px; }
footer { margin-top: 20px; font-size: 12.5px; color: var(--soft); text-align: center; }
</style>
</head>
<body>
<main>
<header><b>$party</b><span class="tag">sandbox</span></header>
$body
<footer>A simulator of the payment gateway: no money moves.</footer>
</main>
</body>
</html>
""")

INVOICE = Template("""<h1>$amount</h1>
<p class="what">$description</p>
$note
<dl>
<dt>Invoice</dt><dd>$id</dd>
$rows
</dl>
$actions""")

# Counts down on the buyer's own clock from what the server said, so a wrong clock does not matter.
TIME_LEFT = Template("""<dt>Time left</dt><dd><time id="left" data-s="$left_s">$left</time></dd>
<script>
(() => {
  const out = document.getElementById("left"), end = performance.now() + out.dataset.s * 1000;
  const two = n => String(n).padStart(2, "0");
  const tick = () => {
    const s = Math.max(0, Math.round((end - performance.now()) / 1000)), h = Math.floor(s / 3600);
    out.textContent = (h ? h + ":" : "") + two(Math.floor(s / 60) % 60) + ":" + two(s % 60);
    if (s === 0) location.reload(); else setTimeout(tick, 1000);
  };
  tick();
})();
</script>""")


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """What the page shows of one invoice, whichever gateway's it is. Amounts are decimal text."""

    party: str  # whose page this is
    id: str
    amount: str
    currency: str
    description: str | None = None
    note: str = ""
    tone: Literal["good", "warn", "bad"] = "warn"  # of the note
    rows: list[tuple[str, str]] = []  # what else is told: a name and its value
    due: str = ""  # still to pay; empty: nobody can pay it any more
    left_s: int | None = None  # until then
    hows: tuple[str, ...] = ("pay", "less", "cancel")  # the buttons, while it can be paid
    back_url: str | None = None  # the shop's, once it is over


def show(bill: Bill) -> str:
    """The page of an invoice: what is owed and until when, with buttons while it can be paid."""
    rows = [f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in bill.rows]
    if bill.due and bill.left_s is not None:
        rows.append(TIME_LEFT.substitute(left_s=max(bill.left_s, 1), left=clock_text(max(bill.left_s, 0))))
    amount = price(bill.amount, bill.currency)
    body = INVOICE.substitute(
        amount=escape(amount),
        description=escape(bill.description or "Payment to the shop"),
        note=f'<p class="note {bill.tone}">{escape(bill.note)}</p>' if bill.note else "",
        id=escape(bill.id),
        rows="\n".join(rows),
        actions=buttons(bill) if bill.due else back(bill),
    )
    return page(bill.party, f"Pay {amount}", body)


def absent(party: str) -> str:
    """The page for an id that no invoice has."""
    return page(party, "No such invoice", '<h1>404</h1><p class="what">There is no such invoice.</p>')


def page(party: str, title: str, body: str) -> str:
    return PAGE.substitute(party=escape(party), title=escape(title), body=body)


def buttons(bill: Bill) -> str:
    """One form; every button says how the buyer goes on."""
    due = price(bill.due, bill.currency)
    words = {"pay": f"Pay {due}", "less": "Pay less", "cancel": "Cancel"}
    looks = {"pay": ' class="go"'}
    lines = [f'<button{looks.get(how, "")} name="how" value="{how}">{escape(words[how])}</button>' for how in bill.hows]
    return f'<form method="post" action="/pay/{escape(bill.id)}">\n' + "\n".join(lines) + "\n</form>"


def back(bill: Bill) -> str:
    if not bill.back_url:
        return ""
    return f'<a class="back go" href="{escape(bill.back_url)}">Back to the shop</a>'


def price(amount: str, currency: str) -> str:
    """`"1490.5", "RUB"` as `1 490.50 ₽`, its spaces unbreakable."""
    whole, _, fraction = amount.partition(".")
    grouped = f"{int(whole):,}".replace(",", "\u00a0") if whole.isdigit() else whole
    cents = f".{fraction.ljust(2, '0')}" if fraction else ""
    return f"{grouped}{cents}\u00a0{SYMBOLS.get(currency, currency)}"


def clock_text(left_s: int) -> str:
    """`14:59`, or `1:14:59` from an hour on."""
    hours, rest = divmod(left_s, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60:02}:{rest % 60:02}"
