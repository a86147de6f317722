// The laboratory: change an image and see at once what the network makes of it.

import { answer, probabilityBars } from "../pair/bars.js";
import { explainControls, paletteControl } from "../heat/controls.js";
import { el, percent, slider } from "../dom.js";
import { imagePanel } from "./image.js";
import { makeLoop } from "./loop.js";
import { labPictures } from "./pictures.js";
import { pixelPanel } from "./pixels.js";
import { searchPanel } from "./search.js";
import { about, aborted } from "../live.js";
import { minimap } from "./minimap.js";
import { facts } from "../pair/cards.js";
import { panel } from "../panel.js";
import { distances } from "../heat/pixels.js";
import { specimenOf } from "./specimen.js";
import { verdictTable, verdictWords } from "../pair/verdict.js";

const MOST_GAIN = 16; // levels
const LOOKED_AT = ["base", "origin", "gain", "edits", "method", "target"]; // what a new look depends on

export function show(main, shared) {
  const leave = new AbortController();
  const view = el("div", { class: "lab-view" });
  let close = () => {};
  main.append(view);
  async function open() {
    view.replaceChildren(el("p", { class: "loading" }, "The network is being loaded; the first time this takes some seconds …"));
    try {
      const offer = await about();
      if (leave.signal.aborted) return;
      view.replaceChildren();
      close = build(view, main, shared, offer, leave.signal);
    } catch (error) {
      if (aborted(error) || leave.signal.aborted) return;
      view.replaceChildren(el("div", { class: "error", role: "alert" }, el("h2", {}, "The laboratory could not be opened"),
        el("p", {}, error.message), el("button", { type: "button", onclick: open }, "Try again")));
    }
  }
  open();
  return () => { leave.abort(); close(); };
}

function build(view, main, shared, offer, signal) {
  const { run, state, say } = shared;
  const image = imagePanel(main, shared, signal);
  const pictures = labPictures(shared, (on) => { if (on) loop.reach(); });
  const results = resultPanels(shared, signal, () => loop.judge());
  let seen = null, busy = 0;

  const loop = makeLoop(shared, offer, signal, {
    seen(found) {
      done();
      seen = found;
      pictures.set(found);
      results.predicted(found);
      say(`Predicted ${run.classes[found.after.predicted]}, ${percent(found.after.probabilities[found.after.predicted])}.`);
    },
    unseen(error) { done(); seen = null; pictures.empty("no image"); results.none(); image.refuse(error.message); },
    judged: results.judged, unjudged: results.unjudged,
    reached: pictures.setReach, unreached: pictures.reachFailed,
    wantsReach: () => pictures.wantsReach() || brush.wantsBest(),
  });
  const brush = pixelPanel(pictures.now, shared, { now: () => seen?.after.pixels ?? null,
    best: { colour: loop.bestColour, wanted: (on) => { if (on) loop.reach(); } } });
  const gain = slider("FGSM gain", { min: 0, max: MOST_GAIN, step: 1, value: specimenOf(run, state.get())?.gain ?? 0,
    spell: (level) => `${level}/255` }, (level) => state.set({ gain: level }));
  const search = searchPanel(offer, say, signal, { specimen: () => specimenOf(run, state.get()),
    found: (base) => state.set({ base, origin: state.get().origin || state.get().base, gain: "0", edits: "" }) });
  const original = el("button", { type: "button", onclick: () => {
    state.set({ base: state.get().origin || state.get().base, origin: "", gain: "0", edits: "" });
    say("Back at the image as it was.");
  } }, "Back to the original");

  const work = el("div", { class: "lab-work" },
    el("div", { class: "controls" }, ...explainControls(run, state, offer), paletteControl(state)), pictures.node);
  const change = el("section", { class: "panel-box change" }, el("h3", {}, "Change it"), gain, brush.node, original);
  view.append(el("div", { class: "lab-grid" },
    el("div", { class: "lab-side" }, image.node, change, search.node), work, results.node));

  // dims what is about to be replaced, but not for what is there at once
  function waiting() { clearTimeout(busy); busy = setTimeout(() => work.setAttribute("aria-busy", "true"), 250); }
  function done() { clearTimeout(busy); work.removeAttribute("aria-busy"); }

  function ask() {
    const now = state.get();
    image.update();
    brush.update();
    gain.set(specimenOf(run, now)?.gain ?? 0);
    original.disabled = !now.origin && now.gain === "0" && !now.edits;
    view.classList.toggle("unset", !now.base);
    for (const part of [change, search.node, work, results.node]) part.hidden = !now.base;
    if (!now.base) return;
    waiting();
    results.wait();
    loop.look();
  }

  const stop = state.subscribe((now, changed) => {
    if (changed.has("view") || signal.aborted) return;
    if (changed.has("base")) { brush.forget(); image.refuse(""); }
    if (LOOKED_AT.some((name) => changed.has(name))) ask();
    else if (changed.has("palette") || changed.has("overlay")) pictures.drawHeat();
    else if (changed.has("row")) image.update();
  });
  if (!state.get().base && run.row(state.get().row) >= 0) state.set({ base: state.get().row }); else ask();
  return () => { stop(); done(); loop.leave(); search.leave(); };
}

// Prediction, verdict, place on the map, distances.
function resultPanels({ run, state, say }, signal, again) {
  const prediction = panel("Prediction"), verdict = panel("Verdict"), where = panel("Place on the map"), numbers = panel("What changed");
  const map = minimap({ run, state }, signal);
  prediction.node.classList.add("predicted");
  const download = el("button", { type: "button" }, "Download as PNG");
  let after = null;
  download.addEventListener("click", () => save(after.pixels, `heatprint-${state.get().base.split("/").pop().replace(/\W+/g, "-")}.png`));

  return {
    node: el("div", { class: "lab-side" }, prediction.node, verdict.node, where.node, numbers.node),
    wait() { for (const one of [verdict, where]) one.node.setAttribute("aria-busy", "true"); },
    none() { for (const one of [prediction, verdict, where, numbers]) one.none("Nothing to show."); },
    predicted(found) {
      after = found.after;
      const words = found.known ? "true class" : "counts as right";
      prediction.set(answer(run.classes, after.predicted, after.probabilities[after.predicted], found.label),
        probabilityBars(run.classes, after.probabilities, { label: found.label, words }));
      const far = distances(found.before.pixels, after.pixels);
      numbers.set(facts([["Changed pixels (l0)", `${far.l0.toLocaleString("en")} of ${(after.side ** 2).toLocaleString("en")}`],
        ["Euclidean distance (l2)", far.l2.toFixed(3)], ["Largest change (linf)", `${far.linf} levels`]]), download);
    },
    judged(told) {
      verdict.set(verdictTable(run.classes, [["This image", told]]));
      where.set(map.node);
      map.set(told.place);
      if (verdictWords(told)) say(verdictWords(told));
    },
    unjudged(error) { verdict.failed(error, again); where.none("Not known, since the verdict failed."); },
  };
}

function save({ side, data }, name) {
  const canvas = el("canvas", { width: side, height: side });
  canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(data), side), 0, 0);
  canvas.toBlob((blob) => {
    const address = URL.createObjectURL(blob);
    el("a", { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  }, "image/png");
}
