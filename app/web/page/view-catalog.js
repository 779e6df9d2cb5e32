// Catalog: search, category chips, cards, "show more". What was loaded outlives a look at a product.

import { api, wait } from "./api.js";
import { cart } from "./cart.js";
import { h, icon, put } from "./dom.js";
import { t } from "./i18n.js";
import { addToCart, blank, button, cover, explain, failure, kindBadge, linkButton, loading, price, rating, skeleton, stockNote, title, warning } from "./parts.js";

const DEBOUNCE_MS = 300;
const FRESH_MS = 60_000;

const seen = { query: "", category: "", products: [], categories: [], cursor: null, at: 0, scroll: 0, last: null };

// What the buyer has just rated is right on the kept shelf too.
addEventListener("torg:rated", ({ detail }) => {
  const rated = seen.products.find((product) => product.id === detail.id);
  if (rated) Object.assign(rated, detail);
});

export function catalog({ root, signal, returning }) {
  let asking = new AbortController();
  const chips = h("div", { class: "chips", role: "group", "aria-label": t("categories") });
  const said = h("p", { class: "sr", role: "status" });
  const place = h("div", { class: "place" });
  const field = h("input", {
    id: "q", type: "search", autocomplete: "off", enterkeyhint: "search", maxlength: "100", placeholder: t("search"),
    value: seen.query, oninput: typed,
  });
  const wipe = h("button", { type: "button", class: "wipe", "aria-label": t("clear"), hidden: !seen.query, onclick: () => {
    field.value = "";
    field.focus();
    ask({ query: "" });
  } }, icon("close"));
  const form = h("form", { class: "search", role: "search", onsubmit: (event) => {
    event.preventDefault();
    ask({ query: field.value.trim() });
    field.blur(); // folds the phone's keyboard away
  } }, h("label", { class: "sr", for: "q" }, t("search")), icon("search"), field, wipe);

  put(root, title(t("catalog"), "sr"), h("div", { class: "finder" }, form, chips), said, place);
  addEventListener("torg:cart", () => place.querySelectorAll("[data-add]").forEach(mark), { signal });
  signal.addEventListener("abort", () => {
    seen.scroll = scrollY;
    asking.abort();
  });

  if (returning && Date.now() - seen.at < FRESH_MS) {
    drawChips();
    draw();
    scrollTo(0, seen.scroll);
    place.querySelector(`[data-id="${seen.last}"]`)?.focus({ preventScroll: true });
    return { focused: true };
  }
  return ask({});

  async function typed() {
    wipe.hidden = !field.value;
    asking.abort();
    asking = new AbortController();
    const mine = asking.signal;
    await wait(DEBOUNCE_MS, mine);
    if (mine.aborted) return;
    if (field.value.trim() !== seen.query || place.querySelector(".loading")) ask({ query: field.value.trim() });
  }

  // A new question: replaces what is shown.
  async function ask(change) {
    Object.assign(seen, change);
    wipe.hidden = !field.value;
    asking.abort();
    asking = new AbortController();
    const mine = asking.signal;
    drawChips();
    put(place, loading(h("div", { class: "grid" }, skeleton(10, "card-like"))));
    try {
      keep(await api.catalog({ ...seen, cursor: null }, mine), true);
    } catch (error) {
      if (mine.aborted || signal.aborted) return;
      seen.at = 0;
      put(place, failure(error, () => ask({})));
      return;
    }
    if (mine.aborted) return;
    drawChips();
    draw();
  }

  async function more(event) {
    const press = event.currentTarget;
    press.disabled = true;
    press.setAttribute("aria-busy", "true");
    const had = seen.products.length;
    const mine = asking.signal;
    try {
      keep(await api.catalog(seen, mine), false);
    } catch (error) {
      if (mine.aborted || signal.aborted) return;
      const { head, text } = explain(error);
      press.closest(".more").replaceWith(h("div", { class: "more" },
        warning(head, text, button(t("retry"), more, "quiet"))));
      return;
    }
    if (mine.aborted || signal.aborted) return;
    const grid = place.querySelector(".grid");
    const fresh = seen.products.slice(had).map(card);
    grid.append(...fresh);
    press.closest(".more").replaceWith(foot());
    fresh[0]?.querySelector("a").focus({ preventScroll: true });
    count();
  }

  function keep(answer, anew) {
    const known = new Set(anew ? [] : seen.products.map((product) => product.id));
    const fresh = answer.products.filter((product) => !known.has(product.id));
    seen.products = anew ? fresh : [...seen.products, ...fresh];
    seen.cursor = answer.next_cursor;
    seen.categories = [...new Set([...seen.categories, ...answer.categories])];
    seen.at = Date.now();
  }

  function drawChips() {
    const chip = (name, text) => h("button", {
      type: "button", class: "chip", "aria-pressed": String(seen.category === name), "data-chip": name,
      onclick: () => ask({ category: name }),
    }, text);
    const scrolled = chips.scrollLeft;
    const focused = chips.contains(document.activeElement) ? document.activeElement.dataset.chip : null;
    chips.hidden = seen.categories.length < 2;
    put(chips, chip("", t("all")), seen.categories.map((name) => chip(name, name)));
    chips.scrollLeft = scrolled;
    if (focused != null) [...chips.children].find((other) => other.dataset.chip === focused)?.focus();
  }

  function draw() {
    count();
    if (seen.products.length) put(place, h("ul", { class: "grid" }, seen.products.map(card)), foot());
    else if (seen.query || seen.category) put(place, blank("search", t("nothing"), t("nothingHint"), button(t("showAll"), () => {
      field.value = "";
      ask({ query: "", category: "" });
    }, "quiet"), linkButton("#/chat", t("askShop"), "quiet")));
    else put(place, blank("shop", t("empty"), t("emptyHint")));
  }

  function count() {
    said.textContent = seen.products.length ? t("shown", { n: seen.products.length }) : t("nothing");
  }

  function foot() {
    return h("div", { class: "more" }, seen.cursor ? button(t("more"), more, "quiet")
      : h("a", { class: "button quiet", href: "#/chat" }, icon("chat"), t("askShop")));
  }
}

function card(product) {
  const sold = product.left === 0;
  const link = h("a", { href: `#/p/${product.id}`, "data-id": product.id, onclick: () => { seen.last = product.id; } }, product.title);
  const add = !sold && h("button", { type: "button", class: "plus", "data-add": product.id, onclick: () => addToCart(product) });
  if (add) {
    add.dataset.title = product.title;
    mark(add);
  }
  return h("li", { class: sold ? "card sold" : "card" },
    cover(product),
    h("div", { class: "card-text" },
      h("h2", {}, link),
      rating(product),
      h("p", { class: "tags" }, kindBadge(product.kind), " ", stockNote(product)),
      h("div", { class: "card-foot" }, price(product), add)));
}

// The card's button shows how many are in the cart.
function mark(add) {
  const n = cart.quantity(Number(add.dataset.add));
  add.classList.toggle("has", n > 0);
  const label = t("addNamed", { title: add.dataset.title });
  add.setAttribute("aria-label", n ? `${label} (${t("inCart", { n })})` : label);
  put(add, n ? h("span", { "aria-hidden": "true" }, String(n)) : icon("plus"));
}
