// Who saved most against list prices, and where the buyer stands.

import { api } from "./api.js";
import { h, put } from "./dom.js";
import { t } from "./i18n.js";
import { amount, backLink, blank, failure, linkButton, loading, skeleton, title } from "./parts.js";

const PERIODS = [["week", "week"], ["month", "month"], ["all", "ever"]]; // the API's word, ours
const SIZE = 20;

const asked = { period: "month", currency: "" }; // outlives a look elsewhere

export async function savers({ root, signal, rerun }) {
  const periods = h("div", { class: "chips", role: "group", "aria-label": t("periods") });
  const currencies = h("div", { class: "chips", role: "group", "aria-label": t("currencies") });
  const place = h("div", { class: "place" }, loading(skeleton(4, "row-like")));
  let asking = new AbortController();
  signal.addEventListener("abort", () => asking.abort());
  put(root, backLink("#/orders", t("orders")), title(t("savers")), h("p", { class: "hint lead" }, t("saversLead")),
    periods, currencies, place);

  let known;
  try {
    const { products } = await api.catalog({ limit: 48 }, signal);
    known = [...new Set(products.map((product) => product.currency))];
  } catch (error) {
    if (!signal.aborted) put(place, failure(error, rerun));
    return;
  }
  if (!known.includes(asked.currency)) asked.currency = known[0] ?? "RUB";
  await ask({});

  async function ask(change) {
    Object.assign(asked, change);
    asking.abort();
    asking = new AbortController();
    const mine = asking.signal;
    chips(periods, PERIODS.map(([period, word]) => [t(word), { period }]));
    chips(currencies, known.length > 1 ? known.map((currency) => [currency, { currency }]) : []);
    put(place, loading(skeleton(4, "row-like")));
    try {
      const found = await api.leaderboard({ ...asked, limit: SIZE }, mine);
      if (!mine.aborted) put(place, board(found));
    } catch (error) {
      if (!mine.aborted) put(place, failure(error, () => ask({})));
    }
  }

  function chips(group, choices) {
    const focused = group.contains(document.activeElement);
    group.hidden = !choices.length;
    put(group, choices.map(([text, change]) => h("button", {
      type: "button", class: "chip", onclick: () => ask(change),
      "aria-pressed": String(Object.entries(change).every(([name, value]) => asked[name] === value)),
    }, text)));
    if (focused) group.querySelector('[aria-pressed="true"]')?.focus();
  }
}

function board({ places, you, currency }) {
  if (!places.length) return blank("trophy", t("saversNone"), t("saversNoneHint"), linkButton("#/", t("toShop")));
  return [
    h("ol", { class: "panel savers" }, places.map((place) => h("li", { class: place.you ? "saver mine" : "saver" },
      h("span", { class: `rank rank-${Math.min(place.rank, 4)}` }, String(place.rank)),
      h("span", { class: "saver-name" }, place.name || t("someone"), place.you && h("span", { class: "badge" }, t("you"))),
      amount(place.saved_minor, currency)))),
    you && !places.some((place) => place.you) && ownPlace(you, currency),
  ];
}

// For who is not among the first ones; a rank of null: the shop cannot tell it now.
function ownPlace({ rank, saved_minor }, currency) {
  if (rank === 0 || saved_minor <= 0) return h("p", { class: "hint own-place" }, t("notRanked"));
  return h("section", { class: "panel saver mine own-place" },
    h("span", { class: "saver-name" }, rank == null ? t("youSaved") : t("yourPlace", { n: rank })),
    amount(saved_minor, currency));
}
