// The panel beside the map and the buttons on it. All of it follows the state; nothing here draws.

import { colourChoices } from "./colouring.js";
import { checkbox, choice, el, percent, slider } from "../dom.js";
import { FILTERS, kindsShown, parseFilter, spellFilter, spellKinds, whyNoneMoved, wordsOf } from "./filters.js";

const PAUSE = 180; // milliseconds: browsers refuse to note addresses more often than a few times a second
const TITLES = { umap: "UMAP", pca: "PCA" };

function later(act) {
  let waiting = 0;
  return (value) => {
    clearTimeout(waiting);
    waiting = setTimeout(act, PAUSE, value);
  };
}

const section = (words, ...parts) => el("section", { class: "mv-group" }, el("h2", {}, words), ...parts);
const spellMorph = (share) => (share <= 0 ? "clean" : share >= 1 ? "attacked" : percent(share, 0));

// A row of buttons of which one is pressed.
export function buttons(label, options, change) {
  const made = options.map(([name, words, hint]) =>
    el("button", { type: "button", title: hint, "data-name": name, onclick: () => change(name) }, words));
  const element = el("div", { class: "mv-buttons", role: "group", "aria-label": label }, ...made);
  return {
    element,
    set: (name) => made.forEach((one) => one.setAttribute("aria-pressed", String(one.dataset.name === name))),
  };
}

export function projectionButtons(projections, state) {
  return buttons("Projection", projections.map((name) => [name, TITLES[name]]), (projection) => state.set({ projection }));
}

// The slider that moves copies from where their originals lie to where the attack took them.
export function morphSlider(state, move) {
  const keep = later((morph) => state.set({ morph }));
  const field = slider("From clean to attacked", { min: 0, max: 1, step: 0.01, value: 1, spell: spellMorph }, (share) => {
    move(share);
    keep(share);
  });
  field.classList.add("mv-morph");
  return field;
}

function showing(run, state) {
  const now = () => parseFilter(state.get().filter);
  const missing = whyNoneMoved(run);
  const options = FILTERS.filter(([name]) => name !== "moved" || !missing);
  const preset = choice("Which copies", options, now().preset,
    (name) => state.set({ filter: spellFilter({ preset: name, text: now().text }) }));
  if (missing) preset.querySelector("select").title = `“${wordsOf("moved")}” is not offered: ${missing}.`;
  const search = el("input", { type: "search", placeholder: "cat.12, fgsm/ …", spellcheck: "false", oninput: later(() =>
    state.set({ filter: spellFilter({ preset: now().preset, text: search.value.trim() }) })) });
  const gains = (run.columns.gain ?? []).filter((gain) => gain >= 0);
  const most = gains.reduce((high, gain) => Math.max(high, gain), 0);
  const toGain = later((value) => state.set({ least: value > most ? "" : String(value) }));
  const least = gains.length && slider("Minimal gain at most", { min: 0, max: most + 1, step: 1, value: most + 1,
    spell: (value) => (value > most ? "any" : String(value)) }, toGain);
  const kinds = el("fieldset", { class: "mv-kinds" }, el("legend", {}, "Kinds of images"),
    ...run.kinds.map(({ name, title }) => checkbox(title, true, (on) => {
      const names = kindsShown(state.get().kinds, run);
      if (on) names.add(name); else names.delete(name);
      state.set({ kinds: spellKinds(names, run) });
    })));
  const group = section("Show", preset, least || "", el("label", { class: "field" }, el("span", {}, "Names with"), search), kinds);
  function sync() {
    const names = kindsShown(state.get().kinds, run);
    preset.querySelector("select").value = now().preset;
    if (document.activeElement !== search) search.value = now().text;
    if (least) least.set(state.get().least === "" ? most + 1 : Math.min(most, Number(state.get().least)));
    kinds.querySelectorAll("input").forEach((box, at) => { box.checked = names.has(run.kinds[at].name); });
    kinds.hidden = state.get().colour === "kind"; // the legend does it then
  }
  return { group, sync };
}

function marks(run, state, local, told) {
  const lines = checkbox("Lines between pairs", local.lines, (on) => { local.lines = on; told.lines(); });
  const trust = checkbox("Fade where neighbours were lost", false, (on) => state.set({ trust: on ? "1" : "" }));
  const density = checkbox("Density", false, (on) => state.set({ density: on ? "1" : "" }));
  trust.hidden = !run.columns.preserved?.some((value) => Number.isFinite(value));
  const group = section("Draw", run.kinds.length > 1 ? lines : "", trust, density);
  function sync() {
    trust.querySelector("input").checked = state.get().trust !== "";
    density.querySelector("input").checked = state.get().density !== "";
  }
  return { group, sync };
}

// local: { shape, lines }, see view.js; told: { lines(), shape() }, called when they change here
export function createControls(run, state, legend, local, told) {
  const colour = choice("Colour", colourChoices(run), state.get().colour, (name) => state.set({ colour: name }));
  const shape = choice("Shape", [["label", "True class"], ["kind", "Attack"], ["", "All alike"]], local.shape, (by) => {
    local.shape = by;
    told.shape();
  });
  const parts = [showing(run, state), marks(run, state, local, told)];
  const element = el("div", { class: "mv-controls" },
    section("Legend", el("div", { class: "mv-two" }, colour, shape), legend), ...parts.map(({ group }) => group));
  return {
    element,
    sync(name) {
      colour.querySelector("select").value = name;
      parts.forEach((part) => part.sync());
    },
  };
}
