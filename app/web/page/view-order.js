// One order, watched until it is done: payment, progress, then the goods themselves.

import { api, serverNow } from "./api.js";
import { h, icon, put, toast } from "./dom.js";
import { follow } from "./events.js";
import { clock, countdown, money, when } from "./format.js";
import { spelled, statusName, statusSaid, t } from "./i18n.js";
import { payPanel } from "./order-pay.js";
import { amount, backLink, blank, button, copy, explain, failure, kindBadge, linkButton, loading, skeleton, title, waitAwake, warning } from "./parts.js";
import { webAddress } from "./telegram.js";
import { rateLink } from "./view-rate.js";

const FIRST_MS = 1_000;
const QUICK_MS = 5_000; // while paying or delivering
const SLOW_MS = 30_000; // while a seller works, after the time ran out, or while the shop tells what happens

const WAITING = new Set(["pending", "payment_pending"]);
const ENDED = new Set(["delivered", "completed", "cancelled", "refunded", "partially_refunded"]);
const FAILED = new Set(["cancelled", "expired", "refunded", "partially_refunded", "issue_reported"]);
const UNSOLD = new Set(["cancelled", "expired"]);
const ON_ITS_WAY = new Set(["in_delivery", "partially_delivered"]); // its buyer may say that it has come
const RATED = new Set(["delivered", "completed"]);
const OWES_GOODS = new Set(["preorder", "partially_delivered", "delivered", "shipped", "completed"]); // no answer is a fault

export function tone(status) {
  const word = spelled(status);
  if (WAITING.has(word)) return "wait";
  if (FAILED.has(word)) return "bad";
  return ENDED.has(word) ? "good" : "busy";
}

export async function order({ root, signal, params: [id], state, rerun, name }) {
  put(root, backLink("#/orders", t("orders")), loading(skeleton(3, "row-like")));
  let shown = "";
  let pause = FIRST_MS;
  let status = null;
  let trouble = state?.trouble; // of the checkout that led here, until something is tried
  if (trouble) history.replaceState({ ...history.state, trouble: null }, ""); // and not again after a way back here
  let nap = new AbortController();
  let again = false; // something happened since we last asked
  const wake = () => {
    again = true;
    nap.abort();
  };
  const changed = () => {
    trouble = null;
    pause = FIRST_MS;
    wake();
  };
  const leaving = new AbortController(); // also when the order has come to its end
  signal.addEventListener("abort", () => { nap.abort(); leaving.abort(); });
  const events = follow(leaving.signal, (event) => (event?.data.order_id ?? id) === id && wake());
  while (!signal.aborted) {
    again = false;
    let failed = false;
    try {
      const now = await look(id, signal);
      const print = JSON.stringify(now);
      if (now.order.status !== status) {
        if (status) toast(`${t("order", { n: now.order.number })}: ${statusName(now.order.status)}`);
        status = now.order.status;
        pause = FIRST_MS;
      }
      if (print !== shown) {
        draw(root, now, { signal, state, trouble, changed, rerun });
        name(t("order", { n: now.order.number }), !shown);
        shown = print;
      }
      if (ENDED.has(spelled(status)) && !now.problem && !now.owed.length) return leaving.abort();
    } catch (error) {
      if (signal.aborted) return;
      if (!shown || error.status === -1) {
        leaving.abort();
        put(root, backLink("#/orders", t("orders")), dead(error, rerun));
        return;
      }
      failed = true;
      pause = Math.max(pause, (error.retryAfterS ?? 0) * 1_000, 3_000); // what is on the page stays; we ask again
    }
    nap = new AbortController();
    if (!again || failed) await waitAwake(pause, nap.signal);
    const brisk = !events.live() && (WAITING.has(status) || status === "paid");
    pause = Math.min(pause * 1.4, brisk ? QUICK_MS : SLOW_MS);
  }
}

function dead(error, rerun) {
  if (error.status === 404) return blank("list", t("noOrder"), "", linkButton("#/orders", t("orders")));
  // Telegram opened the gateway in a browser of its own, and the gateway sent the buyer back to that one.
  if (error.type === "/page/no-telegram") return blank("check", t("backToTelegram"), t("backHint"));
  return failure(error, rerun);
}

// -> {order, payment, goods, owed, problem}: the goods are asked for only once there can be some.
async function look(id, signal) {
  const { order: found, payment } = await api.order(id, signal);
  const seen = { order: found, payment, goods: [], owed: [], problem: null };
  if (WAITING.has(found.status) || UNSOLD.has(spelled(found.status))) return seen;
  try {
    const { goods, owed } = await api.goods(id, signal);
    return { ...seen, goods, owed };
  } catch (error) {
    if (signal.aborted || error.status === -1) throw error;
    return { ...seen, problem: OWES_GOODS.has(found.status) ? explain(error) : null };
  }
}

function draw(root, { order: o, payment, goods, owed, problem }, { rerun, ...how }) {
  const focused = root.contains(document.activeElement);
  put(root, backLink("#/orders", t("orders")),
    h("div", { class: "order-head" }, title(t("order", { n: o.number })),
      h("span", { class: `pill ${tone(o.status)}` }, statusName(o.status))),
    h("div", { class: "order-view" },
      h("div", { class: "order-main" },
        statusPanel(o, payment, owed, how),
        problem && warning(problem.head, problem.text, button(t("retry"), rerun, "quiet")),
        goods.length > 0 && h("section", { class: "panel goods" }, h("h2", {}, t("goods")), h("ul", {}, goods.map((item, at) => good(item, at, goods.length)))),
        owed.length > 0 && h("section", { class: "panel" }, h("h2", {}, t("owed")), h("ul", { class: "owed" }, owed.map(debt)))),
      contents(o, goods)));
  if (focused) root.querySelector("h1").focus({ preventScroll: true });
}

function statusPanel(o, payment, owed, { signal, state, trouble, changed }) {
  const waiting = WAITING.has(o.status);
  const lost = UNSOLD.has(spelled(o.status)) && o.credited_minor > 0;
  return h("section", { class: "panel status" },
    !FAILED.has(spelled(o.status)) && steps(o),
    h("p", { class: "said" }, [statusSaid(o.status), promise(o, owed)].filter(Boolean).join(" ")),
    waiting && state?.moved && warning(t("totalMoved", { price: money(o.total_minor, o.currency) })),
    state?.promo > 0 && h("p", { class: "cheer" }, icon("gift"), t("promoSaved", { price: money(state.promo, o.currency) })),
    state?.promo === 0 && h("p", { class: "hint" }, icon("gift"), t("promoVain")),
    waiting && o.expires_at && held(o.expires_at, signal),
    ON_ITS_WAY.has(o.status) && came(o, { signal, changed }),
    waiting && payPanel({ o, payment, trouble, signal, changed }),
    lost && h("p", { class: "said" }, t("creditKept", { price: money(o.credited_minor, o.currency) })),
    (lost || o.refunded_minor > 0) && linkButton("#/balance", t("toBalance"), "quiet"),
    UNSOLD.has(spelled(o.status)) && linkButton("#/", t("toShop"), "quiet"));
}

function came(o, { signal, changed }) {
  const press = button(t("itCame"), async () => {
    press.disabled = true;
    try {
      await api.orderCame(o.id);
    } catch (problem) {
      if (!signal.aborted) toast(explain(problem).text);
    }
    if (!signal.aborted) changed();
    press.disabled = false;
  });
  return press;
}

// When all that is being made will be there.
function promise(o, owed) {
  const due = owed.map((item) => item.due_at).filter(Boolean).sort().at(-1);
  return o.status === "preorder" && due ? t("readyBy", { time: when(due) }) : "";
}

function steps(o) {
  const word = spelled(o.status);
  const done = ENDED.has(word) || word === "shipped" ? 3 : o.paid_at || word === "paid" || word === "preorder" ? 2 : 1;
  const live = done < 3;
  const last = word === "shipped" ? statusName(word) : t("step3");
  return h("ol", { class: "steps", "aria-label": t("progress") }, [t("step1"), t("step2"), last].map((text, at) => h("li", {
    class: at < done ? "done" : at === done && live ? "now" : "", "aria-current": at === done && live ? "step" : null,
  }, h("span", { class: "dot" }, at < done && icon("check")), text)));
}

// "Held for you until 14:35 · 12:04". The running digits are for the eyes only.
function held(until, signal) {
  const left = () => countdown((Date.parse(until) - serverNow()) / 1_000);
  const digits = h("span", { class: "digits", "aria-hidden": "true" }, left());
  const timer = setInterval(() => {
    if (signal.aborted || !digits.isConnected) clearInterval(timer);
    else digits.textContent = left();
  }, 1_000);
  return h("p", { class: "held" }, icon("clock"), t("heldUntil", { time: clock(until) }), digits);
}

function good(item, at, count) {
  const text = h("pre", { class: "secret", id: `good-${at}`, tabindex: "0", role: "group", "aria-label": item.title }, item.content);
  const link = webAddress(item.content.trim()) ? item.content.trim() : null;
  return h("li", { class: "item" },
    h("div", { class: "item-head" }, h("h3", {}, item.title), kindBadge(item.kind)),
    text,
    h("div", { class: "item-actions" },
      h("button", { type: "button", class: `button ${count > 1 ? "quiet" : "main"}`, "aria-label": t("copyNamed", { title: item.title }), onclick: () => copy(item.content, text) },
        icon("copy"), t("copy")),
      link && h("a", { class: "button quiet", href: link, target: "_blank", rel: "noopener noreferrer" }, icon("link"), t("openLink"))));
}

function debt(item) {
  return h("li", {}, icon(item.kind === "shipped" ? "box" : "clock"),
    h("div", {}, h("strong", {}, item.title),
      h("p", { class: "hint" }, item.due_at ? t("due", { time: when(item.due_at) }) : t("dueUnknown"))));
}

function contents(o, goods) {
  const here = new Set(FAILED.has(spelled(o.status)) ? [] : goods.map((item) => item.product_id));
  const rated = (line) => RATED.has(o.status) || here.has(line.product_id);
  return h("section", { class: "panel contents" },
    h("h2", {}, t("contents")),
    h("ul", { class: "plain-lines" }, o.lines.map((line) => h("li", {},
      h("div", {}, line.title, line.quantity > 1 && h("span", { class: "times" }, ` × ${line.quantity}`),
        rated(line) && rateLink({ id: line.product_id, title: line.title }, "rate-line")),
      amount(line.total_minor, o.currency)))),
    h("p", { class: "total" }, h("span", {}, t("total")), amount(o.total_minor, o.currency)),
    o.refunded_minor > 0 && h("p", { class: "total back-money" }, h("span", {}, t("returned")), amount(o.refunded_minor, o.currency)),
    h("p", { class: "hint" }, t("placedAt", { time: when(o.created_at) })),
    o.paid_at && h("p", { class: "hint" }, t("paidAt", { time: when(o.paid_at) })));
}
