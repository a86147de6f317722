// The card beside the pointer: what the image under it is.

import { el } from "../dom.js";
import { photo } from "../photo.js";
import { gainOf, short, sure } from "./spoken.js";

const AWAY = 16; // CSS pixels between pointer and card

export function createCard(run) {
  const name = el("p", { class: "mv-card-name" });
  const facts = el("dl", {});
  const texts = el("div", {}, name, facts);
  const element = el("div", { class: "mv-card", "aria-hidden": "true", hidden: true },
    texts);
  let shown = -1;

  function fill(row) {
    const right = run.predicted(row) === run.label(row);
    const { moved, score } = run.columns;
    const lines = [
      [run.isClean(row) ? "Original" : "Attack", run.isClean(row) ? "not attacked" : run.title(row)],
      ["True class", run.label(row)],
      ["Prediction", `${run.predicted(row)} ${sure(run, row)}`, right ? "right" : "wrong"],
      ["Minimal gain", gainOf(run, row)],
      ["Map moved", !run.isClean(row) && Number.isFinite(moved?.[row]) ? short(moved[row]) : ""],
      ["Detector score", Number.isFinite(score?.[row]) ? short(score[row]) : ""],
    ];
    element.replaceChildren(photo(run, row, 84), texts);
    name.textContent = run.id(row);
    facts.replaceChildren(...lines.filter(([, value]) => value !== "").flatMap(([words, value, mark]) =>
      [el("dt", {}, words), el("dd", mark ? { class: mark } : {}, value)]));
  }

  return {
    element,
    // beside (x, y), on the side where there is room
    show(row, x, y, { width, height }) {
      if (row < 0) {
        shown = -1;
        element.hidden = true;
        return;
      }
      if (row !== shown) fill(row);
      shown = row;
      element.hidden = false;
      const left = x + AWAY + element.offsetWidth < width ? x + AWAY : Math.max(0, x - AWAY - element.offsetWidth);
      const top = Math.min(Math.max(0, y - element.offsetHeight / 2), Math.max(0, height - element.offsetHeight));
      element.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
    },
  };
}
