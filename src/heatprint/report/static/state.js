// What is being looked at: one flat object, mirrored in the address so that a link shows the same view.

const DEFAULTS = {
  view: "map", // map, pair, clusters, results, detection, defences, lab
  row: "", // selected image, "kind/id"
  projection: "umap", colour: "kind", // of the map
  kinds: "", // attacks shown, separated by "|"; empty for all
  filter: "all", least: "", // see map/filters.js
  morph: "1", trust: "", density: "", shape: "label", lines: "",
  hide: "", at: "", // entries the legend hides, "label:0.2", and what is in sight, "x,y,scale"; empty for all
  palette: "blue-red", method: "", target: "", overlay: "", // of heat maps: explainer, class, opacity over the image
  base: "", gain: "0", edits: "", origin: "", // the laboratory's specimen, and what a search's result is compared with
};

const SETTLE = 200; // ms: browsers refuse an address that changes too often

export function createState(read = () => location.hash, write = (hash) => history.replaceState(null, "", hash)) {
  let now = { ...DEFAULTS, ...parse(read()) };
  let waiting = 0;
  const listeners = new Set();

  function flush() {
    clearTimeout(waiting);
    waiting = 0;
    try {
      write(spell(now));
    } catch { // too often: once more, later
      waiting = setTimeout(flush, 10 * SETTLE);
    }
  }

  function set(patch) {
    const changed = Object.keys(patch).filter((key) => String(patch[key]) !== now[key]);
    if (!changed.length) return;
    now = { ...now, ...Object.fromEntries(changed.map((key) => [key, String(patch[key])])) };
    if (!waiting) waiting = setTimeout(flush, SETTLE);
    for (const listener of [...listeners]) listener(now, new Set(changed));
  }

  return {
    get: () => now,
    set,
    flush, // writes the address at once
    // called with the state and the set of names that changed; returns how to stop it
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    reload() { if (read().includes("=") || !read()) set({ ...DEFAULTS, ...parse(read()) }); },
  };
}

function parse(hash) {
  const found = Object.fromEntries(new URLSearchParams(hash.replace(/^#/, "")));
  return Object.fromEntries(Object.entries(found).filter(([key]) => key in DEFAULTS));
}

function spell(now) {
  const words = new URLSearchParams(Object.entries(now).filter(([key, value]) => value !== DEFAULTS[key]));
  return `#${words}`;
}
