// The three cards of a pair: clean, attacked, and what differs.

import { answer, probabilityBars } from "./bars.js";
import { heatLook } from "../heat/controls.js";
import { el, percent } from "../dom.js";
import { difference, heatWords, massAt, short } from "../heat/heat.js";
import { amplified, distances } from "../heat/pixels.js";
import { picture } from "../heat/picture.js";

const RINGED = 64; // changed pixels that are marked
const NEARLY_ALL = 0.95; // of the area: a share of relevance there says nothing

// side: { name, row, pixels }; later also heat and look.
export function sideCard(run, side) {
  const image = picture("Image"), heat = picture("Heat map");
  const told = el("div", { class: "told" });
  const label = run.columns.label[side.row];
  const about = run.isClean(side.row) ? "clean" : run.title(side.row);
  image.pixels(side.pixels, `${run.id(side.row)}, ${about}, true class ${run.label(side.row)}.`);
  const card = {
    image, heat,
    node: el("section", { class: "panel-box side", "aria-label": side.name },
      el("h3", {}, side.name, el("span", { class: "muted" }, run.isClean(side.row) ? "" : ` by ${run.title(side.row)}`)),
      el("div", { class: "two" }, image.node, heat.node), told),
    // prediction and probabilities: the live ones, or what the run remembers
    tell() {
      const { predicted, probabilities } = side.look ?? remembered(run, side.row);
      told.replaceChildren(answer(run.classes, predicted, probabilities[predicted], label),
        probabilityBars(run.classes, probabilities, { label, rest: rest(probabilities) }));
    },
    drawHeat(state, limit) {
      const explained = side.look ? `for ${run.classes[side.look.target]}` : "";
      heat.heat(side.heat, heatLook(state, limit, side.pixels), heatWords(side.heat), explained);
    },
  };
  card.tell();
  return card;
}

// The probability of the answer is stored; with two classes that says both.
function remembered(run, row) {
  const predicted = run.columns.predicted[row], sure = run.columns.confidence?.[row];
  const probabilities = run.classes.map((_, place) => (place === predicted ? sure : run.classes.length === 2 ? 1 - sure : null));
  return { predicted, probabilities: Number.isFinite(sure) ? probabilities : run.classes.map(() => null) };
}

function rest(probabilities) {
  const known = probabilities.filter((share) => share !== null);
  return known.length && known.length < probabilities.length ? 1 - known.reduce((sum, share) => sum + share, 0) : null;
}

export function differenceCard(run, clean, attacked) {
  const pixels = picture("Pixels"), heat = picture("Heat map");
  const far = run.thumbnails ? stored(run, attacked.row) : distances(clean.pixels, attacked.pixels);
  const area = run.thumbnails ? null : clean.pixels.side ** 2;
  if (run.thumbnails) {
    pixels.empty("not told by thumbnails");
  } else {
    const { factor, pixels: loud } = amplified(clean.pixels, attacked.pixels, far.linf);
    pixels.pixels(loud, `${far.l0} of ${area} pixels differ, shown ${factor} times louder around grey.`,
      !far.l0 ? "nothing changed" : factor > 1 ? `${factor} × louder, around grey` : "around grey");
  }
  const shares = el("div");
  const step = run.columns.gain?.[attacked.row] ?? -1;
  return {
    far, pixels,
    node: el("section", { class: "panel-box side", "aria-label": "Difference" },
      el("h3", {}, "Difference", el("span", { class: "muted" }, " attacked minus clean")),
      el("div", { class: "two" }, pixels.node, heat.node),
      facts([
        ["Changed pixels (l0)", far.l0.toLocaleString("en") + (area ? ` of ${area.toLocaleString("en")}` : "")],
        ["Euclidean distance (l2)", far.l2.toFixed(3)],
        ["Largest change (linf)", `${far.linf} levels`],
        step >= 0 ? ["First success at step", String(step)] : null,
      ]), shares),
    ring: (...pictures) => {
      if (far.changed && far.l0 && far.l0 <= RINGED) for (const one of pictures) one.rings(far.changed, clean.pixels.side);
    },
    noHeat(words) { heat.empty(words); },
    drawHeat(state, limit) {
      const gap = difference(clean.heat, attacked.heat);
      heat.heat(gap, heatLook(state, limit, clean.pixels), heatWords(gap).replace("for the class", "risen").replace("against the class", "fallen"),
        clean.look && clean.look.target !== attacked.look.target ? "of two classes" : "");
      shares.replaceChildren(...[relevance(far, area, clean, attacked)].filter(Boolean));
    },
  };
}

// Distances as the run measured them; thumbnails are too small and too lossy to measure.
function stored(run, row) {
  const { l0, l2, linf } = run.columns;
  return { l0: l0[row], l2: l2[row], linf: Math.round(linf[row]), changed: null };
}

export const facts = (rows) => el("dl", { class: "facts-list" }, ...rows.filter(Boolean).map(([name, value]) =>
  el("div", {}, el("dt", {}, name), el("dd", {}, value))));

// How much of the heat maps lies on changed pixels, beside what chance would put there.
function relevance(far, area, clean, attacked) {
  if (!far.changed) return null;
  if (!far.l0) return el("p", { class: "hint" }, "The two images are the same.");
  if (far.l0 > NEARLY_ALL * area) {
    return el("p", { class: "hint" }, "Nearly every pixel changed, so the share of relevance at changed pixels says nothing.");
  }
  const before = massAt(clean.heat, far.changed, clean.pixels.side);
  const after = massAt(attacked.heat, far.changed, attacked.pixels.side);
  if (!before || !after) return null;
  const times = after.mass / after.area;
  return el("p", { class: "hint" }, "|Relevance| at changed pixels: ", el("b", {}, percent(after.mass)), " attacked, ",
    percent(before.mass), ` clean; chance ${percent(after.area, 2)} (${Number(times.toPrecision(2))} times chance).`);
}
