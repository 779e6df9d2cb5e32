// What buyers say of a product: the newest first, page by page.

import { api } from "./api.js";
import { h, put } from "./dom.js";
import { day } from "./format.js";
import { t } from "./i18n.js";
import { button, explain, loading, skeleton, stars, warning } from "./parts.js";
import { initData } from "./telegram.js";
import { rateLink } from "./view-rate.js";

const FIRST = 5;
const MORE = 20;
const LONG = { letters: 360, lines: 7 }; // beyond either, a review is folded

// `onRating` is told the product's rating as the reviews have it.
export function reviews(product, signal, onRating) {
  const list = h("ul", { class: "reviews" });
  const foot = h("div", {}, loading(skeleton(1, "row-like")));
  ask(null);
  return h("section", { class: "said-by" },
    h("div", { class: "said-head" }, h("h2", {}, t("reviews")), initData && rateLink(product)), list, foot);

  async function ask(cursor) {
    const press = foot.querySelector("button");
    press?.setAttribute("aria-busy", "true");
    if (press) press.disabled = true;
    let page;
    try {
      page = await api.reviews(product.id, { cursor, limit: cursor ? MORE : FIRST }, signal);
    } catch (error) {
      if (signal.aborted) return;
      const { head, text } = explain(error);
      put(foot, warning(head, text, button(t("retry"), () => ask(cursor), "quiet")));
      return;
    }
    if (signal.aborted) return;
    const fresh = page.reviews.map(review);
    list.append(...fresh);
    onRating(page);
    put(foot,
      !list.children.length && h("p", { class: "hint" }, t("noReviews")),
      page.next_cursor && button(t("more"), () => ask(page.next_cursor), "quiet wide"));
    if (cursor) fresh[0]?.focus({ preventScroll: true });
  }
}

function review(one) {
  return h("li", { class: "review", tabindex: "-1" },
    h("p", { class: "review-head" }, h("strong", {}, one.name || t("someone")), stars(one.rating)),
    one.text && words(one.text),
    h("p", { class: "hint" }, day(one.created_at), one.edited_at && ` · ${t("edited")}`));
}

function words(text) {
  const prose = h("p", { class: "prose", tabindex: "-1" }, text);
  if (text.length <= LONG.letters && text.split("\n").length <= LONG.lines) return prose;
  prose.classList.add("folded");
  const press = h("button", { type: "button", class: "unfold", onclick: () => {
    prose.classList.remove("folded");
    press.remove();
    prose.focus({ preventScroll: true });
  } }, t("readAll"));
  return [prose, press];
}
