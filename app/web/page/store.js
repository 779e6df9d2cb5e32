// Browser storage that never throws: private windows and sandboxed frames get a map that lives as long as the page.

function area(name) {
  const spare = new Map();
  let real = null;
  try {
    real = window[name];
    real.setItem("torg.probe", "1");
    real.removeItem("torg.probe");
  } catch {
    real = null;
  }
  return {
    get(key) {
      try {
        const raw = real ? real.getItem(`torg.${key}`) : spare.get(key);
        return raw == null ? null : JSON.parse(raw);
      } catch {
        return null;
      }
    },
    set(key, value) {
      const raw = JSON.stringify(value);
      try {
        if (real) real.setItem(`torg.${key}`, raw);
        else spare.set(key, raw);
      } catch {
        spare.set(key, raw);
      }
    },
    drop(key) {
      spare.delete(key);
      try {
        real?.removeItem(`torg.${key}`);
      } catch { /* nothing was kept */ }
    },
  };
}

export const session = area("sessionStorage");
export const local = area("localStorage");
