// Rows of the run in words and numbers, the same on card, table, file and for screen readers.

import { percent } from "../dom.js";

export const counted = (count, one = "image", many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
export const short = (value) => (Math.abs(value) >= 100 || Number.isInteger(value) ? value.toFixed(0) : value.toPrecision(3));

export function sure(run, row) {
  const value = run.columns.confidence?.[row];
  return Number.isFinite(value) ? percent(value) : "";
}

export const gainOf = (run, row) => (run.columns.gain?.[row] >= 0 ? String(run.columns.gain[row]) : "");

export function described(run, row) {
  const confidence = sure(run, row);
  const gain = gainOf(run, row);
  return `${run.id(row)}, ${run.isClean(row) ? "original" : `attacked by ${run.title(row)}`}; `
    + `true class ${run.label(row)}, predicted ${run.predicted(row)}${confidence && ` at ${confidence}`}`
    + `${gain && `, minimal gain ${gain}`}.`;
}

const COLUMNS = [
  ["id", (run, row) => run.id(row)],
  ["attack", (run, row) => run.kinds[run.columns.kind[row]].name],
  ["true_class", (run, row) => run.label(row)],
  ["prediction", (run, row) => run.predicted(row)],
  ["success", (run, row) => run.columns.success[row]],
  ["confidence", (run, row) => run.columns.confidence?.[row]],
  ["gain", (run, row) => gainOf(run, row)],
  ["strategy", (run, row) => run.strategies[run.columns.strategy?.[row]]],
  ["moved", (run, row) => run.columns.moved?.[row]],
  ["preserved", (run, row) => run.columns.preserved?.[row]],
  ["score", (run, row) => run.columns.score?.[row]],
];
const cell = (value) => {
  const text = value === undefined || Number.isNaN(value) ? "" : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

// Comma-separated values with a head, as RFC 4180 has them.
export function csvOf(run, rows) {
  const lines = [COLUMNS.map(([name]) => name), ...rows.map((row) => COLUMNS.map(([, read]) => cell(read(run, row))))];
  return `${lines.map((line) => line.join(",")).join("\r\n")}\r\n`;
}
