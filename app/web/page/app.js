// The page: routes, the frame around the views, and notices that belong to no view.

import { api } from "./api.js";
import { takeAside } from "./aside.js";
import { cart } from "./cart.js";
import { h, hidden, icon, put } from "./dom.js";
import { lang, t } from "./i18n.js";
import { backButton, initData, start } from "./telegram.js";
import { balance } from "./view-balance.js";
import { basket } from "./view-cart.js";
import { catalog } from "./view-catalog.js";
import { chat } from "./view-chat.js";
import { invite } from "./view-invite.js";
import { order } from "./view-order.js";
import { orders } from "./view-orders.js";
import { product } from "./view-product.js";
import { rate } from "./view-rate.js";
import { savers } from "./view-savers.js";

const ROUTES = [
  { path: /^\/$/, view: catalog, tab: "shop", title: "catalog" },
  { path: /^\/p\/(\d{1,18})$/, view: product, tab: "shop", deep: true, title: "catalog" },
  { path: /^\/p\/(\d{1,18})\/rate$/, view: rate, tab: "shop", deep: true, title: "rateIt" },
  { path: /^\/p\/(\d{1,18})\/ask$/, view: chat, tab: "chat", deep: true, title: "chat" },
  { path: /^\/chat$/, view: chat, tab: "chat", deep: true, title: "chat" },
  { path: /^\/cart$/, view: basket, tab: "cart", deep: true, title: "cart" },
  { path: /^\/orders$/, view: orders, tab: "orders", deep: true, title: "orders" },
  { path: /^\/balance$/, view: balance, tab: "orders", deep: true, title: "balance" },
  { path: /^\/invite$/, view: invite, tab: "orders", deep: true, title: "invite" },
  { path: /^\/savers$/, view: savers, tab: "orders", deep: true, title: "savers" },
  { path: /^\/o\/([\w-]{1,64})$/, view: order, tab: "orders", deep: true, title: "orders" },
];
const TABS = [["shop", "#/", "shop"], ["chat", "#/chat", "chat"], ["cart", "#/cart", "cart"], ["orders", "#/orders", "list"]];

const main = document.getElementById("main");
let leaving = new AbortController();
let depth = 0; // pages of ours below this one in the history
let tab = "shop";
let session = initData ? "live" : "none";

function go(path, state = {}) {
  history.replaceState({ depth: history.state?.depth ?? depth, ...state }, "", `${location.pathname}#${path}`);
  show();
}

function goBack() {
  if (depth > 0) history.back();
  else location.hash = "#/";
}

async function show(first = false) {
  const path = location.hash.slice(1) || "/";
  const route = ROUTES.find(({ path: shape }) => shape.test(path));
  if (!route) {
    go("/");
    return;
  }
  if (history.state?.depth == null) history.replaceState({ depth: first === true ? 0 : depth + 1 }, "");
  const returning = history.state.depth < depth;
  depth = history.state.depth;

  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  tab = route.tab;
  drawNav();
  drawNotice();
  backButton(Boolean(route.deep));
  name(t(route.title));
  if (!returning) scrollTo(0, 0);

  const context = {
    root: main, signal, params: path.match(route.path).slice(1), state: history.state, returning, go, name,
    rerun: () => show(),
    back: (path) => (depth > 0 ? history.back() : go(path)),
  };
  const done = route.view(context);
  if (first !== true && !done?.focused) focusHead();
  const told = await done;
  if (!signal.aborted && told?.title) name(told.title, first !== true);
}

function name(text, focus = false) {
  document.title = `${text} · Torg`;
  if (focus) focusHead();
}

// After a step, screen readers start at the new page's heading; nothing is taken from a field that is in use.
function focusHead() {
  if (main.contains(document.activeElement) && document.activeElement.matches("input, textarea")) return;
  (main.querySelector("h1") ?? main).focus({ preventScroll: true });
}

function drawNav() {
  const n = cart.count();
  const nav = document.getElementById("nav");
  nav.setAttribute("aria-label", t("menu"));
  const focused = nav.contains(document.activeElement) ? document.activeElement.hash : null;
  put(nav, TABS.map(([key, href, picture]) => h("a", { href, "aria-current": key === tab ? "page" : null },
    h("span", { class: "nav-icon" }, icon(picture),
      key === "cart" && n > 0 && h("span", { class: "bubble", "aria-hidden": "true" }, n > 99 ? "99+" : String(n))),
    t(key), key === "cart" && n > 0 && hidden(`, ${t("inCart", { n })}`))));
  if (focused) [...nav.children].find((link) => link.hash === focused)?.focus();
}

function drawNotice() {
  const place = document.getElementById("notice");
  const guest = session === "none" && !/^#\/(o\/|chat$|p\/\d+\/ask$)/.test(location.hash); // these say it themselves
  const said = navigator.onLine === false ? "offline" : session === "ended" ? "ended" : guest ? "noTelegram" : null;
  if (place.dataset.said === String(said)) return;
  place.dataset.said = String(said);
  put(place, said && h("p", { class: `notice ${said === "noTelegram" ? "" : "strong"}` },
    icon(said === "offline" || said === "ended" ? "alert" : "user"), t(said)));
}

addEventListener("hashchange", show);
addEventListener("torg:cart", drawNav);
addEventListener("torg:session", ({ detail }) => {
  session = detail;
  drawNotice();
});
addEventListener("offline", drawNotice);
addEventListener("online", () => {
  drawNotice();
  if (main.querySelector("[role=alert] .blank")) show(); // a view that failed tries again by itself
});
addEventListener("pageshow", (event) => {
  if (event.persisted) show(); // back from the payment page, restored as it was left
});

document.documentElement.lang = lang;
document.getElementById("skip").textContent = t("skip");
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the hash belongs to the routes
  focusHead();
});
if ("scrollRestoration" in history) history.scrollRestoration = "manual";
start(goBack);

// Gateways send the buyer back to /?order=<id>.
const paid = new URLSearchParams(location.search).get("order");
if (paid && /^[\w-]{1,64}$/.test(paid)) history.replaceState({ depth: 0 }, "", `${location.pathname}#/o/${paid}`);

show(true);
if (initData) api.signIn().then(takeAside, () => {}); // early, so that buying does not wait for it; failures show where they matter
