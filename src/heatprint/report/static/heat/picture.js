// A square picture with a title: pixels or a heat map on canvas, marks above it, words below it.

import { el } from "../dom.js";
import { paintHeat, paintReach } from "./heat.js";
import { paintPixels } from "./pixels.js";
import { svg } from "../svg.js";

const RING = 3; // pixels at least around a changed one, and never less than a thirtieth of the picture

export function picture(title, attributes = {}) {
  const canvas = el("canvas", { role: "img", width: 8, height: 8, "aria-label": `${title}: loading`, ...attributes });
  const rings = svg("g"), pointer = svg("g");
  const marks = svg("svg", { class: "marks", "aria-hidden": "true", viewBox: "0 0 1 1" }, rings, pointer);
  const wait = el("p", { class: "wait" }, "…");
  const caption = el("span", { class: "note" });
  const node = el("figure", { class: "shot" },
    el("div", { class: "frame" }, canvas, marks, wait), el("figcaption", {}, el("b", {}, title), caption));

  function drawn(words, note) {
    wait.hidden = true;
    canvas.setAttribute("aria-label", `${title}. ${words}`);
    caption.textContent = note;
  }
  return {
    node, canvas,
    pixels(pixels, words, note = "") { paintPixels(canvas, pixels); drawn(words, note); },
    heat(map, how, words, note = "") { paintHeat(canvas, map, how); drawn(words, note); },
    reach(map, how, words, note = "") { paintReach(canvas, map, how); drawn(words, note); },
    // nothing to show yet, or ever
    empty(words, note = "") {
      canvas.width = canvas.height = 8;
      rings.replaceChildren();
      pointer.replaceChildren();
      wait.hidden = false;
      wait.textContent = words;
      canvas.setAttribute("aria-label", `${title}: ${words}`);
      caption.textContent = note;
    },
    // rings around single pixels, by their places
    rings(places, side) {
      marks.setAttribute("viewBox", `0 0 ${side} ${side}`);
      const radius = Math.max(RING, side / 30);
      rings.replaceChildren(...places.flatMap((at) => ["halo", "ink"].map((name) =>
        svg("circle", { class: name, cx: at % side + 0.5, cy: Math.floor(at / side) + 0.5, r: radius }))));
    },
    // a square around one pixel, null for none
    point(at, side) {
      marks.setAttribute("viewBox", `0 0 ${side} ${side}`);
      pointer.replaceChildren(...(at === null ? [] : ["cursor-halo", "cursor"].map((name) =>
        svg("rect", { class: name, x: at % side, y: Math.floor(at / side), width: 1, height: 1 }))));
    },
  };
}
