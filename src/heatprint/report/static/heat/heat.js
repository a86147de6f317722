// Heat maps: { side, values }, values a Float32Array of side * side signed numbers, row after row.

import { el } from "../dom.js";
import { diverging, place, sequential } from "./palettes.js";

const QUANTILE = 0.995; // of |relevance|: a single loud pixel must not drown the rest

// Little-endian float32 in base64, as the server sends it.
export function floats(text) {
  const bytes = bytesOf(text);
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, at) => view.getFloat32(4 * at, true));
}

export const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

// The number that the ends of the palette stand for, one for all these maps.
export function limitOf(maps, share = QUANTILE) {
  const all = new Float32Array(maps.reduce((sum, map) => sum + map.values.length, 0));
  let at = 0;
  for (const { values } of maps) for (const value of values) all[at++] = Math.abs(value);
  all.sort();
  return all.length ? all[Math.min(all.length - 1, Math.ceil(share * all.length) - 1)] || all[all.length - 1] : 0;
}

export const difference = (clean, attacked) => ({
  side: clean.side, values: attacked.values.map((value, at) => value - clean.values[at]),
});

// Draw a map; with `under` (pixels of the image) it lies over the image, as opaque as `opacity`.
export function paintHeat(canvas, map, { limit, palette, under = null, opacity = 1 }) {
  const colours = diverging(palette);
  paint(canvas, map, (value) => colours.subarray(place(limit > 0 ? (value / limit + 1) / 2 : 0.5)), under, opacity);
}

// Draw numbers from 0 to `limit`.
export function paintReach(canvas, map, { limit, under = null, opacity = 1 }) {
  const colours = sequential();
  paint(canvas, map, (value) => colours.subarray(place(limit > 0 ? value / limit : 0)), under, opacity);
}

function paint(canvas, { side, values }, colour, under, opacity) {
  const size = under ? under.side : side;
  canvas.width = canvas.height = size;
  const drawn = new ImageData(size, size);
  const share = under ? opacity : 1;
  for (let row = 0; row < size; row++) {
    for (let col = 0; col < size; col++) {
      const at = 4 * (row * size + col);
      const rgb = colour(values[Math.floor(row * side / size) * side + Math.floor(col * side / size)]);
      for (let band = 0; band < 3; band++) {
        drawn.data[at + band] = share * rgb[band] + (under ? (1 - share) * under.data[at + band] : 0);
      }
      drawn.data[at + 3] = 255;
    }
  }
  canvas.getContext("2d").putImageData(drawn, 0, 0);
}

// A map in words: where most of it lies and where its peak is.
export function heatWords({ side, values }) {
  const quarters = [0, 0, 0, 0];
  let total = 0, peak = 0;
  values.forEach((value, at) => {
    const lower = Math.floor(at / side) >= side / 2, right = at % side >= side / 2;
    quarters[2 * lower + right] += Math.abs(value);
    total += Math.abs(value);
    if (Math.abs(value) > Math.abs(values[peak])) peak = at;
  });
  if (!total) return "It is zero everywhere.";
  const names = ["upper left", "upper right", "lower left", "lower right"];
  const most = quarters.indexOf(Math.max(...quarters));
  const sign = values[peak] > 0 ? "for" : "against";
  return `${Math.round(100 * quarters[most] / total)} % of |relevance| in the ${names[most]} quarter; `
    + `peak (${sign} the class) at row ${Math.floor(peak / side)}, column ${peak % side}.`;
}

// Share of |relevance| at changed pixels, and the share of the area that they are; null where there is nothing to say.
export function massAt(map, changed, side) {
  const cells = new Set(changed.map((at) => {
    const row = Math.floor(Math.floor(at / side) * map.side / side);
    return row * map.side + Math.floor(at % side * map.side / side);
  }));
  let inside = 0, total = 0;
  map.values.forEach((value, at) => { total += Math.abs(value); if (cells.has(at)) inside += Math.abs(value); });
  return cells.size && total ? { mass: inside / total, area: cells.size / map.values.length } : null;
}

// Three or four figures, and powers of ten where they are shorter.
export function short(value) {
  if (!value) return "0";
  const size = Math.abs(value);
  return size >= 1e4 || size < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
}

// A palette with numbers at its ends; ticks are [share, words].
export function colourBar(words, colours, ticks) {
  const steps = colours.length / 3;
  const canvas = el("canvas", { width: steps, height: 1, "aria-hidden": "true" });
  const strip = new ImageData(steps, 1);
  for (let at = 0; at < steps; at++) {
    strip.data.set([...colours.subarray(3 * at, 3 * at + 3), 255], 4 * at);
  }
  canvas.getContext("2d").putImageData(strip, 0, 0);
  return el("div", { class: "colour-bar" },
    canvas, el("p", { class: "ends" }, ...ticks.map((tick) => el("span", {}, tick))), el("p", { class: "hint" }, words));
}

export const heatBar = (limit, palette, words) =>
  colourBar(words, diverging(palette), [`−${short(limit)}`, "0", `+${short(limit)}`]);
