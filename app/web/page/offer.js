// An offer of the consultant's: what it costs now, and the button that orders it at that price.

import { api } from "./api.js";
import { buyOffer } from "./checkout.js";
import { h, put, toast } from "./dom.js";
import { money } from "./format.js";
import { t } from "./i18n.js";
import { amount, cover, explain, warning } from "./parts.js";
import { openPayment } from "./telegram.js";
import { learnWays, payLabel, pickedWay, wayPicker, waysFor } from "./ways.js";

const OVER = new Set(["/problems/bad-offer", "/problems/offer-stale", "/problems/out-of-stock"]);

// `onOver` is told when it has become an order, or cannot be had any more.
export function offerCard(one, { signal, go, onOver }) {
  const place = h("section", { class: "offer", "aria-label": one.title });
  const price = money(one.price_minor, one.currency);
  let picture = h("div", { class: "cover small", "aria-hidden": "true" }); // that of the shelf, when it is known
  let open = false; // the ways to pay are shown
  let busy = false;
  let said = null;
  let gone = false;
  draw();
  api.product(one.product_id, signal).then(paint, () => {});
  learnWays(signal).then(() => !signal.aborted && !busy && draw());
  return place;

  function paint(item) {
    const known = cover(item, "small");
    picture.replaceWith(known);
    picture = known;
  }

  function draw() {
    const at = place.contains(document.activeElement) ? document.activeElement.dataset.way ?? "go" : null;
    const ways = waysFor(one.currency, one.price_minor);
    const way = pickedWay(ways);
    put(place,
      h("div", { class: "offer-head" }, picture,
        h("div", { class: "offer-text" },
          h("a", { href: `#/p/${one.product_id}` }, one.title, one.quantity > 1 && h("span", { class: "times" }, ` × ${one.quantity}`)),
          amount(one.price_minor, one.currency))),
      open && ways.length > 1 && wayPicker({
        name: `way.${one.token}`, ways, picked: way, currency: one.currency, locked: busy, onPick: draw,
      }),
      said && warning(said.head, said.text),
      !gone && h("button", {
        type: "button", class: "button main wide", "data-way": "go", disabled: busy, "aria-busy": String(busy),
        onclick: () => (open || ways.length < 2 ? order(way) : unfold()),
      }, busy ? t("placing") : open ? payLabel(way, one.price_minor, one.currency) : t("buyFor", { price })));
    if (at) place.querySelector(`[data-way="${at}"]:not(:disabled)`)?.focus({ preventScroll: true });
  }

  function unfold() {
    open = true;
    draw();
    place.querySelector("input:checked")?.focus({ preventScroll: true });
    place.scrollIntoView({ block: "nearest" });
  }

  async function order(way) {
    if (busy) return;
    busy = true;
    said = null;
    draw();
    try {
      const { order: made, payment } = await buyOffer(one.token, way.provider, () => toast(t("stillPlacing")));
      onOver();
      const same = made.total_minor === one.price_minor && made.currency === one.currency;
      go(`/o/${made.id}`, { moved: !same });
      if (same && payment?.url) openPayment(payment.url); // never to pay a sum that the buyer has not seen
    } catch (problem) {
      if (problem.facts?.order_id) {
        onOver();
        go(`/o/${problem.facts.order_id}`, { trouble: explain(problem, "failedLook", one.currency) });
        return;
      }
      busy = false;
      gone = OVER.has(problem.type);
      if (gone) onOver();
      said = explain(problem, "failedHint");
      if (!signal.aborted) draw();
    }
  }
}
