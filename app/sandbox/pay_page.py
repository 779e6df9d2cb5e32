"""The gateway's pay page: one HTML page without outside resources, light and dark, made for a phone first."""

from datetime import UTC, datetime
from html import escape
from string import Template

from app.sandbox.crystalpay_wire import OPEN_STATES, TIME, Invoice

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
<header><b>CrystalPay</b><span class="tag">sandbox</span></header>
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

BUTTONS = Template("""<form method="post" action="/pay/$id">
<button class="go" name="how" value="pay">Pay $due</button>
<button name="how" value="less">Pay less</button>
<button name="how" value="cancel">Cancel</button>
</form>""")

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

NOTES = {
    "payed": '<p class="note good">✓ Paid. Thank you!</p>',
    "processing": '<p class="note warn">The payment is being checked.</p>',
    "unavailable": '<p class="note bad">This invoice is not available.</p>',
    "failed": '<p class="note bad">This invoice is closed. It can no longer be paid.</p>',
}


def show(invoice: Invoice, now: datetime) -> str:
    """The page of an invoice: what is owed and until when, with buttons while it can be paid."""
    payable = invoice.state in OPEN_STATES and invoice.final_at is None
    left_s = int((datetime.strptime(invoice.expired_at, TIME).replace(tzinfo=UTC) - now).total_seconds())
    note = NOTES.get(invoice.state, "")
    rows = []
    if invoice.state == "wrongamount":
        due = price(invoice.remaining_amount, invoice.currency)
        note = f'<p class="note warn">Paid in part: {due} still to pay.</p>'
        rows.append(f"<dt>Received</dt><dd>{price(invoice.balance_amount, invoice.currency)}</dd>")
    if invoice.currency != "RUB":
        rows.append(f"<dt>In roubles</dt><dd>{price(invoice.rub_amount, 'RUB')}</dd>")
    if payable:
        rows.append(TIME_LEFT.substitute(left_s=max(left_s, 1), left=clock_text(max(left_s, 0))))
    elif invoice.final_at:
        rows.append(f"<dt>Closed</dt><dd>{escape(invoice.final_at)} UTC</dd>")
    body = INVOICE.substitute(
        amount=price(invoice.amount, invoice.currency),
        description=escape(invoice.description or "Payment to the shop"),
        note=note,
        id=escape(invoice.id),
        rows="\n".join(rows),
        actions=buttons(invoice) if payable else back(invoice),
    )
    return PAGE.substitute(title=f"Pay {price(invoice.amount, invoice.currency)}", body=body)


def absent() -> str:
    """The page for an id that no invoice has."""
    return PAGE.substitute(title="No such invoice", body='<h1>404</h1><p class="what">There is no such invoice.</p>')


def buttons(invoice: Invoice) -> str:
    return BUTTONS.substitute(id=escape(invoice.id), due=price(invoice.remaining_amount, invoice.currency))


def back(invoice: Invoice) -> str:
    if not invoice.redirect_url:
        return ""
    return f'<a class="back go" href="{escape(invoice.redirect_url)}">Back to the shop</a>'


def price(amount: str, currency: str) -> str:
    """`"1490.5", "RUB"` as `1 490.50 ₽`, its spaces unbreakable."""
    whole, _, fraction = amount.partition(".")
    grouped = f"{int(whole):,}".replace(",", "\u00a0") if whole.isdigit() else escape(whole)
    cents = f".{escape(fraction.ljust(2, '0'))}" if fraction else ""
    return f"{grouped}{cents}\u00a0{SYMBOLS.get(currency, escape(currency))}"


def clock_text(left_s: int) -> str:
    """`14:59`, or `1:14:59` from an hour on."""
    hours, rest = divmod(left_s, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60:02}:{rest % 60:02}"
