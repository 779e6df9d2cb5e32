// The buyer's corner: balance, invitations and savers, then the orders, newest first as the server gives them.

import { api } from "./api.js";
import { h, icon, put } from "./dom.js";
import { when } from "./format.js";
import { growing } from "./growing.js";
import { statusName, t } from "./i18n.js";
import { amount, blank, failure, linkButton, loading, skeleton, title } from "./parts.js";
import { initData } from "./telegram.js";
import { tone } from "./view-order.js";

const SIZE = 20;

export async function orders({ root, signal, rerun }) {
  const place = h("div", { class: "place" }, loading(skeleton(4, "row-like")));
  put(root, title(t("orders")), initData && tiles(signal), place);
  let list;
  try {
    ({ orders: list } = await api.orders({ limit: SIZE }, signal));
  } catch (error) {
    if (!signal.aborted) put(place, failure(error, rerun));
    return;
  }
  put(place, list.length
    ? growing({
      list: h("ul", { class: "panel order-list" }), rows: list, size: SIZE, row, signal,
      ask: async (last) => (await api.orders({ before: last.number, limit: SIZE }, signal)).orders,
    })
    : blank("list", t("noOrders"), t("noOrdersHint"), linkButton("#/", t("toShop"))));
}

function tiles(signal) {
  const sums = h("span", { class: "tile-sums" });
  fill(sums, signal);
  return h("ul", { class: "tiles" },
    tile("#/balance", "wallet", t("balance"), sums),
    tile("#/invite", "gift", t("invite")),
    tile("#/savers", "trophy", t("savers")));
}

function tile(href, picture, text, ...more) {
  return h("li", {}, h("a", { class: "tile", href }, icon(picture), h("span", {}, text), ...more));
}

// The sums come when they come: the way to the balance is there without them.
async function fill(sums, signal) {
  try {
    const { balances } = await api.balance({ limit: 1 }, signal);
    put(sums, balances.filter((one) => one.balance_minor > 0).map((one) => amount(one.balance_minor, one.currency)));
  } catch { /* said by the orders below, or by the balance's own view */ }
}

function row(order) {
  const [first, ...rest] = order.lines;
  const goods = rest.length ? t("andMore", { title: first.title, n: rest.length }) : first?.title ?? "";
  return h("li", { class: "order-row" },
    h("div", { class: "order-text" },
      h("a", { href: `#/o/${order.id}` }, t("order", { n: order.number })),
      h("p", {}, goods),
      h("p", { class: "hint" }, when(order.created_at))),
    h("div", { class: "order-side" },
      amount(order.total_minor, order.currency),
      h("span", { class: `pill ${tone(order.status)}` }, statusName(order.status))));
}
