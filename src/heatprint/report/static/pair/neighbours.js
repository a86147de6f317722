// Images that the network processes alike.

import { thumbnail } from "../chooser.js";
import { el } from "../dom.js";
import { short } from "../heat/heat.js";

// found: [{ row, distance }], or null where none are known; may be a promise.
export async function neighbourList({ run, state }, row, found) {
  const near = await found;
  if (!near) return el("p", { class: "empty" }, "Not stored in this file; heatprint serve shows them.");
  if (!near.length) return el("p", { class: "empty" }, "There is no other image.");
  const go = (other) => state.set({ row: run.key(other), view: "pair" });
  const same = near.filter(({ row: other }) => run.columns.predicted[other] === run.columns.predicted[row]).length;
  return [
    el("ul", { class: "thumbs" }, ...near.map(({ row: other, distance }) =>
      el("li", {}, thumbnail(run, other, go, [told(run, other), run.title(other), short(Number(distance.toPrecision(2)))])))),
    el("p", { class: "hint" }, `Nearest first, with its distance; ${same} of ${near.length} are answered like this one. Choose one to go there.`),
  ];
}

const told = (run, row) => (run.label(row) === run.predicted(row) ? run.label(row) : `${run.label(row)} → ${run.predicted(row)}`);
