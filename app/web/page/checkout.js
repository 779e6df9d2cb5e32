// Buying one cart, or paying one order another way, exactly once.
// The Idempotency-Key belongs to one attempt at one body: it is stored before the first call, every repeat carries it,
// and only a final answer lets it go. A changed cart (or way to pay) is another attempt and gets another key.

import { Problem, api, pauseBefore, wait } from "./api.js";
import { session } from "./store.js";

const PATIENCE = 6; // calls, the first included
const FINAL = new Set([400, 403, 404, 413, 415, 422]);

// -> {order, payment}; throws Problem. `onWait` is told when the page repeats by itself.
// A problem that names an `order_id` left that order standing: it is paid from its own page, not by buying once more.
export function buy(group, { provider, promo }, onWait) {
  const lines = group.lines.map((line) => ({ product_id: line.id, quantity: line.quantity }));
  const body = JSON.stringify(promo ? { lines, provider, promo } : { lines, provider });
  return insist(`attempt.${group.key}`, body, api.createOrder, onWait);
}

// What an offer says is what is bought: product, quantity and price are in its token.
export function buyOffer(offer, provider, onWait) {
  return insist(`offer.${offer}`, JSON.stringify({ offer, provider }), api.createOrder, onWait);
}

export function payAgain(id, provider, onWait) {
  return insist(`pay.${id}`, JSON.stringify({ provider }), (body, key) => api.payOrder(id, body, key), onWait);
}

async function insist(slot, body, send, onWait) {
  const kept = session.get(slot);
  const key = kept?.body === body ? kept.key : newKey();
  session.set(slot, { key, body });

  for (let call = 1; ; call += 1) {
    try {
      const answer = await send(body, key);
      session.drop(slot);
      return answer;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (isFinal(error)) session.drop(slot);
      const pause = call < PATIENCE ? pauseBefore(error, call) : null;
      if (pause == null && error.facts.order_id) session.drop(slot);
      if (pause == null) throw error;
      onWait();
      await wait(pause);
    }
  }
}

function isFinal({ status, type }) {
  if (status === 409) return type !== "/problems/in-progress";
  return FINAL.has(status);
}

// randomUUID exists only on https and localhost; a shop tried out over plain http on a LAN has getRandomValues.
export function newKey() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
