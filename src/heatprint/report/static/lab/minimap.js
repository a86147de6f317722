// The run's map, small and faint, and about where one image lies on it.

import { thumbnail } from "../chooser.js";
import { el, variable } from "../dom.js";
import { short } from "../heat/heat.js";

const WIDE = 300, HIGH = 210, EDGE = 10, COLOURS = 6;
const MOST = 20000; // points that are drawn; of more, one in so many

export function minimap({ run, state }, signal) {
  const canvas = el("canvas", { class: "minimap", role: "img", "aria-label": "Map of the run" });
  const sentence = el("p", { class: "hint" });
  const near = el("ul", { class: "thumbs small" });
  const node = el("div", {}, canvas, sentence, near);
  let place = null, back = null;

  const pca = () => state.get().projection === "pca";
  const scale = Math.min(2, window.devicePixelRatio || 1);

  const every = Math.max(1, Math.ceil(run.count / MOST));

  // the points of the run, drawn once for each theme and projection
  function background() {
    const values = run.columns[pca() ? "pca" : "umap"];
    const box = bounds(values);
    const drawn = el("canvas", { width: WIDE * scale, height: HIGH * scale });
    const pen = drawn.getContext("2d");
    pen.scale(scale, scale);
    pen.globalAlpha = Math.max(0.08, Math.min(0.5, 400 * every / Math.max(1, run.count)));
    const colours = Array.from({ length: COLOURS }, (_, at) => variable(`--class-${at}`));
    for (let row = 0; row < run.count; row += every) {
      pen.fillStyle = colours[Math.max(0, run.columns.label[row]) % COLOURS];
      const [x, y] = box(values[2 * row], values[2 * row + 1]);
      pen.fillRect(x - 1, y - 1, 2, 2);
    }
    return { drawn, box, values };
  }

  function draw() {
    back ??= background();
    canvas.width = WIDE * scale;
    canvas.height = HIGH * scale;
    const pen = canvas.getContext("2d");
    pen.drawImage(back.drawn, 0, 0);
    if (!place) return;
    pen.scale(scale, scale);
    pen.strokeStyle = variable("--ink");
    for (const { row } of place.near) {
      const [x, y] = back.box(back.values[2 * row], back.values[2 * row + 1]);
      pen.beginPath();
      pen.arc(x, y, 4, 0, 2 * Math.PI);
      pen.stroke();
    }
    const [x, y] = back.box(...place[pca() ? "pca" : "umap"]);
    for (const [wide, colour] of [[6, variable("--paper")], [2.5, variable("--accent")]]) {
      pen.lineWidth = wide;
      pen.strokeStyle = colour;
      pen.beginPath();
      pen.moveTo(x - 7, y - 7); pen.lineTo(x + 7, y + 7);
      pen.moveTo(x - 7, y + 7); pen.lineTo(x + 7, y - 7);
      pen.stroke();
    }
  }

  function anew() { back = null; draw(); }
  document.documentElement.addEventListener("heatprint-theme", anew, { signal });

  return {
    node, anew,
    set(found) {
      place = found;
      draw();
      canvas.hidden = !found;
      if (!found) { sentence.textContent = "This run has no map to place the image on."; near.replaceChildren(); return; }
      const kinds = count(found.near.map(({ row }) => `${run.label(row)}, ${run.title(row)}`));
      canvas.setAttribute("aria-label", `Map of the run; the image lies among: ${kinds}.`);
      sentence.textContent = `The cross is about where this image lies, estimated from its ${found.near.length} nearest images (ringed); `
        + `the map is not computed anew.${every > 1 ? ` One in ${every} images of the run is drawn.` : ""}`;
      near.replaceChildren(...found.near.slice(0, 4).map(({ row, distance }) => el("li", {},
        thumbnail(run, row, () => state.set({ row: run.key(row), view: "pair" }), [run.label(row), run.title(row), short(Number(distance.toPrecision(2)))]))));
    },
  };
}

function count(words) {
  const found = new Map();
  for (const word of words) found.set(word, (found.get(word) ?? 0) + 1);
  return [...found].map(([word, times]) => `${times} × ${word}`).join("; ");
}

// From the map's plane to the picture, with room at the edge; a lone point lies in the middle.
function bounds(values) {
  const low = [Infinity, Infinity], high = [-Infinity, -Infinity];
  values.forEach((value, at) => {
    low[at % 2] = Math.min(low[at % 2], value);
    high[at % 2] = Math.max(high[at % 2], value);
  });
  const share = (value, axis) => (high[axis] > low[axis] ? (value - low[axis]) / (high[axis] - low[axis]) : 0.5);
  return (x, y) => [EDGE + share(x, 0) * (WIDE - 2 * EDGE), HIGH - EDGE - share(y, 1) * (HIGH - 2 * EDGE)];
}
