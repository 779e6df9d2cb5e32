// The page in the buyer's language; the words themselves are in words*.js.

import { user } from "./telegram.js";
import { WORDS } from "./words.js";
import { BUYING } from "./words-buying.js";
import { REASONS, REFUSALS, SAID, STATUSES, WAYS, WAY_HINTS } from "./words-states.js";

const LANGS = ["en", "ru", "uk"];
const asked = String(user.language_code ?? "").toLowerCase().split("-")[0];

export const lang = LANGS.includes(asked) ? asked : "en";

const plural = new Intl.PluralRules(lang);
const column = LANGS.indexOf(lang);

export function t(key, facts = {}) {
  return fill((WORDS[key] ?? BUYING[key])?.[column] ?? key, facts);
}

function fill(form, facts) {
  const text = typeof form === "string" ? form : form[plural.select(facts.n ?? 0)] ?? form.other;
  return text.replace(/\{(\w+)\}/g, (hole, name) => facts[name] ?? hole);
}

// A status that this page does not know yet is shown as it is, readable.
export function statusName(status) {
  return STATUSES[spelled(status)]?.[column] ?? readable(status);
}

export function statusSaid(status) {
  const alike = { payment_pending: "pending", completed: "delivered", in_delivery: "shipped", preparing: "confirmed" }[status] ?? spelled(status);
  return SAID[alike]?.[column] ?? "";
}

// A gateway that came after this page goes by its own name.
export function wayName(provider) {
  return WAYS[provider]?.[column] ?? readable(provider);
}

export function wayHint(provider) {
  return WAY_HINTS[provider]?.[column] ?? "";
}

// Why money came to the balance or left it.
export function reasonName(reason) {
  return REASONS[reason]?.[column] ?? readable(reason);
}

// Why a promo code cannot be used.
export function refusalSaid(reason) {
  return REFUSALS[reason]?.[column] ?? "";
}

function readable(word) {
  const plain = String(word).replaceAll("_", " ");
  return plain.charAt(0).toUpperCase() + plain.slice(1);
}

export function spelled(status) {
  return status === "canceled" ? "cancelled" : status;
}
