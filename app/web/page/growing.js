// A list that grows by "show more", the oldest row asking on.

import { h, put } from "./dom.js";
import { t } from "./i18n.js";
import { button, explain, warning } from "./parts.js";

// `rows` are the first page, `size` is that of a full one; `ask(last)` -> the rows after `last`; `row(one)` -> its <li>.
export function growing({ list, rows, size, ask, row, signal }) {
  const foot = h("div", { class: "more" });
  let last = null;
  add(rows);
  return [list, foot];

  function add(fresh) {
    const drawn = fresh.map(row);
    list.append(...drawn);
    last = fresh.at(-1) ?? last;
    put(foot, fresh.length === size && button(t("more"), more, "quiet"));
    return drawn[0];
  }

  async function more(event) {
    const press = event.currentTarget;
    press.disabled = true;
    press.setAttribute("aria-busy", "true");
    let fresh;
    try {
      fresh = await ask(last);
    } catch (error) {
      if (signal.aborted) return;
      const { head, text } = explain(error);
      put(foot, warning(head, text, button(t("retry"), more, "quiet")));
      return;
    }
    if (signal.aborted) return;
    const first = add(fresh);
    (first?.querySelector("a") ?? first)?.focus({ preventScroll: true });
  }
}
