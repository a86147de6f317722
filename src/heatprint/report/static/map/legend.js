// What the colours and shapes of the map stand for, with counts; an entry can be hidden.

import { scaleStops, UNKNOWN } from "./colouring.js";
import { el, variable } from "../dom.js";
import { glyph } from "./shapes.js";
import { short } from "./spoken.js";

// toggle(code) hides an entry of the colours, or shows it again
export function createLegend(toggle) {
  const element = el("div", { class: "mv-legend" });

  function entry({ code, words, colour }, count, off, shape) {
    return el("li", {}, el("button", { type: "button", class: "mv-entry", "aria-pressed": off ? "false" : "true",
      "data-code": String(code), title: off ? "Show on the map" : "Hide on the map", onclick: () => toggle(code) },
    glyph(shape, variable(colour)), el("span", {}, words), el("span", { class: "mv-number" }, count.toLocaleString("en"))));
  }

  function bar({ low, high, whole }) {
    const ramp = el("div", { class: "mv-ramp", role: "img", "aria-label": `Colour scale from ${short(low)} to ${short(high)}` });
    ramp.style.background = `linear-gradient(90deg, ${scaleStops().join(", ")})`;
    const middle = (low + high) / 2;
    const ticks = [low, whole && !Number.isInteger(middle) ? null : middle, high];
    return el("div", { class: "mv-scale" }, ramp,
      el("div", { class: "mv-ticks" }, ...ticks.map((value) => el("span", {}, value === null ? "" : short(value)))));
  }

  // counts: code -> rows that pass the filter; hidden: set of codes
  function update({ entries, scale, name }, counts, hidden, shaping, shapeBy) {
    const same = name === shapeBy; // then colour and shape mean one thing and need one key
    element.replaceChildren(
      scale ? bar(scale) : "",
      el("ul", { "aria-label": "Colours" }, ...entries.map((one) => entry(one, counts[one.code], hidden.has(one.code),
        same && one.code < UNKNOWN ? Math.min(one.code, shaping.entries.length - 1) : 0))),
      shaping.entries.length > 1 && !same ? el("ul", { class: "mv-shapes", "aria-label": "Shapes" },
        ...shaping.entries.map(({ shape, words }) => el("li", {}, glyph(shape, variable("--soft")), el("span", {}, words)))) : "",
    );
  }
  return { element, update };
}
