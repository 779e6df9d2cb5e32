// The buyer's own money: what is there in each currency, what is owed, and how it came about.

import { api } from "./api.js";
import { h, icon, put } from "./dom.js";
import { signed, when } from "./format.js";
import { growing } from "./growing.js";
import { reasonName, t } from "./i18n.js";
import { amount, backLink, blank, failure, linkButton, loading, skeleton, title } from "./parts.js";

const SIZE = 20;
const OTHERS = new Set(["bonus", "clawback", "repaid"]); // these come of somebody else's order, which is not shown to us

export async function balance({ root, signal, rerun }) {
  const place = h("div", { class: "place" }, loading(skeleton(4, "row-like")));
  put(root, backLink("#/orders", t("orders")), title(t("balance")), place);
  let funds;
  try {
    funds = await api.balance({ limit: SIZE }, signal);
  } catch (error) {
    if (!signal.aborted) put(place, failure(error, rerun));
    return;
  }
  const { balances, entries } = funds;
  if (!balances.length && !entries.length) {
    put(place, blank("wallet", t("balanceNone"), t("balanceNoneHint"), linkButton("#/", t("toShop"))));
    return;
  }
  put(place, balances.map(purse), entries.length > 0 && h("section", { class: "panel" },
    h("h2", {}, t("statement")),
    growing({
      list: h("ul", { class: "entries" }), rows: entries, size: SIZE, row: entry, signal,
      ask: async (last) => (await api.balance({ before: last.id, limit: SIZE }, signal)).entries,
    })));
}

function purse({ currency, balance_minor, debt_minor }) {
  return h("section", { class: "panel purse" },
    h("p", { class: "purse-sum" }, icon("wallet"), amount(balance_minor, currency)),
    balance_minor > 0 && h("p", { class: "hint" }, t("balanceUse")),
    debt_minor > 0 && h("div", { class: "owes" },
      h("p", { class: "total" }, h("span", {}, t("debt")), amount(debt_minor, currency)),
      h("p", { class: "hint" }, t("debtHint"))));
}

function entry({ at, reason, currency, amount_minor, order_id, order_number }) {
  const ours = order_id && !OTHERS.has(reason);
  return h("li", { class: "entry", tabindex: "-1" },
    h("div", { class: "order-text" },
      h("p", { class: "entry-why" }, reasonName(reason)),
      h("p", { class: "hint" }, when(at)),
      ours && h("a", { class: "entry-order", href: `#/o/${order_id}` }, t("order", { n: order_number }))),
    h("span", { class: amount_minor < 0 ? "amount" : "amount plus-sum" }, signed(amount_minor, currency)));
}
