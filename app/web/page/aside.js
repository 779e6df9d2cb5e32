// What the consultant has put aside goes into the cart; the server hands it out once.

import { api } from "./api.js";
import { cart } from "./cart.js";
import { toast } from "./dom.js";
import { t } from "./i18n.js";

export async function takeAside() {
  let found;
  try {
    found = await api.takeAside();
  } catch {
    return; // it waits for the next visit
  }
  const put = found.lines.filter(({ product, quantity }) => {
    const had = cart.quantity(product.id);
    return cart.set(product, had + quantity) > had;
  });
  if (put.length) toast(t("putAside", { n: put.length }));
}
