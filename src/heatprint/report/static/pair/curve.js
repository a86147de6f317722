// Probability of classes over the gain of FGSM, as a drawing and as a table.

import { el, percent } from "../dom.js";
import { svg } from "../svg.js";

const WIDE = 320, HIGH = 150, LEFT = 40, BELOW = 26, ABOVE = 8, RIGHT = 8;
const x = (gain, most) => LEFT + gain / most * (WIDE - LEFT - RIGHT);
const y = (share) => ABOVE + (1 - share) * (HIGH - ABOVE - BELOW);

// told: { gains, label, probabilities } of /api/live/curve; gain: where the image is now, null for nowhere.
export function gainCurve(classes, told, gain) {
  const { gains, label, probabilities } = told;
  const most = gains[gains.length - 1];
  const rival = strongest(probabilities, label);
  const lines = [[label, "held"], [rival, "fell"]].filter(([place]) => place >= 0);
  const drawing = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, class: "gain-curve", role: "img",
    "aria-label": words(classes, told, rival) });
  for (const share of [0, 0.5, 1]) {
    drawing.append(
      svg("line", { class: "grid", x1: LEFT, x2: WIDE - RIGHT, y1: y(share), y2: y(share) }),
      svg("text", { x: LEFT - 5, y: y(share) + 3.5, "text-anchor": "end" }, `${100 * share} %`));
  }
  for (const tick of gains.filter((one) => one % 4 === 0)) {
    drawing.append(svg("text", { x: x(tick, most), y: HIGH - 12, "text-anchor": "middle" }, String(tick)));
  }
  drawing.append(svg("text", { x: WIDE - RIGHT, y: HIGH - 1, "text-anchor": "end" }, "FGSM gain, levels"));
  if (gain !== null && gain <= most) {
    drawing.append(svg("line", { class: "now", x1: x(gain, most), x2: x(gain, most), y1: ABOVE, y2: HIGH - BELOW }));
  }
  for (const [place, name] of lines) {
    drawing.append(svg("polyline", { class: `line ${name}`,
      points: gains.map((one, at) => `${x(one, most)},${y(probabilities[at][place])}`).join(" ") }));
  }
  return el("figure", { class: "curve-figure" }, drawing,
    el("figcaption", { class: "legend" },
      ...lines.map(([place, name]) => el("span", { class: `key ${name}` }, classes[place] + (place === label ? " (true)" : ""))),
      gain !== null && gain <= most ? el("span", { class: "key now" }, `here: ${gain}`) : null),
    table(classes, told, lines.map(([place]) => place)));
}

// The class that comes nearest to, or furthest above, the true one.
function strongest(probabilities, label) {
  let best = -1, most = -1;
  for (const row of probabilities) {
    row.forEach((share, place) => { if (place !== label && share > most) [best, most] = [place, share]; });
  }
  return best;
}

function words(classes, { gains, label, probabilities }, rival) {
  const first = probabilities[0][label], last = probabilities[probabilities.length - 1][label];
  const flips = probabilities.findIndex((row) => Math.max(...row) > row[label]);
  const turn = flips < 0 ? `${classes[label]} stays the answer up to gain ${gains[gains.length - 1]}`
    : `the answer is no longer ${classes[label]} from gain ${gains[flips]}, most likely ${classes[rival] ?? "another class"}`;
  return `Probability of ${classes[label]}: ${percent(first)} at gain 0, ${percent(last)} at gain ${gains[gains.length - 1]}; ${turn}.`;
}

function table(classes, { gains, probabilities }, places) {
  return el("details", {}, el("summary", {}, "As a table"),
    el("div", { class: "wide" }, el("table", {},
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Gain"), ...places.map((place) => el("th", { scope: "col" }, classes[place])))),
      el("tbody", {}, ...gains.map((gain, at) => el("tr", {}, el("th", { scope: "row" }, String(gain)),
        ...places.map((place) => el("td", {}, percent(probabilities[at][place])))))))));
}
