// Pieces that several views share.

import { api, wait } from "./api.js";
import { cart } from "./cart.js";
import { h, hidden, icon, toast } from "./dom.js";
import { money, moneyParts, percent, tenths } from "./format.js";
import { refusalSaid, statusName, t } from "./i18n.js";
import { tap } from "./telegram.js";

const KIND_ICONS = { unit: "key", shared: "file", made: "clock", shipped: "box" };
const HUES = [158, 208, 258, 18, 338, 42, 188, 286];

export function kindBadge(kind) {
  return h("span", { class: "badge" }, icon(KIND_ICONS[kind] ?? "box"), KIND_ICONS[kind] ? t(kind) : kind);
}

// A drawn stand-in for a picture: a card for keys, a book for files and parcels, a label for made goods.
export function cover(product, size = "") {
  const name = `${product.category ?? ""}${product.title}`;
  const hash = [...name].reduce((sum, letter) => Math.imul(sum ^ letter.codePointAt(0), 0x01000193), 0x811c9dc5) >>> 16;
  const shape = { unit: "pass", made: "label" }[product.kind] ?? "book";
  return h("div", { class: `cover ${size}`, vars: { "--hue": HUES[hash % HUES.length] }, "aria-hidden": "true" },
    h("div", { class: `thing ${shape}` },
      icon(KIND_ICONS[product.kind] ?? "box"),
      h("span", { class: "thing-name" }, product.title)));
}

export function price(product, size = "") {
  const cut = product.list_price_minor > product.price_minor;
  return h("p", { class: `price ${size}` },
    amount(product.price_minor, product.currency),
    cut && h("s", { class: "was" },
      hidden(t("before", { price: "" }).trim() + " "), money(product.list_price_minor, product.currency)),
    cut && product.discount_percent >= 1 && h("span", { class: "off" }, percent(-product.discount_percent)));
}

export function amount(minor, currency) {
  return h("span", { class: "amount" }, moneyParts(minor, currency).map((part) =>
    part.type === "decimal" || part.type === "fraction" ? h("span", { class: "cents" }, part.value) : part.value));
}

export function stockNote(product) {
  if (product.left === 0) return h("span", { class: "stock out" }, t("soldOut"));
  if (product.left == null) return null;
  return h("span", { class: product.left <= 5 ? "stock low" : "stock" }, t("left", { n: product.left }));
}

// "★ 4.8 (12)", or nothing while nobody has rated.
export function rating({ rating: average, ratings: n }, look = "") {
  if (!n || average == null) return null;
  return h("p", { class: `rating ${look}` }, icon("star"),
    h("span", { "aria-hidden": "true" }, h("strong", {}, tenths(average)), look ? ` · ${t("ratings", { n })}` : ` (${n})`),
    hidden(t("rated", { rating: tenths(average), n })));
}

// One review's ★★★★☆.
export function stars(count) {
  return h("span", { class: "stars" }, hidden(t("starsOf", { n: count })),
    [1, 2, 3, 4, 5].map((at) => h("span", { class: at <= count ? "star on" : "star", "aria-hidden": "true" }, icon("star"))));
}

export function addToCart(product) {
  const had = cart.quantity(product.id);
  const has = cart.add(product);
  tap();
  toast(has > had ? t("added", { title: product.title }) : t("allTaken", { n: has }));
  return has;
}

// − 2 +   At one, minus takes the line out when `removable`.
export function stepper(product, quantity, onChange) {
  const step = (by, name, label, off) => h("button", {
    type: "button", class: "step", "aria-label": t(label, { title: product.title }), disabled: off, "data-by": by,
    onclick: () => onChange(quantity + by),
  }, icon(name));
  return h("div", { class: "stepper", role: "group", "aria-label": `${t("quantity")}: ${product.title}` },
    quantity > 1 ? step(-1, "minus", "fewer") : step(-1, "trash", "remove"),
    h("output", { class: "count" }, String(quantity)),
    step(1, "plus", "oneMore", quantity >= cart.room(product)));
}

export function title(text, extra) {
  return h("h1", { tabindex: "-1", class: extra }, text);
}

export function backLink(href, text) {
  return h("a", { class: "back", href }, icon("back"), text);
}

export function blank(name, head, hint, ...actions) {
  return h("section", { class: "blank" },
    h("div", { class: "blank-icon" }, icon(name)), h("h2", {}, head), hint && h("p", {}, hint), ...actions);
}

// Copies what `element` shows; where no clipboard is, it is left selected.
export async function copy(content, element) {
  tap();
  try {
    await navigator.clipboard.writeText(content);
    toast(t("copied"));
  } catch {
    // No clipboard in this frame: select it, try the old way, and leave it selected if that fails too.
    getSelection().selectAllChildren(element);
    let done = false;
    try { done = document.execCommand("copy"); } catch { /* refused */ }
    toast(t(done ? "copied" : "copyFailed"));
  }
}

export function linkButton(href, text, look = "") {
  return h("a", { class: `button ${look}`, href }, text);
}

export function button(text, onclick, look = "") {
  return h("button", { type: "button", class: `button ${look}`, onclick }, text);
}

// Errors

// type -> our head, our hint; "all": they say all that the server's `detail` does.
const HEADS = {
  "/page/unreachable": ["unreachable", "unreachableHint"],
  "/page/no-telegram": ["noTelegram", ""],
  "/page/session-ended": ["ended", ""],
  "/problems/out-of-stock": ["outOfStock"],
  "/problems/two-sellers": ["twoSellers"],
  "/problems/too-many-pending": ["tooManyPending", "tooManyPendingHint", "all"],
  "/problems/too-many-requests": ["tooFast", "tooFastHint", "all"],
  "/problems/provider-down": ["providerDown", "providerHint", "all"],
  "/problems/busy": ["busy", "failedLook"],
  "/problems/in-progress": ["inProgress", "inProgressHint"],
  "/problems/not-enough": ["notEnough", "", "all"],
  "/problems/promo-refused": ["promoRefused", "", "all"],
  "/problems/internal": ["failed", "failedLook", "all"],
  "/problems/bad-offer": ["offerOver", "offerOverHint", "all"],
  "/problems/offer-stale": ["priceMoved", "", "all"],
  "/problems/conflict": ["conflict", "conflictHint", "all"],
};

// Our words for what we know, the server's own `detail` beside them where it adds something; `currency` is that of the
// order in question.
export function explain(error, fallback = "failedLook", currency = null) {
  const [head, hint, all] = HEADS[error.type] ?? [];
  const said = factsSaid(error, currency) ?? (hint && t(hint, { n: error.retryAfterS ?? 10 }));
  return {
    head: head ? t(head) : error.title || t("failed"),
    text: [said, !all && error.detail].filter(Boolean).join(" ") || (head ? "" : t(fallback)),
  };
}

function factsSaid({ type, facts = {}, detail }, currency) {
  if (type === "/problems/promo-refused") return refusalSaid(facts.reason) || detail;
  if (type === "/problems/offer-stale") return t("priceMovedHint", { price: money(facts.price_minor, facts.currency) });
  if (type === "/problems/not-enough" && currency) {
    return t("notEnoughHint", { has: money(facts.balance_minor ?? 0, currency), price: money(facts.total_minor ?? 0, currency) });
  }
  if (type !== "/problems/conflict") return null;
  if (facts.order_status) return facts.order_status === "pending" ? t("timeUp") : t("orderIs", { status: statusName(facts.order_status) });
  return facts.order_id ? t("wayRefused") : null;
}

export function failure(error, onRetry) {
  const { head, text } = explain(error);
  const local = error.type === "/page/no-telegram" || error.type === "/page/session-ended";
  return h("div", { role: "alert" },
    blank(local ? "user" : "alert", head, text, !local && onRetry && button(t("retry"), onRetry)));
}

export function warning(head, text, ...actions) {
  return h("div", { class: "warning", role: "alert" }, icon("alert"),
    h("div", {}, h("strong", {}, head), text && h("p", {}, text), ...actions));
}

export function skeleton(count, look) {
  return Array.from({ length: count }, () => h("div", { class: `skeleton ${look}`, "aria-hidden": "true" }));
}

export function loading(...children) {
  return h("div", { class: "loading", "aria-busy": "true" }, hidden(t("loading")), ...children);
}

// Today's prices and stock for what is in the cart: [what the buyer must be told].
export async function recheckCart(signal) {
  const ids = cart.groups().flatMap((group) => group.lines.map((line) => line.id));
  const answers = await Promise.allSettled(ids.map((id) => api.product(id, signal)));
  if (signal.aborted) return [];
  return answers.map((answer, at) => {
    if (answer.status === "fulfilled") return cart.refresh(ids[at], answer.value);
    return answer.reason.status === 404 ? cart.refresh(ids[at], null) : null;
  }).filter(Boolean);
}

// Sleeps, and goes on sleeping while nobody looks.
export async function waitAwake(ms, signal) {
  await wait(ms, signal);
  while ((document.hidden || navigator.onLine === false) && !signal.aborted) await wait(500, signal);
}
