// The shop's JSON API: one call function, one session, errors as Problem.

import { initData } from "./telegram.js";
import { session } from "./store.js";
import { readEvents } from "./stream.js";

const TIMEOUT_MS = 20_000; // of silence: a stream lives as long as it says something

let skewMs = 0; // server clock minus ours, from the Date header
let signing = null;

// status 0: the answer never came (offline, timeout). status -1: this page knows that it may not ask.
export class Problem extends Error {
  constructor(status, body = {}, retryAfterS = null) {
    super(body.detail || body.title || `HTTP ${status}`);
    this.status = status;
    this.type = body.type ?? "about:blank";
    this.title = body.title ?? "";
    this.detail = body.detail ?? "";
    this.facts = body;
    this.retryAfterS = retryAfterS;
  }
}

export function serverNow() {
  return Date.now() + skewMs;
}

// Session

function liveToken() {
  const kept = session.get("token");
  return kept && Date.parse(kept.expires_at) - serverNow() > 5_000 ? kept.token : null;
}

function signIn() {
  if (!initData) return Promise.reject(new Problem(-1, { type: "/page/no-telegram" }));
  signing ??= send("POST", "/api/session", { body: JSON.stringify({ init_data: initData }) })
    .then((answer) => {
      session.set("token", answer);
      announce("live");
      return answer.token;
    })
    .catch((problem) => {
      if (problem.status === 400 || problem.status === 401) {
        announce("ended");
        throw new Problem(-1, { type: "/page/session-ended" });
      }
      throw problem;
    })
    .finally(() => {
      signing = null;
    });
  return signing;
}

function announce(state) {
  dispatchEvent(new CustomEvent("torg:session", { detail: state }));
}

// Calls

async function send(method, path, { body, token, key, signal, told, cache = "no-store" } = {}) {
  const headers = { Accept: told ? "text/event-stream, application/json" : "application/json" };
  if (body) headers["Content-Type"] = "application/json";
  if (token) headers.Authorization = `Bearer ${token}`;
  if (key) headers["Idempotency-Key"] = key;

  const clock = new AbortController();
  const stop = () => clock.abort();
  let timer = setTimeout(stop, TIMEOUT_MS);
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(stop, TIMEOUT_MS);
  };
  signal?.addEventListener("abort", stop);
  if (signal?.aborted) stop();
  try {
    const response = await fetch(path, { method, headers, body, signal: clock.signal, cache });
    const stamp = Date.parse(response.headers.get("Date") ?? "");
    if (stamp && Math.abs(stamp - Date.now()) > 2_000) skewMs = stamp - Date.now();
    const streamed = told && response.ok && response.body;
    const answer = streamed ? await readEvents(response.body, told, alive) : await readJson(response);
    if (response.ok && answer) return answer;
    const wait = Number(response.headers.get("Retry-After"));
    throw new Problem(response.ok ? 502 : response.status, answer ?? {}, wait > 0 ? wait : null);
  } catch (error) {
    if (error instanceof Problem || signal?.aborted) throw error;
    throw new Problem(0, { type: "/page/unreachable" });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
  }
}

async function readJson(response) {
  const text = await response.text(); // a broken connection must throw, a page that is no JSON must not
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

// As the buyer: signs in when needed, and once more when the token is refused.
async function asBuyer(method, path, options = {}) {
  const token = liveToken() ?? (await signIn());
  try {
    return await send(method, path, { ...options, token });
  } catch (error) {
    if (error.status !== 401) throw error;
    if (session.get("token")?.token === token) session.drop("token");
    return send(method, path, { ...options, token: liveToken() ?? (await signIn()) });
  }
}

// Open to everybody: a token is shown if we have one, and left out if it is refused.
async function asAnyone(path, signal) {
  const token = liveToken();
  try {
    return await send("GET", path, { token, signal, cache: "no-cache" });
  } catch (error) {
    if (error.status !== 401 || !token) throw error;
    session.drop("token");
    return send("GET", path, { signal, cache: "no-cache" });
  }
}

export const api = {
  signIn: () => (liveToken() ? Promise.resolve() : signIn()),

  catalog({ query, category, cursor, limit = 24 }, signal) {
    const asked = new URLSearchParams({ limit });
    if (query) asked.set("query", query);
    if (category) asked.set("category", category);
    if (cursor) asked.set("cursor", cursor);
    return asAnyone(`/api/catalog?${asked}`, signal);
  },
  product: (id, signal) => asAnyone(`/api/products/${encodeURIComponent(id)}`, signal),
  reviews(id, { cursor, limit }, signal) {
    const asked = new URLSearchParams({ limit });
    if (cursor) asked.set("cursor", cursor);
    return asAnyone(`/api/products/${encodeURIComponent(id)}/reviews?${asked}`, signal);
  },
  review: (id, body) => asBuyer("PUT", `/api/products/${encodeURIComponent(id)}/review`, { body: JSON.stringify(body) }),
  me: (signal) => asBuyer("GET", "/api/me", { signal }),
  balance({ before, limit }, signal) {
    const asked = new URLSearchParams({ limit });
    if (before) asked.set("before", before);
    return asBuyer("GET", `/api/balance?${asked}`, { signal });
  },
  referrals: (signal) => asBuyer("GET", "/api/referrals", { signal }),
  leaderboard: (asked, signal) => asAnyone(`/api/leaderboard?${new URLSearchParams(asked)}`, signal),
  createOrder: (body, key) => asBuyer("POST", "/api/orders", { body, key }),
  orders({ before, limit }, signal) {
    const asked = new URLSearchParams({ limit });
    if (before) asked.set("before", before);
    return asBuyer("GET", `/api/orders?${asked}`, { signal });
  },
  order: (id, signal) => asBuyer("GET", `/api/orders/${encodeURIComponent(id)}`, { signal }),
  payOrder: (id, body, key) => asBuyer("POST", `/api/orders/${encodeURIComponent(id)}/payments`, { body, key }),
  cancelOrder: (id) => asBuyer("PATCH", `/api/orders/${encodeURIComponent(id)}/status`, { body: JSON.stringify({ status: "cancelled" }) }),
  orderCame: (id) => asBuyer("PATCH", `/api/orders/${encodeURIComponent(id)}/status`, { body: JSON.stringify({ status: "delivered" }) }),
  chatSoFar: (signal) => asBuyer("GET", "/api/chat", { signal }),
  chat: (body, told, signal) => asBuyer("POST", "/api/chat", { body: JSON.stringify(body), told, signal }),
  takeAside: () => asBuyer("POST", "/api/cart/take"),
  eventTicket: (signal) => asBuyer("POST", "/api/events/ticket", { signal }),
  goods: (id, signal) => asBuyer("GET", `/api/orders/${encodeURIComponent(id)}/goods`, { signal }),
};

// Milliseconds until the same call is worth repeating by itself; null: say it to the buyer.
export function pauseBefore({ status, type, retryAfterS }, call) {
  if (type === "/problems/in-progress") return Math.min((retryAfterS ?? 1) * 1_000, 10_000);
  if (status === 503 && call < 3) return Math.min((retryAfterS ?? call) * 1_000, 5_000);
  if (status === 429 && retryAfterS && retryAfterS <= 5) return retryAfterS * 1_000;
  return null;
}

export function wait(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}
