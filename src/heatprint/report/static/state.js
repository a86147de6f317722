// What is being looked at: one flat object, mirrored in the address so that a link shows the same view.

const DEFAULTS = {
  view: "map", // map, pair, clusters, results, detection, defences, lab
  row: "", // selected image, "kind/id"
  projection: "umap", colour: "kind", // of the map
  kinds: "", // attacks shown, separated by "|"; empty for all
  filter: "all", least: "", // see map/filters.js
  morph: "1", trust: "", density: "", shape: "label", lines: "",
  palette: "blue-red", method: "", target: "", overlay: "", // of heat maps: explainer, class, opacity over the image
  base: "", gain: "0", edits: "", origin: "", // the laboratory's specimen, and what a search's result is compared with
};

export function createState(read = () => location.hash, write = (hash) => history.replaceState(null, "", hash)) {
  let now = { ...DEFAULTS, ...parse(read()) };
  const listeners = new Set();

  function set(patch) {
    const changed = Object.keys(patch).filter((key) => String(patch[key]) !== now[key]);
    if (!changed.length) return;
    now = { ...now, ...Object.fromEntries(changed.map((key) => [key, String(patch[key])])) };
    write(spell(now));
    for (const listener of [...listeners]) listener(now, new Set(changed));
  }

  return {
    get: () => now,
    set,
    // called with the state and the set of names that changed; returns how to stop it
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    reload() { set({ ...DEFAULTS, ...parse(read()) }); },
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
