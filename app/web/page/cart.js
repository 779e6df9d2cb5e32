// The cart: kept on the device, grouped by seller, because an order has one seller (and one currency).

import { local } from "./store.js";

const MOST = 99;

const FIELDS = ["id", "title", "kind", "category", "currency", "price_minor", "list_price_minor", "left"];
let lines = (local.get("cart") ?? []).filter(sound);

function sound(line) {
  return Number.isInteger(line?.id) && Number.isInteger(line.price_minor) && line.quantity > 0 && line.seller?.id != null;
}

function keep() {
  local.set("cart", lines);
  dispatchEvent(new CustomEvent("torg:cart"));
}

addEventListener("storage", (event) => {
  if (event.key !== "torg.cart") return;
  lines = (local.get("cart") ?? []).filter(sound);
  dispatchEvent(new CustomEvent("torg:cart"));
});

function room(left) {
  return left == null ? MOST : Math.min(MOST, left);
}

export const cart = {
  count: () => lines.reduce((sum, line) => sum + line.quantity, 0),
  quantity: (id) => lines.find((line) => line.id === id)?.quantity ?? 0,
  room: (product) => room(product.left),

  // [{key, seller, currency, lines, total_minor}]
  groups() {
    const found = new Map();
    for (const line of lines) {
      const key = `${line.seller.id}.${line.currency}`;
      if (!found.has(key)) found.set(key, { key, seller: line.seller, currency: line.currency, lines: [], total_minor: 0 });
      const group = found.get(key);
      group.lines.push(line);
      group.total_minor += line.price_minor * line.quantity;
    }
    return [...found.values()];
  },

  // Puts `quantity` of the product in the cart (0 takes it out) and returns how many are in.
  set(product, quantity) {
    const count = Math.max(0, Math.min(quantity, room(product.left)));
    const at = lines.findIndex((line) => line.id === product.id);
    if (count === 0) lines = lines.filter((line) => line.id !== product.id);
    else {
      const line = { ...pick(product), seller: { id: product.seller.id, name: product.seller.name }, quantity: count };
      lines = at < 0 ? [...lines, line] : lines.map((old, i) => (i === at ? line : old));
    }
    keep();
    return count;
  },

  add: (product) => cart.set(product, cart.quantity(product.id) + 1),

  clear(group) {
    const bought = new Set(group.lines.map((line) => line.id));
    lines = lines.filter((line) => !bought.has(line.id));
    keep();
  },

  // Today's product over what the cart remembers. Returns what the buyer must be told, or null.
  refresh(id, product) {
    const line = lines.find((old) => old.id === id);
    if (!line) return null;
    if (!product || product.left === 0) {
      cart.set(line, 0);
      return { said: product ? "goneSoldOut" : "goneForGood", title: line.title };
    }
    const count = cart.set(product, line.quantity);
    if (count < line.quantity) return { said: "lessLeft", title: line.title, n: count };
    if (product.price_minor !== line.price_minor) return { said: "priceChanged", title: line.title, product };
    return null;
  },

  // After "out of stock": {"<product id>": units left}.
  shrink(left) {
    return lines
      .filter((line) => Number.isInteger(left?.[line.id]) && left[line.id] < line.quantity)
      .map((line) => cart.refresh(line.id, { ...line, left: Math.max(0, left[line.id]) }));
  },
};

function pick(product) {
  return Object.fromEntries(FIELDS.map((name) => [name, product[name] ?? null]));
}
