// From run, state and selection to what the point layer draws: bytes for each row, and pairs for lines.

import { passing } from "./filters.js";

const DIMMED = 0.22; // opacity of what is not selected, while something is
const LARGER = 5; // size of what is selected, in quarters
const USUAL = 4;

// Places of a projection and, for the morph, where each copy's original lies.
export function placesOf(run, projection) {
  const own = run.columns[projection];
  const partner = own.slice();
  const { pair } = run.columns;
  for (let row = 0; row < pair.length; row++) {
    const original = pair[row];
    if (original < 0 || run.isClean(row)) continue;
    partner[2 * row] = own[2 * original];
    partner[2 * row + 1] = own[2 * original + 1];
  }
  return { own, partner };
}

// { visible, shown, counts, unplaced }: what passes filter and legend; counts by code before the legend hides any.
export function visibleRows(run, state, own, colours, hidden) {
  const visible = passing(run, state);
  const counts = new Uint32Array(256);
  const counted = colours.name === "kind" ? passing(run, { ...state, kinds: "" }) : visible; // kinds are hidden by the legend
  for (let row = 0; row < counted.length; row++) if (counted[row]) counts[colours.codes[row]]++;
  let [shown, unplaced] = [0, 0];
  for (let row = 0; row < visible.length; row++) {
    if (!visible[row]) continue;
    if (!Number.isFinite(own[2 * row] + own[2 * row + 1])) {
      unplaced++;
      visible[row] = 0;
      continue;
    }
    if (hidden.has(colours.codes[row])) visible[row] = 0; else shown++;
  }
  return { visible, shown, counts, unplaced };
}

// Uint8 [rows, 4] for the point layer.
export function looksOf(run, { visible, shown, colours, shapes, selected, trust }) {
  const looks = new Uint8Array(4 * run.count);
  const full = shown > 20000 ? 190 : 235; // many overlap: let what lies below shine through
  const { preserved } = run.columns;
  for (let row = 0; row < run.count; row++) {
    if (!visible[row]) continue;
    const chosen = selected?.[row];
    const faith = trust && preserved ? 0.08 + 0.92 * (Number.isFinite(preserved[row]) ? preserved[row] ** 1.5 : 0) : 1;
    looks[4 * row] = colours.codes[row];
    looks[4 * row + 1] = shapes.codes[row];
    looks[4 * row + 2] = Math.max(10, full * faith * (selected && !chosen ? DIMMED : 1));
    looks[4 * row + 3] = chosen ? LARGER : USUAL;
  }
  return looks;
}

// Uint32 [2 * pairs]: original and copy of each pair of which both are seen, and one selected where anything is.
export function linesOf(run, visible, selected) {
  const lines = [];
  const { pair } = run.columns;
  for (let row = 0; row < run.count; row++) {
    const original = pair[row];
    if (!visible[row] || original < 0 || run.isClean(row) || !visible[original]) continue;
    if (!selected || selected[row] || selected[original]) lines.push(original, row);
  }
  return Uint32Array.from(lines);
}

export const rowsOf = (mask) => {
  const rows = [];
  mask.forEach((on, row) => { if (on) rows.push(row); });
  return rows;
};
