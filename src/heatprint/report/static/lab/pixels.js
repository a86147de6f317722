// Painting single pixels: a cursor on the picture, for pointer and keys, and the colour to paint with.

import { el } from "../dom.js";
import { hex, levels, MOST_EDITS, readEdits, spellEdits, withEdit } from "./specimen.js";

const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const LEAP = 8; // pixels, with shift
const HOW = "Click a pixel, or move with the arrow keys (shift: eight at once) and paint with Enter.";

// shot: the picture painted on; now(): its pixels or null; best(): promise of the best colour of each pixel.
export function pixelPanel(shot, { state, say }, { now, best }) {
  const told = el("p", { class: "hint pixel-told", id: "pixel-told" }, HOW);
  const own = el("input", { type: "color", value: "#ff0000", "aria-label": "Own colour", oninput: () => { pick("own"); } });
  const choices = ["best", "black", "white", "own"].map((name) => el("input", { type: "radio", name: "brush", value: name,
    onchange: () => best.wanted(name === "best") }));
  const undo = el("button", { type: "button", onclick: () => change(readEdits(state.get().edits).slice(0, -1), "Undone.") }, "Undo last");
  const clear = el("button", { type: "button", onclick: () => change([], "All painted pixels are cleared.") }, "Clear");
  const problem = el("p", { class: "problem", role: "alert", hidden: true });
  let place = null;
  choices[0].checked = true;

  const brush = () => choices.find((one) => one.checked).value;
  function pick(name) {
    for (const one of choices) one.checked = one.value === name;
    best.wanted(name === "best");
  }

  function change(edits, words) {
    state.set({ edits: spellEdits(edits) });
    if (words) say(words);
  }

  function point(at) {
    const pixels = now();
    if (!pixels) return;
    place = at;
    shot.point(at, pixels.side);
    const row = Math.floor(at / pixels.side), col = at % pixels.side;
    told.textContent = `Row ${row}, column ${col}: ${hex(pixels.data.slice(4 * at, 4 * at + 3))}`;
  }

  async function paint(at) {
    const pixels = now();
    if (!pixels) return;
    const edits = readEdits(state.get().edits);
    problem.hidden = edits.length < MOST_EDITS;
    problem.textContent = `${MOST_EDITS} pixels are painted already. Undo some first.`;
    if (edits.length >= MOST_EDITS) return;
    const fixed = { black: [0, 0, 0], white: [255, 255, 255], own: levels(own.value) }[brush()];
    const found = fixed ?? await best.colour(at);
    if (!found) return;
    const edit = [Math.floor(at / pixels.side), at % pixels.side, ...found];
    change(withEdit(readEdits(state.get().edits), edit));
    told.textContent = `Row ${edit[0]}, column ${edit[1]} is now ${hex(found)}.`;
  }

  function under(event) {
    const pixels = now(), box = shot.canvas.getBoundingClientRect();
    if (!pixels) return null;
    const within = (share) => Math.min(pixels.side - 1, Math.max(0, Math.floor(share * pixels.side)));
    return within((event.clientY - box.top) / box.height) * pixels.side + within((event.clientX - box.left) / box.width);
  }

  shot.canvas.addEventListener("click", (event) => {
    const at = under(event);
    if (at !== null) { point(at); paint(at); }
  });
  shot.canvas.addEventListener("pointermove", (event) => {
    const at = under(event);
    if (at !== null && at !== place) point(at);
  });
  shot.canvas.addEventListener("focus", () => {
    const pixels = now();
    if (pixels) point(place ?? Math.floor(pixels.side / 2) * (pixels.side + 1));
  });
  shot.canvas.addEventListener("keydown", (event) => {
    const pixels = now();
    if (!pixels || event.ctrlKey || event.metaKey || event.altKey) return;
    const move = MOVES[event.key];
    if (!move && event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    place ??= Math.floor(pixels.side / 2) * (pixels.side + 1);
    if (!move) { paint(place); return; }
    const leap = event.shiftKey ? LEAP : 1, last = pixels.side - 1;
    const row = Math.min(last, Math.max(0, Math.floor(place / pixels.side) + leap * move[0]));
    const col = Math.min(last, Math.max(0, place % pixels.side + leap * move[1]));
    point(row * pixels.side + col);
    say(told.textContent);
  });

  const swatch = (name, words, extra) => el("label", { class: "swatch" }, choices.find((one) => one.value === name),
    el("span", { class: `dot ${name}`, "aria-hidden": "true" }), el("span", {}, words), extra);
  const box = el("fieldset", { class: "brush" }, el("legend", {}, "Paint a pixel"),
    swatch("best", "best colour"), swatch("black", "black"), swatch("white", "white"),
    el("span", { class: "swatch" }, swatch("own", "own"), own));
  return {
    node: el("div", {}, box, told, problem, el("div", { class: "buttons" }, undo, clear)),
    wantsBest: () => brush() === "best",
    update() { undo.disabled = clear.disabled = !state.get().edits; },
    // another image: the cursor means nothing there
    forget() { place = null; told.textContent = HOW; shot.point(null, 1); },
  };
}
