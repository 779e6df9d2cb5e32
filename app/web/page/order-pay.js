// What an unpaid order offers: its payment page, another way to pay, and to cancel it.

import { api } from "./api.js";
import { payAgain } from "./checkout.js";
import { h, icon, put, toast } from "./dom.js";
import { money } from "./format.js";
import { t, wayName } from "./i18n.js";
import { amount, explain, warning } from "./parts.js";
import { openPayment, tap, webAddress } from "./telegram.js";
import { BALANCE, learnWays, ownMinor, payLabel, pickedWay, wayPicker, waysFor } from "./ways.js";

// `trouble` ({head, text}) is what went wrong on the way here; `changed` is told that the order may be another now.
export function payPanel({ o, payment, trouble, signal, changed }) {
  const open = payment?.status === "open" && webAddress(payment.url) ? payment : null;
  const place = h("div", { class: "pay-panel" });
  let mode = open ? "link" : "ways"; // or "cancel"
  let busy = ""; // the word for what is under way
  let said = trouble;
  draw();
  learnWays(signal).then(() => !signal.aborted && !busy && draw());
  return place;

  function draw() {
    const at = place.contains(document.activeElement) ? document.activeElement.dataset.way ?? document.activeElement.dataset.do : null;
    put(place, o.credited_minor > 0 && partCame(o, dueMinor()), said && warning(said.head, said.text),
      { link: byLink, ways: byAnyWay, cancel: cancelQuestion }[mode]());
    if (at) (place.querySelector(`[data-way="${at}"], [data-do="${at}"]`) ?? place.querySelector("button"))?.focus({ preventScroll: true });
  }

  // As the server counts: part payments count as far as they are still on the balance.
  function dueMinor() {
    if (open) return open.amount_minor;
    return Math.max(1, o.total_minor - Math.min(o.credited_minor, ownMinor(o.currency)));
  }

  function byLink() {
    return [
      press("pay", [icon("link"), t("pay", { price: money(open.amount_minor, o.currency) })], () => openPayment(open.url), "main wide"),
      h("p", { class: "hint centred" }, wayName(open.provider)),
      h("div", { class: "choices" },
        press("ways", t("payOther"), () => turn("ways"), "quiet"),
        press("cancel", t("cancelOrder"), () => turn("cancel"), "bare-text")),
    ];
  }

  function byAnyWay() {
    const ways = waysFor(o.currency, o.total_minor);
    const way = pickedWay(ways);
    const minor = way.provider === BALANCE ? o.total_minor : dueMinor();
    return [
      ways.length > 1 && wayPicker({
        name: "way", ways, picked: way, currency: o.currency, locked: Boolean(busy), onPick: draw,
      }),
      press("go", busy ? t("preparing") : payLabel(way, minor, o.currency), () => pay(way), "main wide"),
      h("p", { class: "hint" }, icon("shield"), t("payAgainNote")),
      h("div", { class: "choices" },
        open && press("link", t("back"), () => turn("link"), "quiet"),
        press("cancel", t("cancelOrder"), () => turn("cancel"), "bare-text")),
    ];
  }

  function cancelQuestion() {
    return h("div", { class: "question", role: "group", "aria-label": t("cancelAsk") },
      h("strong", {}, t("cancelAsk")), h("p", { class: "hint" }, t("cancelHint")),
      h("div", { class: "choices" },
        press("keep", t("cancelNo"), () => turn(open ? "link" : "ways"), "quiet"),
        press("yes", busy ? t("cancelling") : t("cancelYes"), cancel, "danger")));
  }

  function press(name, text, onclick, look) {
    const runs = Boolean(busy) && (name === "go" || name === "yes");
    return h("button", {
      type: "button", class: `button ${look}`, "data-do": name, disabled: Boolean(busy), "aria-busy": runs ? "true" : null, onclick,
    }, text);
  }

  function turn(to) {
    mode = to;
    said = null;
    draw();
    place.querySelector(to === "cancel" ? '[data-do="keep"]' : "input:checked, button")?.focus({ preventScroll: true });
  }

  function pay(way) {
    return act("preparing", async () => {
      const { payment: now } = await payAgain(o.id, way.provider, () => toast(t("stillPreparing")));
      tap();
      if (now?.status === "open" && now.url) openPayment(now.url);
    });
  }

  function cancel() {
    return act("cancelling", () => api.cancelOrder(o.id));
  }

  async function act(word, work) {
    if (busy) return;
    busy = word;
    said = null;
    draw();
    try {
      await work();
    } catch (problem) {
      said = explain(problem, "failedLook", o.currency);
    }
    busy = "";
    if (signal.aborted) return;
    if (mode === "cancel") mode = open ? "link" : "ways";
    if (place.isConnected) draw();
    changed();
  }
}

function partCame(o, dueMinor) {
  return h("div", { class: "part" },
    h("p", {}, h("strong", {}, t("partCame", { price: money(o.credited_minor, o.currency), total: money(o.total_minor, o.currency) }))),
    h("progress", { max: o.total_minor, value: Math.min(o.credited_minor, o.total_minor), "aria-hidden": "true" }),
    h("p", { class: "total" }, h("span", {}, t("stillToPay")), amount(dueMinor, o.currency)),
    h("p", { class: "hint" }, t("partHint")));
}
