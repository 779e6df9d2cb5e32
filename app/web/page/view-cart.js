// Cart: one section per seller, each with its own total and its own payment.

import { cart } from "./cart.js";
import { buy } from "./checkout.js";
import { h, icon, put, toast } from "./dom.js";
import { money } from "./format.js";
import { t } from "./i18n.js";
import { amount, blank, cover, explain, linkButton, recheckCart, stepper, title, warning } from "./parts.js";
import { initData, openPayment } from "./telegram.js";

export async function basket({ root, signal, go }) {
  const notes = h("div", { class: "notes", role: "status" });
  const place = h("div", { class: "place" });
  const trouble = new Map(); // group key -> problem of its last checkout
  let busy = null; // key of the group being bought

  put(root, title(t("cart")), notes, place);
  draw();
  addEventListener("torg:cart", draw, { signal });
  const told = await recheckCart(signal);
  if (!signal.aborted) tell(told);

  function draw() {
    const focus = place.contains(document.activeElement) ? document.activeElement : null;
    const [line, by] = [focus?.closest("[data-line]")?.dataset.line, focus?.dataset.by];
    const groups = cart.groups();
    if (!groups.length) {
      put(place, blank("cart", t("cartEmpty"), t("cartEmptyHint"), linkButton("#/", t("toShop"))));
      if (focus) root.querySelector("h1").focus();
      return;
    }
    put(place, groups.length > 1 && h("p", { class: "hint" }, t("perSeller")), groups.map(section));
    if (!focus) return;
    const again = line && place.querySelector(`[data-line="${line}"] [data-by="${by}"]:not(:disabled)`);
    (again || (line && place.querySelector(`[data-line="${line}"] .step`)) || root.querySelector("h1")).focus();
  }

  function section(group) {
    const mine = busy === group.key;
    const problem = trouble.get(group.key);
    const said = problem && explain(problem, "failedHint");
    return h("section", { class: "basket", "aria-label": group.seller.name },
      h("div", { class: "panel" },
        h("h2", { class: "seller" }, icon("user"), group.seller.name),
        h("ul", { class: "lines" }, group.lines.map((item) => row(item, busy != null)))),
      h("div", { class: "panel summary" },
        h("p", { class: "total" }, h("span", {}, t("total")), amount(group.total_minor, group.currency)),
        said && warning(said.head, said.text,
          problem.type === "/problems/too-many-pending" && linkButton("#/orders", t("toOrders"), "quiet")),
        h("button", {
          type: "button", class: "button main wide", disabled: !initData || busy != null, "aria-busy": String(mine),
          onclick: () => checkout(group),
        }, mine ? t("placing") : t("pay", { price: money(group.total_minor, group.currency) })),
        h("p", { class: "hint" }, icon("shield"), initData ? t("payNote") : t("noTelegram"))));
  }

  function row(item, locked) {
    return h("li", { class: "line", "data-line": item.id },
      cover(item, "small"),
      h("div", { class: "line-text" },
        h("a", { href: `#/p/${item.id}` }, item.title),
        h("p", { class: "hint" }, t("each", { price: money(item.price_minor, item.currency) }))),
      h("fieldset", { class: "bare", disabled: locked }, stepper(item, item.quantity, (to) => {
        cart.set(item, to);
        if (to === 0) toast(t("removed", { title: item.title }));
      })),
      h("p", { class: "line-sum" }, amount(item.price_minor * item.quantity, item.currency)));
  }

  async function checkout(group) {
    if (busy != null) return;
    busy = group.key;
    trouble.delete(group.key);
    put(notes);
    draw();
    try {
      const { order, payment } = await buy(group, () => toast(t("stillPlacing")));
      busy = null;
      cart.clear(group);
      const same = order.total_minor === group.total_minor && order.currency === group.currency;
      go(`/o/${order.id}`, { moved: !same });
      // Another total than the buyer agreed to is never sent on to be paid unseen.
      if (same && payment?.url) openPayment(payment.url);
    } catch (problem) {
      busy = null;
      trouble.set(group.key, problem);
      if (problem.type === "/problems/out-of-stock") tell(cart.shrink(problem.facts.left));
      if (!signal.aborted) draw();
    }
  }

  function tell(told) {
    put(notes, told.length > 0 && h("ul", { class: "told" }, told.map(({ said, title: name, n, product }) => h("li", {},
      t(said, { title: name, n, price: product && money(product.price_minor, product.currency) })))));
  }
}
