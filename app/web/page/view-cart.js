// Cart: one section per seller, each with its own total, promo code and payment.

import { cart } from "./cart.js";
import { buy } from "./checkout.js";
import { h, icon, put, toast } from "./dom.js";
import { money } from "./format.js";
import { t } from "./i18n.js";
import { amount, blank, cover, explain, linkButton, recheckCart, stepper, title, warning } from "./parts.js";
import { initData, openPayment } from "./telegram.js";
import { BALANCE, learnWays, payLabel, pickedWay, wayPicker, waysFor } from "./ways.js";

const MOST_PROMO = 64;
const codes = new Map(); // group key -> what is typed as its promo code; outlives a look at a product

export async function basket({ root, signal, go }) {
  const notes = h("div", { class: "notes", role: "status" });
  const place = h("div", { class: "place" });
  const trouble = new Map(); // group key -> problem of its last checkout
  let busy = null; // key of the group being bought

  put(root, title(t("cart")), notes, place);
  draw();
  addEventListener("torg:cart", draw, { signal });
  const learning = initData && learnWays(signal);
  const told = await recheckCart(signal);
  if (!signal.aborted) tell(told);
  if (!initData) return;
  await learning;
  if (!signal.aborted && busy == null) draw();

  function draw() {
    const focus = place.contains(document.activeElement) ? document.activeElement : null;
    const [line, by] = [focus?.closest("[data-line]")?.dataset.line, focus?.dataset.by];
    const field = focus?.dataset.way ? `[name="${focus.name}"][data-way="${focus.dataset.way}"]` : focus?.id && `#${focus.id}`;
    const typed = field && focus.selectionStart;
    const groups = cart.groups();
    if (!groups.length) {
      put(place, blank("cart", t("cartEmpty"), t("cartEmptyHint"), linkButton("#/", t("toShop"))));
      if (focus) root.querySelector("h1").focus();
      return;
    }
    put(place, groups.length > 1 && h("p", { class: "hint" }, t("perSeller")), groups.map(section));
    if (!focus) return;
    const same = field && place.querySelector(`${field}:not(:disabled)`);
    if (same) {
      same.focus({ preventScroll: true });
      if (typed != null) same.setSelectionRange(typed, typed);
      return;
    }
    const again = line && place.querySelector(`[data-line="${line}"] [data-by="${by}"]:not(:disabled)`);
    (again || (line && place.querySelector(`[data-line="${line}"] .step`)) || root.querySelector("h1")).focus();
  }

  function section(group) {
    const mine = busy === group.key;
    const problem = trouble.get(group.key);
    const said = problem && explain(problem, "failedHint");
    const ways = waysFor(group.currency, group.total_minor);
    const way = pickedWay(ways);
    return h("section", { class: "basket", "aria-label": group.seller.name },
      h("div", { class: "panel" },
        h("h2", { class: "seller" }, icon("user"), group.seller.name),
        h("ul", { class: "lines" }, group.lines.map((item) => row(item, busy != null)))),
      h("div", { class: "panel summary" },
        h("p", { class: "total" }, h("span", {}, t("total")), amount(group.total_minor, group.currency)),
        initData && ways.length > 1 && wayPicker({
          name: `way.${group.key}`, ways, picked: way, currency: group.currency, locked: busy != null, onPick: draw,
        }),
        initData && promoField(group, problem),
        said && warning(said.head, said.text,
          problem.type === "/problems/too-many-pending" && linkButton("#/orders", t("toOrders"), "quiet")),
        h("button", {
          type: "button", id: `pay-${group.key.replace(".", "-")}`, class: "button main wide", disabled: !initData || busy != null, "aria-busy": String(mine),
          onclick: () => checkout(group),
        }, mine ? t("placing") : payLabel(way, group.total_minor, group.currency)),
        h("p", { class: "hint" }, icon("shield"),
          t(!initData ? "noTelegram" : way.provider === BALANCE ? "payNoteBalance" : "payNote"))));
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

  // Closed until it is asked for: who has no code should not go and look for one.
  function promoField(group, problem) {
    const id = `promo-${group.key.replace(".", "-")}`;
    if (!codes.has(group.key)) {
      return h("button", { type: "button", id: `${id}-open`, class: "unfold", disabled: busy != null, onclick: () => {
        codes.set(group.key, "");
        draw();
        document.getElementById(id)?.focus();
      } }, t("promoHave"));
    }
    const refused = problem?.type === "/problems/promo-refused";
    return h("div", { class: "field" }, h("label", { for: id }, t("promo")),
      h("input", {
        id, type: "text", value: codes.get(group.key), maxlength: MOST_PROMO, autocomplete: "off", autocapitalize: "characters",
        spellcheck: "false", enterkeyhint: "done", disabled: busy != null, "aria-invalid": refused ? "true" : null,
        "aria-describedby": `${id}-note`, oninput: (event) => codes.set(group.key, event.target.value),
        onkeydown: (event) => event.key === "Enter" && event.target.blur(), // folds the phone's keyboard away
      }),
      h("p", { class: "hint", id: `${id}-note` }, t("promoNote")));
  }

  async function checkout(group) {
    if (busy != null) return;
    const way = pickedWay(waysFor(group.currency, group.total_minor));
    const promo = (codes.get(group.key) ?? "").trim();
    busy = group.key;
    trouble.delete(group.key);
    put(notes);
    draw();
    try {
      const { order, payment } = await buy(group, { provider: way.provider, promo }, () => toast(t("stillPlacing")));
      leave(group);
      const saved = promo && order.currency === group.currency ? group.total_minor - order.total_minor : 0;
      const same = order.total_minor === group.total_minor && order.currency === group.currency;
      go(`/o/${order.id}`, { moved: !same && saved <= 0, promo: promo && saved >= 0 ? saved : null });
      // A total that the buyer did not agree to is never sent on to be paid unseen: a code may only have lowered it.
      if ((promo ? saved > 0 : same) && payment?.url) openPayment(payment.url);
    } catch (problem) {
      if (problem.facts?.order_id) {
        leave(group);
        go(`/o/${problem.facts.order_id}`, { trouble: explain(problem, "failedLook", group.currency) });
        return;
      }
      busy = null;
      trouble.set(group.key, problem);
      if (problem.type === "/problems/out-of-stock") tell(cart.shrink(problem.facts.left));
      if (!signal.aborted) draw();
    }
  }

  // The cart is an order now.
  function leave(group) {
    busy = null;
    codes.delete(group.key);
    cart.clear(group);
  }

  function tell(told) {
    put(notes, told.length > 0 && h("ul", { class: "told" }, told.map(({ said, title: name, n, product }) => h("li", {},
      t(said, { title: name, n, price: product && money(product.price_minor, product.currency) })))));
  }
}
