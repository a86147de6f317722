// The map and the pairs inside a report: the same views as the inspector's, with everything in the page itself.

import { unpack } from "./data.js";
import { el } from "./dom.js";
import { show as showMap } from "./map/view.js";
import { show as showPair } from "./pair/view.js";
import { createState } from "./state.js";

const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

async function start(told, root) {
  const sheet = new Image();
  sheet.src = told.sheet;
  await sheet.decode();
  const run = unpack(told.facts, bytes(told.points).buffer, thumbnails(sheet, told));
  run.heat = smallMaps(told);
  run.thumbnails = true; // too small to measure a change by
  const state = createState(() => "", () => {}); // the page's address belongs to its sections
  const map = el("div", { class: "explore-map" }), pair = el("div", { class: "explore-pair", hidden: true });
  const status = el("p", { class: "status", role: "status", "aria-live": "polite" });
  root.replaceChildren(map, status, pair);
  const shared = { run, state, say: (words) => { status.textContent = words; } };
  showMap(map, shared);
  let shown = false;
  state.subscribe((now, changed) => {
    if (now.row && !shown) {
      shown = true;
      pair.hidden = false;
      showPair(pair, shared);
    }
    if (changed.has("view") && now.view === "pair") {
      state.set({ view: "map" });
      pair.scrollIntoView({ block: "start" });
    }
  });
}

// row -> address of its tile, cut out of the sheet when it is first asked for
function thumbnails(sheet, { tile, across }) {
  const known = new Map();
  return (row) => {
    if (!known.has(row)) {
      const canvas = el("canvas", { width: tile, height: tile });
      canvas.getContext("2d").drawImage(
        sheet, (row % across) * tile, Math.floor(row / across) * tile, tile, tile, 0, 0, tile, tile);
      known.set(row, canvas.toDataURL());
    }
    return known.get(row);
  };
}

// row -> { side, values }, or undefined where the run stored none
function smallMaps({ side, scales, heat }) {
  const most = new Float32Array(bytes(scales).buffer), levels = new Int8Array(bytes(heat).buffer);
  return (row) => most[row] ? {
    side, values: Float32Array.from(levels.subarray(row * side * side, (row + 1) * side * side), (v) => v * most[row] / 127),
  } : undefined;
}

const holder = document.getElementById("explore-data");
if (holder) {
  const root = document.getElementById("explore-root");
  start(JSON.parse(holder.textContent), root).catch((error) => {
    root.replaceChildren(el("p", { class: "empty" }, `The map could not be drawn: ${error.message}`));
    throw error;
  });
}
