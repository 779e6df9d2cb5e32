// Rating a product: stars, and words for who likes. A later rating replaces the earlier one, so a repeat does no harm.

import { Problem, api, pauseBefore, wait } from "./api.js";
import { h, icon, put, toast } from "./dom.js";
import { t } from "./i18n.js";
import { backLink, blank, cover, explain, failure, loading, skeleton, title, warning } from "./parts.js";
import { local } from "./store.js";
import { initData, tap, user } from "./telegram.js";

const MOST_TEXT = 2000;
const PATIENCE = 4; // calls, the first included

// The API does not tell which review is one's own: what was sent from this device starts the next form.
const slot = (id) => `rated.${user.id}.${id}`;

// "Rate it", or "Change your rating" once that was done.
export function rateLink({ id, title: named }, look = "button quiet") {
  const word = local.get(slot(id)) ? "rateAgain" : "rateIt";
  return h("a", { class: look, href: `#/p/${id}/rate`, "aria-label": t(`${word}Named`, { title: named }) },
    icon("star"), t(word));
}

export async function rate({ root, signal, params: [id], rerun, back }) {
  const up = backLink(`#/p/${id}`, t("back"));
  up.addEventListener("click", (event) => {
    event.preventDefault(); // the way here may have been an order's
    back(`/p/${id}`);
  });
  if (!initData) {
    put(root, up, blank("user", t("noTelegram")));
    return null;
  }
  put(root, up, loading(skeleton(3, "row-like")));
  let item = null; // off the shelf: who has the goods may rate them all the same
  try {
    item = await api.product(id, signal);
  } catch (error) {
    if (signal.aborted) return null;
    if (error.status !== 404) {
      put(root, up, failure(error, rerun));
      return null;
    }
  }
  const head = item ? t("rateItNamed", { title: item.title }) : t("rateIt");
  put(root, up, form({ id, item, signal, back }));
  return { title: head };
}

function form({ id, item, signal, back }) {
  const kept = local.get(slot(id)) ?? { rating: 0, text: "" };
  const trouble = h("div", {});
  const words = h("textarea", { id: "words", rows: "5", maxlength: MOST_TEXT, "aria-describedby": "words-note" }, kept.text);
  const press = h("button", { class: "button main wide" }, t("send"));
  const picks = starPicks(kept.rating, () => put(trouble));
  return h("form", { class: "panel rate", novalidate: true, onsubmit: send },
    h("div", { class: "rate-head" }, item && cover(item, "small"), title(item ? item.title : t("rateIt"))),
    picks,
    h("div", {}, h("label", { for: "words" }, t("yourWords")), words, h("p", { class: "hint", id: "words-note" }, t("wordsNote"))),
    trouble, press);

  async function send(event) {
    event.preventDefault();
    if (press.disabled) return;
    const picked = picks.querySelector(":checked");
    if (!picked) {
      put(trouble, warning(t("pickStars")));
      picks.querySelector("input").focus();
      return;
    }
    const given = { rating: Number(picked.value), text: words.value.trim() };
    busy(true);
    put(trouble);
    try {
      const { rating, ratings } = await insist(id, given);
      local.set(slot(id), given);
      dispatchEvent(new CustomEvent("torg:rated", { detail: { id: Number(id), rating, ratings } }));
      toast(t("thanks"));
      if (!signal.aborted) back(`/p/${id}`);
    } catch (problem) {
      busy(false);
      const { head, text } = refusal(problem);
      put(trouble, warning(head, text));
    }
  }

  function busy(on) {
    press.disabled = on;
    press.setAttribute("aria-busy", String(on));
    press.textContent = t(on ? "sending" : "send");
  }
}

// Five radio buttons; the stars up to the chosen one are lit.
function starPicks(chosen, onPick) {
  const place = h("fieldset", { class: "star-picks", onchange: () => { light(); tap(); onPick(); } }, h("legend", {}, t("yourStars")),
    h("div", {}, [1, 2, 3, 4, 5].map((n) => h("label", { class: "star" },
      h("input", { type: "radio", class: "sr", name: "rating", value: n, checked: n === chosen, "aria-label": t("starCount", { n }) }),
      icon("star")))));
  light();
  return place;

  function light() {
    const most = Number(place.querySelector(":checked")?.value ?? 0);
    place.querySelectorAll(".star").forEach((star, at) => star.classList.toggle("on", at < most));
  }
}

function refusal(problem) {
  if (problem.status === 403) return { head: t("notBuyer"), text: t("notBuyerHint") };
  if (problem.status === 404) return { head: t("noProduct"), text: "" };
  return explain(problem);
}

async function insist(id, given) {
  for (let call = 1; ; call += 1) {
    try {
      return await api.review(id, given);
    } catch (error) {
      const pause = error instanceof Problem && call < PATIENCE ? pauseBefore(error, call) : null;
      if (pause == null) throw error;
      toast(t("stillSending"));
      await wait(pause);
    }
  }
}
