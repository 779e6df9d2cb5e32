// The buyer's own link, whom it brought, and what that earned.

import { api } from "./api.js";
import { h, icon, put } from "./dom.js";
import { money, percent } from "./format.js";
import { t } from "./i18n.js";
import { amount, backLink, button, copy, failure, loading, skeleton, title } from "./parts.js";
import { shareLink } from "./telegram.js";

const NAMES = ["level1", "level2", "level3"];

export async function invite({ root, signal, rerun }) {
  const place = h("div", { class: "place" }, loading(skeleton(3, "row-like")));
  put(root, backLink("#/orders", t("orders")), title(t("invite")), place);
  let found;
  try {
    found = await api.referrals(signal);
  } catch (error) {
    if (!signal.aborted) put(place, failure(error, rerun));
    return;
  }
  const pays = found.levels.some((level) => level.share_percent > 0);
  put(place, linkPanel(found, pays),
    found.levels.length > 0 && h("section", { class: "panel" }, h("ul", { class: "entries" }, found.levels.map(levelRow))),
    earnedPanel(found.levels));
}

function linkPanel({ link, code }, pays) {
  const shown = h("pre", { class: "secret", tabindex: "0", role: "group", "aria-label": t(link ? "yourLink" : "yourCode") }, link ?? code);
  return h("section", { class: "panel status" },
    h("p", { class: "said cheer" }, icon("gift"), t(pays ? "inviteLead" : "inviteOff")),
    h("h2", {}, t(link ? "yourLink" : "yourCode")), shown,
    h("div", { class: "item-actions" },
      link && button([icon("share"), t("share")], () => shareLink(link, t("shareText")), "main"),
      button([icon("copy"), t("copy")], () => copy(link ?? code, shown), "quiet")),
    !link && h("p", { class: "hint" }, t("noLink")));
}

function levelRow({ level, share_percent: share, invited }) {
  return h("li", { class: "entry" },
    h("div", { class: "order-text" },
      h("p", { class: "entry-why" }, t(NAMES[level - 1] ?? NAMES.at(-1))),
      share > 0 && h("p", { class: "hint" }, t("levelShare", { share: percent(share, 2) }))),
    h("span", { class: "amount" }, t("invited", { n: invited })));
}

function earnedPanel(levels) {
  const sums = new Map(); // currency -> [earned, taken back]
  for (const { currency, earned_minor, clawed_minor } of levels.flatMap((level) => level.earned)) {
    const [earned, clawed] = sums.get(currency) ?? [0, 0];
    sums.set(currency, [earned + earned_minor, clawed + clawed_minor]);
  }
  return h("section", { class: "panel contents" }, h("h2", {}, t("earned")),
    sums.size === 0 && h("p", { class: "hint" }, t("earnedNone")),
    [...sums].map(([currency, [earned, clawed]]) => [
      h("p", { class: "purse-sum" }, amount(earned, currency)),
      clawed > 0 && h("p", { class: "hint" }, t("takenBack", { price: money(clawed, currency) })),
    ]),
    sums.size > 0 && h("a", { class: "rate-line", href: "#/balance" }, icon("wallet"), t("toBalance")));
}
