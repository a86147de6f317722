// What detector, identifier and locator say, one column an image.

import { el, percent } from "../dom.js";

const ROWS = [
  ["Verdict", (told) => (told.flagged === null ? null
    : el("b", { class: told.flagged ? "wrong" : "right" }, told.flagged ? "attacked" : "no sign of an attack"))],
  ["Detector score", (told) => (told.score === null ? null : meter(told))],
  ["Kind of attack", (told) => told.flagged !== false && told.family && (told.unknown ? `${told.family} (unlike any it learned)` : told.family)],
  ["Attack", (told) => told.flagged !== false && told.algorithm && `${told.algorithm}${told.probability === null ? "" : `, ${percent(told.probability, 0)}`}`],
  ["Credibility", (told) => (told.flagged === false || told.credibility === null ? null : told.credibility.toFixed(2))],
  ["Repaired answer", (told, classes) => (told.restored_label === null ? null : classes[told.restored_label]
    + (told.restored_place ? `, by pixel row ${told.restored_place[0]}, column ${told.restored_place[1]}` : ""))],
];

// columns: [title, answer of /api/live/judge] each.
export function verdictTable(classes, columns) {
  if (columns.every(([, told]) => told.score === null && told.family === null)) {
    return el("p", { class: "empty" }, "This run has no detector. Fit one: heatprint detect RUN, then start the server again.");
  }
  const rows = ROWS.map(([name, cell]) => [name, columns.map(([, told]) => cell(told, classes))])
    .filter(([, cells]) => cells.some(Boolean));
  return el("div", { class: "wide" }, el("table", { class: "verdicts" },
    el("thead", {}, el("tr", {}, el("td"), ...columns.map(([title]) => el("th", { scope: "col" }, title)))),
    el("tbody", {}, ...rows.map(([name, cells]) => el("tr", {}, el("th", { scope: "row" }, name),
      ...cells.map((cell) => el("td", {}, cell || el("span", { class: "muted" }, "–"))))))));
}

function meter({ score, threshold, flagged }) {
  return el("span", {}, score.toFixed(3),
    threshold === null ? null : el("span", { class: "muted" }, ` ${flagged ? ">" : "≤"} ${threshold.toFixed(3)}`));
}

export function verdictWords(told) {
  if (told.flagged === null) return "";
  if (!told.flagged) return "The detector sees no sign of an attack.";
  return `The detector sees an attack${told.algorithm ? `, most like ${told.algorithm}` : ""}.`;
}
