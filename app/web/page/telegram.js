// What Telegram hands to a Mini App, spoken over its own bridge, so that no script of telegram.org is loaded.
// Protocol: https://docs.telegram-mini-apps.com/platform (launch parameters in the hash, postEvent, receiveEvent).

import { session } from "./store.js";

const COLORS = [
  "bg_color", "text_color", "hint_color", "link_color", "button_color", "button_text_color", "secondary_bg_color",
  "section_bg_color", "destructive_text_color",
];
const WEB = "https://web.telegram.org";

const launch = readLaunch();

export const initData = launch.initData;
export const user = readUser(launch.initData);

// The hash is `tgWebAppData=…&…`, or `/route?tgWebAppData=…` when the bot's link had a route of its own.
function readLaunch() {
  const hash = location.hash.slice(1);
  const cut = hash.startsWith("/") ? hash.indexOf("?") : -1;
  const route = hash.startsWith("/") ? hash.slice(0, cut < 0 ? undefined : cut) : "";
  const params = new URLSearchParams((hash.startsWith("/") && cut < 0 ? "" : hash.slice(cut + 1)).replace(/\+/g, "%2B"));
  const app = window.Telegram?.WebApp;
  const fresh = params.get("tgWebAppData") || app?.initData || "";
  const kept = session.get("launch");

  if (params.has("tgWebAppData") || params.has("tgWebAppVersion")) {
    // Out of the address: it must not be shared, logged or found in the history.
    history.replaceState(null, "", location.pathname + location.search + (route ? `#${route}` : ""));
  }
  if (!fresh) return { initData: "", theme: null, ...kept };
  const now = { initData: fresh, theme: parseJson(params.get("tgWebAppThemeParams")) ?? app?.themeParams ?? null };
  if (kept?.initData !== fresh) session.drop("token");
  session.set("launch", now);
  return now;
}

function readUser(raw) {
  return parseJson(new URLSearchParams(raw).get("user")) ?? {};
}

function parseJson(text) {
  try {
    const value = JSON.parse(text);
    return value && typeof value === "object" ? value : null;
  } catch {
    return null;
  }
}

// Colours

function applyTheme(theme) {
  const root = document.documentElement;
  const given = theme ?? {};
  for (const name of COLORS) {
    const variable = `--tg-${name.replaceAll("_", "-")}`;
    if (/^#[0-9a-f]{6}$/i.test(given[name] ?? "")) root.style.setProperty(variable, given[name]);
    else root.style.removeProperty(variable);
  }
  const ground = root.style.getPropertyValue("--tg-bg-color").trim();
  const dark = ground ? isDark(ground) : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "dark" : "light";
  tell("web_app_set_header_color", { color_key: "secondary_bg_color" });
  if (given.secondary_bg_color) tell("web_app_set_background_color", { color: given.secondary_bg_color });
}

function isDark(hex) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return r * 299 + g * 587 + b * 114 < 128_000;
}

// Bridge

// Only a Telegram page may be spoken to: any other site that frames the shop hears nothing.
const frame = window.parent === window ? "" : frameOrigin();

function frameOrigin() {
  try {
    const origin = location.ancestorOrigins?.[0] ?? new URL(document.referrer).origin;
    return /^https:\/\/([a-z0-9-]+\.)?telegram\.org$/.test(origin) ? origin : "";
  } catch {
    return WEB;
  }
}

function bridged() {
  return Boolean(window.TelegramWebviewProxy?.postEvent || frame);
}

function tell(eventType, eventData = {}) {
  try {
    if (window.TelegramWebviewProxy?.postEvent) {
      window.TelegramWebviewProxy.postEvent(eventType, JSON.stringify(eventData));
    } else if (frame) {
      window.parent.postMessage(JSON.stringify({ eventType, eventData }), frame);
    }
  } catch { /* an older client that does not know the event */ }
}

export function start(onBack) {
  const hear = (type, data) => {
    if (type === "back_button_pressed") onBack();
    if (type === "theme_changed") applyTheme(data?.theme_params ?? data);
  };
  const app = window.Telegram?.WebApp;
  if (app?.onEvent) {
    app.onEvent("backButtonClicked", () => hear("back_button_pressed"));
    app.onEvent("themeChanged", () => hear("theme_changed", app.themeParams));
  } else {
    window.Telegram = { ...window.Telegram, WebView: { receiveEvent: hear } };
    window.TelegramGameProxy = { receiveEvent: hear };
    window.TelegramGameProxy_receiveEvent = hear;
    addEventListener("message", (event) => {
      if (!frame || event.source !== window.parent || event.origin !== frame) return;
      const message = parseJson(event.data);
      if (message) hear(message.eventType, message.eventData);
    });
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener?.("change", () => applyTheme(launch.theme));
  applyTheme(launch.theme);
  if (frame) tell("iframe_ready", { reload_supported: false });
  tell("web_app_ready");
  tell("web_app_expand");
}

export function backButton(visible) {
  const native = window.Telegram?.WebApp?.BackButton;
  if (native) native[visible ? "show" : "hide"]();
  else tell("web_app_setup_back_button", { is_visible: visible });
}

export function tap() {
  tell("web_app_trigger_haptic_feedback", { type: "impact", impact_style: "light" });
}

// A gateway's page: outside of Telegram's frame where there is one, else in this window. False: not a web address.
export function openPayment(url) {
  if (!webAddress(url)) return false;
  const app = window.Telegram?.WebApp;
  if (app?.openLink) app.openLink(url);
  else if (bridged()) tell("web_app_open_link", { url });
  else location.assign(url);
  return true;
}

// To a chat of the buyer's choice: by Telegram, else by what the phone shares with.
export function shareLink(url, text) {
  const path = `/share/url?url=${encodeURIComponent(url)}&text=${encodeURIComponent(text)}`;
  const app = window.Telegram?.WebApp;
  if (app?.openTelegramLink) app.openTelegramLink(`https://t.me${path}`);
  else if (bridged()) tell("web_app_open_tg_link", { path_full: path });
  else if (navigator.share) navigator.share({ url, text }).catch(() => {}); // refused is an answer too
  else window.open(`https://t.me${path}`, "_blank", "noopener");
}

export function webAddress(text) {
  try {
    return /^https?:$/.test(new URL(text).protocol);
  } catch {
    return false;
  }
}
