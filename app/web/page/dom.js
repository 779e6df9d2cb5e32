// Elements without innerHTML: text is always a text node, so nothing that a seller writes can become markup.

const SVG = "http://www.w3.org/2000/svg";

const ICONS = {
  alert: "M12 8v5M12 16.500v.010M10.300 4 2.800 17a2 2 0 0 0 1.700 3h15a2 2 0 0 0 1.700-3L13.700 4a2 2 0 0 0-3.400 0Z",
  back: "M15 5l-7 7 7 7",
  box: "M3.500 8 12 3.500 20.500 8v8L12 20.500 3.500 16ZM3.500 8l8.500 4.500L20.500 8M12 12.500v8M7.700 5.800l8.500 4.500",
  cart: "M3 4h2.200l2.300 11h10.300L20.500 7.500H6M9 20v.010M16.500 20v.010",
  card: "M3.500 6h17v12.500h-17ZM3.500 10h17M7 15h3.500",
  chat: "M5 4.500h14A1.500 1.500 0 0 1 20.500 6v9a1.500 1.500 0 0 1-1.500 1.500h-7L7.500 20.500v-4H5A1.500 1.500 0 0 1 3.500 15V6A1.500 1.500 0 0 1 5 4.500ZM8.500 10.500v.010M12 10.500v.010M15.500 10.500v.010",
  check: "M5 12.500l4.500 4.500L19 7.500",
  clock: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18ZM12 7.500V12l3 2",
  close: "M6 6l12 12M18 6 6 18",
  coin: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18ZM12 7.500l4.500 4.500-4.500 4.500L7.500 12Z",
  copy: "M9 9h10.500v10.500H9ZM5.500 15H4.500V4.500H15v1",
  file: "M6 3.500h8l4.500 4.500v12.500H6ZM14 3.500V8h4.500M12 11.500v5.500M9.500 14.700 12 17l2.500-2.300",
  gift: "M4.500 12v8.500h15V12M3.500 8h17v4h-17ZM12 8v12.500M12 8c-1.500-3-5-4.500-5.500-2.300C6.200 7.300 9 8 12 8c3 0 5.800-.700 5.500-2.300C17 3.500 13.500 5 12 8",
  key: "M14.500 13a4.500 4.500 0 1 0-4.300-3.200L4 16v4h4v-2.500h2.500V15l1.300-1.300c.800.200 1.800-.700 2.700-.700ZM15.500 8v.010",
  link: "M14 4.500h5.500V10M19.500 4.500 11 13M17.500 14v5.500h-13v-13H10",
  list: "M7 3.500h10a1.500 1.500 0 0 1 1.500 1.500v15.500l-3-2-3.500 2-3.500-2-3 2V5A1.500 1.500 0 0 1 7 3.500ZM9 8.500h6M9 12.500h6",
  minus: "M6 12h12",
  plus: "M12 6v12M6 12h12",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14ZM16 16l4.500 4.500",
  send: "M12 19.500v-14M5.500 12 12 5.500l6.500 6.500",
  shield: "M12 3.500 5 6v5.500c0 4.500 3 7.500 7 9 4-1.500 7-4.500 7-9V6ZM9 12l2.200 2.200L15 10",
  shop: "M4.500 9.500 6 4.500h12l1.500 5M4.500 9.500c0 1.500 1 2.500 2.500 2.500s2.500-1 2.500-2.500c0 1.500 1 2.500 2.500 2.500s2.500-1 2.500-2.500c0 1.500 1 2.500 2.500 2.500s2.500-1 2.500-2.500M5.500 14v6h13v-6",
  star: "M12 3.500l2.600 5.400 5.900.800-4.300 4.100 1.100 5.900L12 16.800l-5.300 2.900 1.100-5.900L3.500 9.700l5.900-.800Z",
  share: "M12 15V4M8 7.500 12 3.500l4 4M5 12.500v7.500h14v-7.500",
  trash: "M4.500 7h15M9.500 7V4.500h5V7M6.500 7l.800 13h9.400l.800-13M10.300 11v5.500M13.700 11v5.500",
  trophy: "M7.500 4h9v6a4.500 4.500 0 0 1-9 0ZM7.500 5.500h-4c0 3.500 1.500 5 4.200 5M16.500 5.500h4c0 3.500-1.500 5-4.200 5M12 14.500v3.500M8 20.500c.300-1.800 1.700-2.500 4-2.500s3.700.700 4 2.500Z",
  user: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8ZM4.500 20.500c.700-4 3.700-6 7.500-6s6.800 2 7.500 6",
  wallet: "M18 8V4.500H5.500a2 2 0 0 0 0 3.500h15v12h-15a2 2 0 0 1-2-2V6.200M16.500 14v.010",
};

export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value == null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "vars") Object.entries(value).forEach(([key, text]) => element.style.setProperty(key, text));
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...kids(children));
  return element;
}

function kids(children) {
  return children.flat(Infinity).filter((child) => child != null && child !== false);
}

export function put(element, ...children) {
  element.replaceChildren(...kids(children));
  return element;
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  for (const [key, value] of [["viewBox", "0 0 24 24"], ["class", "icon"], ["aria-hidden", "true"], ["focusable", "false"]]) {
    svg.setAttribute(key, value);
  }
  path.setAttribute("d", ICONS[name] ?? "");
  svg.append(path);
  return svg;
}

export function hidden(text) {
  return h("span", { class: "sr" }, text);
}

let toastTimer = 0;

// Said by screen readers and shown for a moment.
export function toast(text) {
  const place = document.getElementById("toast");
  clearTimeout(toastTimer);
  place.textContent = "";
  requestAnimationFrame(() => {
    place.textContent = text;
    place.classList.add("on");
  });
  toastTimer = setTimeout(() => {
    place.classList.remove("on");
    toastTimer = setTimeout(() => { place.textContent = ""; }, 400);
  }, 2_600);
}
