// One product: what it is, how it arrives, what buyers say, and the way into the cart.

import { api } from "./api.js";
import { cart } from "./cart.js";
import { h, icon, put } from "./dom.js";
import { hours } from "./format.js";
import { t } from "./i18n.js";
import { addToCart, backLink, blank, button, cover, failure, kindBadge, linkButton, loading, price, rating, skeleton, stepper, stockNote, title } from "./parts.js";
import { reviews } from "./reviews.js";

export async function product({ root, signal, params: [id], rerun }) {
  put(root, backLink("#/", t("catalog")),
    loading(h("div", { class: "product" }, skeleton(1, "cover-like"), h("div", {}, skeleton(5, "line-like")))));
  let item;
  try {
    item = await api.product(id, signal);
  } catch (error) {
    if (signal.aborted) return;
    const gone = error.status === 404;
    put(root, backLink("#/", t("catalog")), gone
      ? blank("box", t("noProduct"), "", linkButton("#/", t("toShop")))
      : failure(error, rerun));
    return;
  }
  const buy = h("div", { class: "buybar" });
  const head = h("div", { class: "product-head" },
    h("p", { class: "tags" }, kindBadge(item.kind), item.category && h("span", { class: "badge plain" }, item.category)),
    title(item.title), rating(item, "large"));
  // The product's answer may be some seconds old, the reviews' is not.
  const rerate = (counted) => {
    head.querySelector(".rating")?.remove();
    head.append(...[rating(counted, "large")].filter(Boolean));
  };
  put(root, backLink("#/", t("catalog")), h("article", { class: "product" },
    cover(item, "big"),
    h("div", { class: "product-text" },
      head,
      buy,
      facts(item),
      h("a", { class: "button quiet", href: `#/p/${item.id}/ask` }, icon("chat"), t("askAboutIt")),
      item.description && h("section", {}, h("h2", {}, t("about")), h("p", { class: "prose" }, item.description)),
      reviews(item, signal, rerate))));
  drawBuy(buy, item);
  addEventListener("torg:cart", () => drawBuy(buy, item), { signal });
  return { title: item.title };
}

function facts(item) {
  const row = (name, label, ...value) => h("div", { class: "fact" },
    h("dt", {}, icon(name), label), h("dd", {}, ...value));
  const how = item.kind === "made"
    ? (item.lead_time_h ? t("how_made", { time: hours(item.lead_time_h) }) : t("how_made_plain"))
    : t(`how_${item.kind}`);
  return h("dl", { class: "facts" },
    row("shield", t("delivery"), how),
    row("box", t("stock"), stockNote(item) ?? t("inStock")),
    row("user", t("seller"), item.seller.name));
}

function drawBuy(place, item) {
  const by = place.contains(document.activeElement) ? document.activeElement.dataset.by ?? "add" : null;
  const n = cart.quantity(item.id);
  const action = item.left === 0 ? h("p", { class: "button off", "aria-disabled": "true" }, t("soldOut"))
    : n === 0 ? button(t("add"), () => addToCart(item), "main")
      : [stepper(item, n, (to) => cart.set(item, to)), linkButton("#/cart", t("toCart"), "main")];
  put(place, price(item, "large"), h("div", { class: "buy-actions" }, action));
  if (by) (place.querySelector(`[data-by="${by === "add" ? 1 : by}"]:not(:disabled)`) ?? place.querySelector("button"))?.focus();
}
