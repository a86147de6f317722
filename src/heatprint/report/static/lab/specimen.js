// The image under study as the address spells it: base, levels of FGSM, then single pixels.

export const MOST_EDITS = 1024;

// "12.30.ff0000_13.4.000000": row, column and colour of each pixel.
export function readEdits(text) {
  return text.split("_").map((word) => /^(\d{1,4})\.(\d{1,4})\.([0-9a-f]{6})$/.exec(word)).filter(Boolean)
    .slice(0, MOST_EDITS)
    .map(([, row, col, colour]) => [Number(row), Number(col), ...levels(colour)]);
}

export const spellEdits = (edits) => edits.map(([row, col, ...rgb]) => `${row}.${col}.${hex(rgb).slice(1)}`).join("_");

export const hex = (rgb) => `#${[...rgb].map((level) => level.toString(16).padStart(2, "0")).join("")}`;
export const levels = (colour) => [0, 2, 4].map((at) => parseInt(colour.replace("#", "").slice(at, at + 2), 16));

// A pixel set once more takes the place of what was set before.
export function withEdit(edits, edit) {
  return [...edits.filter(([row, col]) => row !== edit[0] || col !== edit[1]), edit];
}

// The server's name of an image: rows go by number, what was uploaded or found by its own name; null for no image.
function served(run, base) {
  if (/^kept:[0-9a-f]{16}$/.test(base)) return base;
  const row = run.row(base);
  return row < 0 ? null : `row:${row}`;
}

// What /api/live takes, and the image it is compared with: the base itself, or what a search set out from.
export function specimenOf(run, now) {
  const base = served(run, now.base);
  if (base === null) return null;
  const gain = Math.min(16, Math.max(0, Math.round(Number(now.gain)) || 0));
  return { base, gain, edits: readEdits(now.edits) };
}

export function originOf(run, now) {
  const base = served(run, now.origin || now.base) ?? served(run, now.base);
  return base && { base, gain: 0, edits: [] };
}

export const untouched = (specimen, origin) => specimen.base === origin.base && !specimen.gain && !specimen.edits.length;

// The true class, -1 where nobody said.
export function labelOf(run, now) {
  const row = run.row(now.origin || now.base);
  return row < 0 ? -1 : run.columns.label[row];
}

export function nameOfSpecimen(run, now) {
  const row = run.row(now.origin || now.base);
  const found = now.origin ? ", as a search left it" : "";
  if (row < 0) return `your image${found}`;
  return `${run.id(row)}${run.isClean(row) ? "" : `, attacked by ${run.title(row)}`}${found}`;
}
