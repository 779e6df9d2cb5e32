// Ways to pay: what this shop takes, what the buyer's own balance can do, and the way that was chosen last.

import { api } from "./api.js";
import { h, icon } from "./dom.js";
import { money } from "./format.js";
import { t, wayHint, wayName } from "./i18n.js";
import { amount } from "./parts.js";
import { local, session } from "./store.js";

const DEFAULT = document.querySelector('meta[name="torg-provider"]')?.content || "crystalpay";
const ICONS = { balance: "wallet", cryptopay: "coin" }; // the others are cards to most people

export const BALANCE = "balance";

let known = session.get("ways") ?? []; // [{provider, currencies}] as the server told last
let funds = null; // [{currency, balance_minor, debt_minor}]; null: not told

// Asks anew. What does not answer leaves the default way, and no balance.
export async function learnWays(signal) {
  const [me, own] = await Promise.allSettled([api.me(signal), api.balance({ limit: 1 }, signal)]);
  if (signal.aborted) return;
  if (me.status === "fulfilled" && Array.isArray(me.value.pay_with)) {
    known = me.value.pay_with;
    session.set("ways", known);
  }
  funds = own.status === "fulfilled" ? own.value.balances : null;
}

export function ownMinor(currency) {
  return funds?.find((one) => one.currency === currency)?.balance_minor ?? 0;
}

// [{provider, usable, has_minor, lacks_minor}] for this sum; the balance pays a price whole or not at all.
export function waysFor(currency, minor) {
  const found = known
    .filter(({ provider, currencies }) => currencies.includes(currency) && (provider !== BALANCE || funds))
    .sort((a, b) => rank(a) - rank(b))
    .map(({ provider }) => (provider === BALANCE ? fromBalance(currency, minor) : { provider, usable: true }));
  return found.some((way) => way.provider !== BALANCE || way.usable) ? found : [{ provider: DEFAULT, usable: true }];
}

function rank({ provider }) {
  return provider === DEFAULT ? 0 : provider === BALANCE ? 2 : 1;
}

function fromBalance(currency, minor) {
  const has = ownMinor(currency);
  return { provider: BALANCE, usable: has >= minor, has_minor: has, lacks_minor: minor - has };
}

// The one that is pressed to begin with: the buyer's last choice where it can be used, else the shop's default.
export function pickedWay(ways) {
  const usable = ways.filter((way) => way.usable);
  const named = (provider) => usable.find((way) => way.provider === provider);
  return named(local.get("way")) ?? named(DEFAULT) ?? usable[0];
}

export function wayPicker({ name, ways, picked, currency, locked, onPick }) {
  return h("fieldset", { class: "ways", disabled: locked }, h("legend", {}, t("howToPay")),
    ways.map((way) => h("label", { class: way.usable ? "way" : "way shut" },
      h("input", {
        type: "radio", class: "sr", name, value: way.provider, "data-way": way.provider, checked: way.provider === picked?.provider,
        disabled: !way.usable, onchange: () => {
          local.set("way", way.provider);
          onPick(way.provider);
        },
      }),
      icon(ICONS[way.provider] ?? "card"),
      h("span", { class: "way-text" },
        h("strong", {}, wayName(way.provider)), h("span", { class: "hint" }, hintOf(way, currency))),
      way.provider === BALANCE && amount(way.has_minor, currency),
      h("span", { class: "tick", "aria-hidden": "true" }, icon("check")))));
}

function hintOf(way, currency) {
  if (way.provider !== BALANCE) return wayHint(way.provider);
  if (way.usable) return t("balanceQuick");
  return way.has_minor > 0 ? t("balanceShort", { price: money(way.lacks_minor, currency) }) : t("balanceEmpty");
}

export function payLabel(way, minor, currency) {
  return t(way?.provider === BALANCE ? "payFromBalance" : "pay", { price: money(minor, currency) });
}
