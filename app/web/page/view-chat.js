// The chat: what is asked, and the answer as it grows. A question has an id of ours, and under it there is one answer: a
// connection that broke, or a view that was left too soon, asks again with the same id.

import { Problem, api, pauseBefore, wait } from "./api.js";
import { takeAside } from "./aside.js";
import { newKey } from "./checkout.js";
import { h, hidden, icon, put } from "./dom.js";
import { follow } from "./events.js";
import { clock, when } from "./format.js";
import { lang, t } from "./i18n.js";
import { offerCard } from "./offer.js";
import { blank, button, explain, failure, loading, skeleton, title, warning } from "./parts.js";
import { session } from "./store.js";
import { initData, tap } from "./telegram.js";

const MOST_TEXT = 2000;
const PATIENCE = 8; // calls, the first included
const NEAR_PX = 160; // from the end: who reads there wants to see what comes
const IDEAS = ["ideaNew", "ideaGift", "ideaOrder"];
const OFFERED_MS = 15 * 60_000; // what an offer is good for
const LOST = new Set([400, 403, 413, 422]); // the same question again would be refused again
const OF_HUMANS = new Set(["agent", "system"]);

export async function chat({ root, signal, params: [about], go, rerun }) {
  if (!initData) {
    put(root, title(t("chat"), "sr"), blank("chat", t("chatGuest"), t("noTelegram")));
    return;
  }
  put(root, title(t("chat"), "sr"), loading(skeleton(3, "row-like")));
  let seen = 0; // id of the latest message that the shop has told
  let busy = false;
  const list = h("ol", { class: "talk" });
  const notes = h("div", { class: "chat-notes" });
  const heard = h("div", { class: "sr", role: "log", "aria-live": "polite" }); // what is read aloud, sentence by sentence
  const field = h("textarea", {
    id: "ask", rows: "1", maxlength: MOST_TEXT, placeholder: t("chatField"), enterkeyhint: "send", autocomplete: "off",
    oninput: fit, onkeydown: typed,
  });
  const press = h("button", { class: "plus has", "aria-label": t("send") }, icon("send"));
  const form = h("form", { class: "composer", novalidate: true, onsubmit: submit },
    h("label", { class: "sr", for: "ask" }, t("chatField")), field, press);

  let so;
  try {
    so = await api.chatSoFar(signal);
  } catch (error) {
    if (!signal.aborted) put(root, title(t("chat"), "sr"), failure(error, rerun));
    return;
  }
  put(root, title(t("chat"), "sr"), notes, list, heard, form);
  so.messages.forEach(old);
  offerAgain(so.messages);
  escalated(so.escalated);
  follow(signal, (event) => (!event || event.type === "chat:message") && refresh());
  keepAboveKeyboard(form, signal);
  takeUp(so.messages);
  if (about && !busy) prefill();
  if (!list.children.length) greet();
  toEnd();

  function old({ id, role, text, at }) {
    list.append(bubble(role, text, at));
    seen = id;
  }

  // The latest offers can still be pressed, wherever the buyer was meanwhile: the shop tells them only once.
  function offerAgain(messages) {
    const kept = session.get("offered");
    if (!kept || Date.now() > kept.until) return;
    const place = messages.findLastIndex(({ role, text }) => role === "assistant" && text === kept.text);
    if (place >= 0 && kept.offers.length) list.children[place].append(cards(kept.offers));
  }

  function cards(offers) {
    return h("div", { class: "offers" }, offers.map((one) => offerCard(one, { signal, go, onOver: () => over(one) })));
  }

  // Ordered, or not to be had: pressed once more it would be another order.
  function over({ token }) {
    const kept = session.get("offered");
    if (kept) session.set("offered", { ...kept, offers: kept.offers.filter((other) => other.token !== token) });
  }

  // A question that was left before its answer was there.
  function takeUp(messages) {
    const asked = session.get("asked");
    if (!asked) return;
    const last = messages.findLastIndex(({ role }) => role === "user");
    const stored = messages[last]?.text === asked.text;
    if (stored && last < messages.length - 1) session.drop("asked");
    else answer(asked, stored);
  }

  // What a human of the shop wrote meanwhile; the rest was written here.
  async function refresh() {
    const now = await api.chatSoFar(signal).catch(() => null);
    if (!now || signal.aborted) return;
    const fresh = now.messages.filter(({ role, id }) => id > seen && OF_HUMANS.has(role));
    const follows = nearEnd();
    fresh.forEach((message) => {
      list.append(bubble(message.role, message.text, message.at));
      say(message.text);
    });
    seen = now.messages.at(-1)?.id ?? seen;
    escalated(now.escalated);
    if (fresh.length && follows) toEnd();
  }

  function greet() {
    const ideas = h("div", { class: "ideas" }, IDEAS.map((key) => h("button", {
      type: "button", class: "chip", onclick: () => ask(t(key)),
    }, t(key))));
    list.append(bubble("assistant", t("chatHello")), h("li", { class: "aside greeting" }, ideas));
  }

  async function prefill() {
    const item = await api.product(about, signal).catch(() => null);
    if (!item || signal.aborted || field.value) return;
    field.value = t("askAbout", { title: item.title });
    fit();
    field.focus({ preventScroll: true });
    field.setSelectionRange(field.value.length, field.value.length);
  }

  function fit() {
    field.style.height = "auto";
    field.style.height = `${field.scrollHeight + 2}px`;
  }

  function typed(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  }

  function submit(event) {
    event.preventDefault();
    const text = field.value.trim();
    if (!text || busy) return;
    field.value = "";
    fit();
    ask(text);
  }

  function ask(text) {
    if (busy) return;
    tap();
    list.querySelector(".greeting")?.remove();
    const asked = { id: newKey(), text };
    session.set("asked", asked);
    answer(asked, false);
  }

  // Until the question has its answer; `shown`: it is on the page.
  async function answer(asked, shown) {
    busy = true;
    press.disabled = true;
    if (!shown) list.append(bubble("user", asked.text));
    const place = h("li", { class: "said-in shop" });
    list.append(place);
    put(place, thinking());
    put(heard);
    toEnd();
    for (let call = 1; !signal.aborted; call += 1) {
      try {
        await once(asked, place);
        session.drop("asked");
        break;
      } catch (problem) {
        if (signal.aborted) return;
        const pause = call < PATIENCE ? pauseAfter(problem, call) : null;
        if (pause == null) {
          give(asked, place, problem);
          break;
        }
        put(place, thinking());
        await wait(pause, signal);
        while (navigator.onLine === false && !signal.aborted) await wait(500, signal);
      }
    }
    busy = false;
    press.disabled = false;
  }

  // One call: the answer grows in `place`. Throws Problem, also when the stream ends before it has come to its end.
  async function once(asked, place) {
    let whole = "";
    let told = 0; // of it, aloud
    let end = null;
    const offers = [];
    const words = h("p", { class: "words" });
    put(place, thinking());
    const grow = (text) => {
      const follows = nearEnd();
      whole = text;
      words.textContent = text;
      if (!words.isConnected) put(place, h("div", { class: "bubble-in" }, words));
      const sentence = /^[^]*[.!?…\n](?=\s)/.exec(whole.slice(told))?.[0];
      if (sentence) {
        say(sentence);
        told += sentence.length;
      }
      if (follows) toEnd();
    };
    await api.chat({ ...asked, language: lang }, (kind, what) => {
      if (kind === "chunk") grow(whole + what.text);
      if (kind === "replace") {
        told = 0;
        grow(what.text);
      }
      if (kind === "offer") offers.push(what);
      if (kind === "done") end = what;
      if (kind === "error") throw new Problem(what.status, what);
    }, signal);
    if (!end) throw new Problem(0, { type: "/page/unreachable" });
    say(whole.slice(told));
    finish(place, words, offers, end);
  }

  function finish(place, words, offers, { state, by, escalated: human }) {
    const follows = nearEnd();
    if (!words.textContent) put(place, h("p", { class: "hint" }, icon(human ? "user" : "check"), t(state === "duplicate" ? "chatAgain" : "chatWaits")));
    else place.querySelector(".bubble-in").append(stamp(new Date().toISOString()));
    if (offers.length) {
      session.set("offered", { text: words.textContent, offers, until: Date.now() + OFFERED_MS });
      place.append(cards(offers));
    }
    escalated(human);
    if (by === "model") takeAside();
    if (follows) toEnd();
  }

  function give(asked, place, problem) {
    if (LOST.has(problem.status)) session.drop("asked");
    const { head, text } = problem.type === "/problems/in-progress" ? { head: t("chatSlow"), text: "" } : explain(problem);
    put(place, warning(head, text, button(t("retry"), () => {
      place.remove();
      answer(asked, true);
    }, "quiet")));
    if (nearEnd()) toEnd();
  }

  function say(text) {
    if (text.trim()) heard.append(h("p", {}, text));
  }

  function escalated(on) {
    put(notes, on && h("p", { class: "notice strong", role: "status" }, icon("user"), t("chatHuman")));
  }
}

function bubble(role, text, at) {
  const mine = role === "user";
  return h("li", { class: `said-in ${mine ? "mine" : "shop"}` }, h("div", { class: "bubble-in" },
    hidden(t(mine ? "you" : "shop") + ": "),
    OF_HUMANS.has(role) && h("p", { class: "who" }, icon("user"), t("chatTeam")),
    h("p", { class: "words" }, text), at && stamp(at)));
}

function stamp(at) {
  return h("time", { datetime: at, title: when(at) }, clock(at));
}

function thinking() {
  return h("div", { class: "bubble-in waits" }, hidden(t("chatThinks")), [1, 2, 3].map(() => h("span", { class: "wait-dot", "aria-hidden": "true" })));
}

// A connection that broke is worth more calls than any other refusal: the answer may be there by now.
function pauseAfter(problem, call) {
  if (!(problem instanceof Problem)) throw problem;
  return problem.status === 0 ? Math.min(call * 1_000, 5_000) : pauseBefore(problem, call);
}

function nearEnd() {
  return document.documentElement.scrollHeight - scrollY - innerHeight < NEAR_PX;
}

function toEnd() {
  scrollTo(0, document.documentElement.scrollHeight);
}

// Where the keyboard lies over the page instead of making it smaller (iOS), the field moves up by as much.
function keepAboveKeyboard(form, signal) {
  const view = window.visualViewport;
  if (!view) return;
  const move = () => form.style.setProperty("--keys", `${Math.max(0, innerHeight - view.height - view.offsetTop)}px`);
  for (const what of ["resize", "scroll"]) view.addEventListener(what, move, { signal });
}
