// Probabilities as bars with words and numbers.

import { el, percent } from "../dom.js";

const MOST = 5; // classes that are listed, and the true one

// label: the class that counts as right (-1 where nobody knows); rest: the share of classes that are not told apart.
export function probabilityBars(classes, probabilities, { label, words = "true class", rest = null }) {
  const known = probabilities.map((share, place) => [share, place]).filter(([share]) => share !== null);
  const order = known.sort((one, two) => two[0] - one[0] || one[1] - two[1]);
  const listed = order.filter(([, place], rank) => rank < MOST || place === label);
  const left = order.length - listed.length;
  return el("div", { class: "probabilities" },
    el("ul", { class: "bars" },
      ...listed.map(([share, place]) => bar(classes[place], share, place === order[0][1], place === label ? words : "")),
      rest === null ? null : bar("all others", rest, false, "")),
    left ? el("p", { class: "hint" }, `and ${left} less likely classes`) : null);
}

function bar(name, share, first, mark) {
  const fill = el("span", { class: first ? "fill first" : "fill" });
  fill.style.width = `${100 * share}%`;
  return el("li", {},
    el("span", { class: "name" }, name, mark ? el("span", { class: "true-class" }, `✓ ${mark}`) : null),
    el("span", { class: "number" }, percent(share)),
    el("span", { class: "track", "aria-hidden": "true" }, fill));
}

// Predicted class in a sentence, right or wrong.
export function answer(classes, predicted, share, label) {
  const right = label < 0 ? "" : predicted === label ? "right" : "wrong";
  return el("p", { class: "answer" },
    "Predicted: ", el("b", { class: right }, classes[predicted] ?? "unknown"),
    Number.isFinite(share) ? ` ${percent(share)}` : "", right ? el("span", { class: right }, right === "right" ? " ✓ right" : " ✗ wrong") : null);
}
