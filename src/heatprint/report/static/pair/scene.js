// Everything about one pair: pictures at once, then what the laboratory adds.

import { gainCurve } from "./curve.js";
import { ask } from "../data.js";
import { el } from "../dom.js";
import { floats, heatBar, limitOf } from "../heat/heat.js";
import { about, aborted, live, methodOf, targetOf } from "../live.js";
import { neighbourList } from "./neighbours.js";
import { differenceCard, sideCard } from "./cards.js";
import { panel } from "../panel.js";
import { NO_PICTURE } from "../photo.js";
import { readPixels } from "../heat/pixels.js";
import { verdictTable } from "./verdict.js";

const SETTLE = 120; // ms: who leafs through quickly does not keep the laboratory busy
const NO_LIVE = "The curve over the gain, the verdicts and the neighbours need the live network: heatprint serve RUN shows them.";

// Resolves when the pictures are there to be put on the page.
export async function makeScene({ run, state }, row, signal) {
  const { clean, copies } = run.family(row);
  const attacked = run.isClean(row) ? copies[0] ?? -1 : row;
  const sides = [["Clean", clean], ["Attacked", attacked]].filter(([, place]) => place >= 0 && run.pictured(place))
    .map(([name, place]) => ({ name, row: place, heat: run.live ? null : run.heat?.(place) ?? null }));
  if (!sides.length) throw new Error(NO_PICTURE);
  await Promise.all(sides.map(async (side) => { side.pixels = await readPixels(run.image(side.row), signal); }));
  const cards = sides.map((side) => sideCard(run, side));
  const apart = sides.length === 2 ? differenceCard(run, ...sides) : null;
  apart?.ring(...cards.map((card) => card.image), apart.pixels);
  const bar = el("div", { class: "scale-row" });
  const boxes = { curve: panel("Probability over FGSM gain"), verdict: panel("What the detector says"), near: panel("Neighbours in signature space") };
  const node = el("div", {},
    el("div", { class: "cards-three" }, ...cards.map((card) => card.node), apart?.node ?? alone(run, row, clean)),
    bar, run.live ? el("div", { class: "boxes-three" }, boxes.curve.node, boxes.verdict.node, boxes.near.node)
      : el("p", { class: "hint" }, NO_LIVE));

  function redraw() {
    const maps = sides.map((side) => side.heat).filter(Boolean);
    if (maps.length < sides.length) return;
    const limit = limitOf(maps);
    cards.forEach((card) => card.drawHeat(state, limit));
    apart?.drawHeat(state, limit);
    bar.replaceChildren(heatBar(limit, state.get().palette, "One scale for all maps of this pair: against the class, nothing, for the class. "
      + "The ends are the 99.5 % quantile of |relevance|."), ...notes());
  }

  // what the explainer says of its own maps, once
  const notes = () => [...new Set(sides.map((side) => side.look?.note).filter(Boolean))]
    .map((words) => el("p", { class: "hint" }, `${words}`));

  function noHeat(words, note) {
    cards.forEach((card) => card.heat.empty(words, note));
    apart?.noHeat(words);
  }

  async function explain() {
    noHeat("computing …");
    try {
      const offer = await about();
      const { method, target } = state.get();
      for (const [at, side] of sides.entries()) {
        const look = await live("look", { specimen: { base: `row:${side.row}` }, method: methodOf(offer, method),
          target: targetOf(target, run.columns.label[side.row], run.classes.length) }, signal);
        Object.assign(side, { look, heat: { side: look.side, values: floats(look.heat) } });
        cards[at].tell();
      }
      redraw();
    } catch (error) {
      if (aborted(error)) return;
      noHeat("no heat map");
      bar.replaceChildren(el("p", { class: "problem", role: "alert" }, `Heat maps: ${error.message} `),
        el("button", { type: "button", onclick: explain }, "Try again"));
    }
  }

  async function start() {
    if (!run.live) {
      if (sides.every((side) => side.heat)) redraw(); else noHeat("no heat map stored");
      return;
    }
    boxes.near.fill(() => neighbourList({ run, state }, row, near(row, signal)));
    await new Promise((done) => setTimeout(done, SETTLE));
    if (signal.aborted) return;
    await explain();
    await boxes.curve.fill(async () => gainCurve(run.classes, await live("curve", { base: `row:${sides[0].row}` }, signal), gainOf(run, attacked, apart)));
    await boxes.verdict.fill(async () => {
      const told = [];
      for (const side of sides) told.push([side.name, await live("judge", { base: `row:${side.row}` }, signal)]);
      return verdictTable(run.classes, told);
    });
  }
  return { node, redraw, explain: () => (run.live ? explain() : redraw()), start };
}

// Levels of an image attacked by FGSM itself; others have no place on the curve.
function gainOf(run, row, apart) {
  if (row < 0) return 0;
  const { name, title } = run.kinds[run.columns.kind[row]];
  return apart && /^fgsm\b/i.test(title || name) ? apart.far.linf : null;
}

async function near(row, signal) {
  return ask(`api/near/${row}`, { signal }).then((answer) => answer.json());
}

function alone(run, row, clean) {
  return el("section", { class: "panel-box side" }, el("h3", {}, "Difference"),
    el("p", { class: "empty" }, run.isClean(row) && run.pictured(row) ? "No attack of this run succeeded on this image, so there is nothing to compare it with."
      : clean >= 0 ? "The run holds no picture of the clean original: older versions kept those of the atlas only."
      : "The clean original of this image is not part of the run."));
}
