// Numbers and dates for people. Money stays whole minor units: it is split by integers, never divided into a float.

import { lang } from "./i18n.js";

const shapes = new Map();

function shape(currency) {
  if (!shapes.has(currency)) {
    let format;
    try {
      format = new Intl.NumberFormat(lang, {
        style: "currency", currency, currencyDisplay: "narrowSymbol", minimumFractionDigits: 2, maximumFractionDigits: 2,
      });
    } catch {
      format = new Intl.NumberFormat(lang, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
    }
    shapes.set(currency, format);
  }
  return shapes.get(currency);
}

// [{type, value}] as Intl gives them, the fraction replaced by the exact two digits.
export function moneyParts(minor, currency) {
  const size = Math.abs(minor);
  const cents = size % 100;
  const whole = (size - cents) / 100;
  return shape(currency)
    .formatToParts(minor < 0 ? -whole : whole)
    .map((part) => (part.type === "fraction" ? { ...part, value: String(cents).padStart(2, "0") } : part));
}

export function money(minor, currency) {
  return moneyParts(minor, currency).map((part) => part.value).join("");
}

// What came has a plus, what went a minus.
export function signed(minor, currency) {
  return `${minor < 0 ? "−" : "+"}${money(Math.abs(minor), currency)}`;
}

export function when(iso) {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) return "";
  return new Intl.DateTimeFormat(lang, { dateStyle: "medium", timeStyle: "short" }).format(date);
}

export function day(iso) {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) return "";
  return new Intl.DateTimeFormat(lang, { dateStyle: "medium" }).format(date);
}

export function clock(iso) {
  return new Intl.DateTimeFormat(lang, { timeStyle: "short" }).format(new Date(iso));
}

export function hours(count) {
  const [value, unit] = count >= 48 && count % 24 === 0 ? [count / 24, "day"] : [count, "hour"];
  return new Intl.NumberFormat(lang, { style: "unit", unit, unitDisplay: "long" }).format(value);
}

export function percent(value, digits = 0) {
  return new Intl.NumberFormat(lang, { style: "percent", maximumFractionDigits: digits }).format(value / 100);
}

// 4 -> "4.0"
export function tenths(value) {
  return new Intl.NumberFormat(lang, { minimumFractionDigits: 1, maximumFractionDigits: 1 }).format(value);
}

// 605 -> "10:05"
export function countdown(seconds) {
  const left = Math.max(0, Math.floor(seconds));
  const two = (n) => String(n).padStart(2, "0");
  const h = Math.floor(left / 3600);
  const m = Math.floor((left % 3600) / 60);
  return h ? `${h}:${two(m)}:${two(left % 60)}` : `${m}:${two(left % 60)}`;
}
