// What colours and shapes say: for each choice a code for every row, and an entry of the legend for every code.

import { variable } from "../dom.js";
import { SHAPES } from "./shapes.js";

const MARKS = 12; // colours of categories, --mark-0 ... --mark-11 in map.css
export const UNKNOWN = 255; // the code of rows without a value
const TOP = 254; // codes 0 ... TOP of a continuous scale

// A scale on which more stands out more from the ground, and that the colour-blind read as well (viridis, in part).
const STOPS = {
  light: ["#9fd63f", "#35b779", "#1f9e89", "#26828e", "#31688e", "#414487", "#440154"],
  dark: ["#46418a", "#3b6b9a", "#2a8f99", "#28b08a", "#62cc66", "#a8dc4b", "#fde725"],
};

export const CONTINUOUS = {
  confidence: "Confidence",
  gain: "Minimal gain (levels)",
  preserved: "Neighbourhood trust",
  moved: "Heat map moved",
  score: "Detector score",
};
const NAMED = {
  kind: "Attack", label: "True class", predicted: "Prediction", success: "Outcome", strategy: "Strategy",
};

const known = (value) => Number.isFinite(value);
const someKnown = (column, least = -Infinity) => column && column.some((value) => known(value) && value >= least);

// Choices this run has data for, as [name, words].
export function colourChoices(run) {
  const { columns } = run;
  return [...Object.entries(NAMED), ...Object.entries(CONTINUOUS)].filter(([name]) => {
    if (name === "success") return columns.success;
    return someKnown(columns[name], name in NAMED || name === "gain" ? 0 : -Infinity);
  });
}

// A loop: Uint8Array.from with a function takes ten times as long, which a million rows make felt.
function codesOf(values, code) {
  const codes = new Uint8Array(values.length);
  for (let row = 0; row < values.length; row++) codes[row] = code(values[row]);
  return codes;
}

const OUTCOMES = [
  ["original that held", "--held"], ["original that fell", "--fell"], ["original, wrong before", "--wrong-before"],
  ["copy that succeeded", "--copy"], ["copy that failed", "--other"],
];
function outcomes(run) {
  const { success, label, predicted } = run.columns;
  return success.map((fell, row) => {
    if (!run.isClean(row)) return fell ? 3 : 4;
    return predicted[row] !== label[row] ? 2 : Number(fell > 0);
  });
}

const markOf = (place) => (place < MARKS ? `--mark-${place}` : "--faint");
// Categories that share the colour of the rest say so in the legend.
function categories(names, values) {
  const extra = names.length > MARKS;
  const kept = extra ? MARKS - 1 : names.length;
  const entries = names.slice(0, kept).map((words, code) => ({ code, words, colour: markOf(code) }));
  if (extra) entries.push({ code: kept, words: `${names.length - kept} others`, colour: "--faint" });
  const codes = codesOf(values, (value) => (value < 0 ? UNKNOWN : Math.min(value, kept)));
  return { codes, entries, scale: null };
}

function continuous(run, name) {
  const values = run.columns[name];
  const there = (value) => known(value) && !(name === "gain" && value < 0);
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) if (there(value)) [low, high] = [Math.min(low, value), Math.max(high, value)];
  const reach = high - low || 1;
  const codes = codesOf(values, (value) => (there(value) ? Math.round(TOP * (value - low) / reach) : UNKNOWN));
  return { codes, entries: [], scale: { low, high, whole: name === "gain" } };
}

function coded(run, name) {
  const { columns } = run;
  if (name in CONTINUOUS) return continuous(run, name);
  if (name === "success") {
    return { codes: Uint8Array.from(outcomes(run)), scale: null,
      entries: OUTCOMES.map(([words, colour], code) => ({ code, words, colour })) };
  }
  const names = { kind: run.kinds.map(({ title }) => title), label: run.classes, predicted: run.classes,
    strategy: run.strategies }[name];
  const made = categories(names, columns[name]);
  if (name === "kind" && made.entries.length) made.entries[0].colour = "--clean";
  return made;
}

// { name, codes: uint8 [rows], entries: [{ code, words, colour, count }], scale: { low, high, whole } or null }
export function colouring(run, wanted) {
  const name = colourChoices(run).some(([one]) => one === wanted) ? wanted : "kind";
  const made = coded(run, name);
  if (made.codes.includes(UNKNOWN)) {
    made.entries.push({ code: UNKNOWN, words: made.scale ? "no value" : "unknown", colour: "--faint" });
  }
  return { name, ...made };
}

// A shape for each row, and what it stands for; by "label", "kind" or "" for circles all over.
export function shaping(run, by) {
  const column = { label: run.columns.label, kind: run.columns.kind }[by];
  if (!column) return { codes: new Uint8Array(run.count), entries: [] };
  const names = by === "kind" ? run.kinds.map(({ title }) => title) : run.classes;
  const kept = names.length > SHAPES.length ? SHAPES.length - 1 : names.length; // the last shape is for all the rest
  const entries = names.slice(0, kept).map((words, shape) => ({ shape, words }));
  if (kept < names.length) entries.push({ shape: kept, words: `${names.length - kept} others` });
  return { codes: codesOf(column, (value) => (value < 0 ? 0 : Math.min(value, kept))), entries };
}

const painter = () => document.createElement("canvas").getContext("2d", { willReadFrequently: true });

// Any CSS colour as [red, green, blue], 0 ... 255.
export function rgbOf(colour, context = painter()) {
  context.fillStyle = "#888";
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data.subarray(0, 3)];
}

const luminance = ([red, green, blue]) => (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255;
export const scaleStops = () => STOPS[luminance(rgbOf(variable("--paper") || "#fff")) > 0.5 ? "light" : "dark"];

// Uint8 rgba of 256 codes.
export function paletteOf({ entries, scale }) {
  const context = painter();
  const palette = new Uint8Array(1024).fill(255);
  if (scale) {
    const stops = scaleStops().map((stop) => rgbOf(stop, context));
    for (let code = 0; code <= TOP; code++) {
      const at = (code / TOP) * (stops.length - 1);
      const [low, high] = [stops[Math.floor(at)], stops[Math.ceil(at)]];
      palette.set(low.map((value, channel) => value + (at % 1) * (high[channel] - value)), 4 * code);
    }
  }
  for (const { code, colour } of entries) palette.set(rgbOf(variable(colour) || "#888", context), 4 * code);
  return palette;
}
