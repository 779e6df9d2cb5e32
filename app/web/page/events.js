// What the shop tells as it happens. A hint to look, never the truth itself: without it a view asks now and then.

import { api, wait } from "./api.js";

const FIRST_MS = 2_000;
const LAST_MS = 60_000;

// Calls `told(event)` for each event, and `told(null)` where some may have been missed, until `signal` aborts.
// `live()` says whether a stream is open now. A ticket opens one stream, so EventSource must not reopen it by itself.
export function follow(signal, told) {
  let open = false;
  let last = "";
  let pause = FIRST_MS;
  run();
  return { live: () => open };

  async function run() {
    while (!signal.aborted) {
      const problem = await one().catch((error) => error); // no network, too many: the view still asks now and then
      if (problem?.status === -1) return;
      open = false;
      await wait(pause * (0.5 + Math.random()), signal);
      pause = Math.min(pause * 2, LAST_MS);
    }
  }

  // From its beginning to its end.
  async function one() {
    const { ticket } = await api.eventTicket(signal);
    if (signal.aborted) return;
    const source = new EventSource(`/api/events?${new URLSearchParams({ ticket, last_event_id: last })}`);
    const hear = (event, what) => {
      last = event.lastEventId || last;
      told(what);
    };
    source.onopen = () => {
      open = true;
      pause = FIRST_MS;
    };
    source.onmessage = (event) => hear(event, JSON.parse(event.data));
    source.addEventListener("ready", (event) => hear(event, null));
    source.addEventListener("reset", (event) => hear(event, null));
    await new Promise((resolve) => {
      source.onerror = resolve;
      signal.addEventListener("abort", resolve, { once: true });
    });
    source.close();
  }
}
