// The buyer's orders, newest first as the server gives them.

import { api } from "./api.js";
import { h, put } from "./dom.js";
import { when } from "./format.js";
import { statusName, t } from "./i18n.js";
import { amount, blank, failure, linkButton, loading, skeleton, title } from "./parts.js";
import { tone } from "./view-order.js";

export async function orders({ root, signal, rerun }) {
  const place = h("div", { class: "place" }, loading(skeleton(4, "row-like")));
  put(root, title(t("orders")), place);
  let list;
  try {
    ({ orders: list } = await api.orders(signal));
  } catch (error) {
    if (!signal.aborted) put(place, failure(error, rerun));
    return;
  }
  put(place, list.length
    ? h("ul", { class: "panel order-list" }, list.map(row))
    : blank("list", t("noOrders"), t("noOrdersHint"), linkButton("#/", t("toShop"))));
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
