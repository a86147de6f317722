// The map: every image of the run as a point, clean and attacked, to move about in, to filter and to choose from.

import { createCard } from "./card.js";
import { colouring, paletteOf, rgbOf, shaping } from "./colouring.js";
import { buttons, createControls, morphSlider, projectionButtons } from "./controls.js";
import { el, variable } from "../dom.js";
import { filterWords, kindsShown, parseHidden, spellHidden, spellKinds } from "./filters.js";
import { createLegend } from "./legend.js";
import { createPlot } from "./plot.js";
import { linesOf, looksOf, placesOf, rowsOf, visibleRows } from "./scene.js";
import { boxOf } from "./search2d.js";
import { counted, described } from "./spoken.js";
import { createTable } from "./table.js";

const FEW_PAIRS = 1500; // lines of more pairs are drawn only when asked for
const HELP = "Arrow keys walk from image to image, N goes round the images of the same source, Enter opens the pair, Space adds to "
  + "the selection, plus and minus zoom, 0 shows all, Escape clears. With a mouse: drag to move, wheel to zoom, shift and drag to "
  + "select, double click to open or, beside the points, to show all.";
const READING = {
  umap: "UMAP keeps neighbourhoods, not amounts: distances between groups and their sizes mean little.",
  pca: "The two directions in which the signatures vary most; what differs elsewhere is hidden here.",
};
const MODES = [
  ["pan", "Move", "Drag to move the map"], ["lasso", "Lasso", "Draw around images to select them"],
  ["rectangle", "Rectangle", "Drag a rectangle over images to select them"],
];

const left = new WeakMap(); // run -> { selected, current } of its map when it was left

function nothing(main, run) {
  main.append(el("div", { class: "mv-empty" }, el("h2", {}, "No map here"), el("p", {}, run.count
    ? "The images of this run have no places. Run the study again with its atlas, which lays out the map."
    : "This run has no images to show: nothing was classified and attacked yet.")));
  return () => {};
}

export function show(main, { run, state, say }) {
  const projections = ["umap", "pca"].filter((name) => run.count && run.columns[name] && boxOf(run.columns[name]));
  return projections.length ? map(main, { run, state, say }, projections) : nothing(main, run);
}

function map(main, { run, state, say }, projections) {
  const places = new Map(); // projection -> { own, partner }
  const few = run.columns.pair.filter((row) => row >= 0).length <= 2 * FEW_PAIRS;
  const local = { // as the link has it; unless it says otherwise, lines are drawn where they are few
    get shape() { return state.get().shape; },
    set shape(by) { state.set({ shape: by }); },
    get lines() { return state.get().lines ? state.get().lines === "on" : few; },
    set lines(on) { state.set({ lines: on ? "on" : "off" }); },
  };
  const seen = { colours: null, shapes: shaping(run, local.shape), visible: null, shown: 0, counts: null, unplaced: 0 };
  const before = left.get(run);
  let selected = before?.selected ?? null; // uint8, one a row; null for nothing
  let current = -1;
  let gone = false;

  const open = (row) => state.set({ view: "pair", row: run.key(row) });
  const choose = (row) => state.set({ row: row < 0 ? "" : run.key(row) });
  const plot = createPlot({ "aria-label": "Map of all images", "aria-describedby": "mv-help mv-count" }, {
    hover: (row, x, y) => card.show(row, x, y, plot.camera),
    choose, open,
    region: (mask, add) => select(add && selected ? mask.map((on, row) => on | selected[row]) : mask),
    clear() { if (selected) select(null); else choose(-1); },
    mark(row) {
      const mask = selected ? selected.slice() : new Uint8Array(run.count);
      mask[row] ^= 1;
      select(mask);
    },
    partner(row) {
      const { clean, copies } = run.family(row);
      const round = [clean, ...copies].filter((one) => one >= 0 && seen.visible[one]);
      if (round.length > 1) choose(round[(round.indexOf(row) + 1) % round.length]);
    },
    rested: (at) => state.set({ at }),
    moving: (words) => { aside.textContent = words.length ? `When the map rests, ${words.join(" and ")}.` : ""; },
  });
  const card = createCard(run);
  const legend = createLegend(toggle);
  const table = createTable(run, { open, choose, clear: () => select(null) });
  const makeControls = () => createControls(run, state, legend.element, local, {
    lines: drawLines,
    shape() { seen.shapes = shaping(run, local.shape); refreshLegend(); refreshLooks(); },
  });
  let controls = makeControls();
  const morph = morphSlider(state, plot.setMorph);
  const modes = buttons("What dragging does", MODES, setMode);
  const projection = projectionButtons(projections, state);
  const count = el("p", { class: "mv-count", id: "mv-count", role: "status" });
  const every = el("button", { type: "button", onclick: () => select(seen.visible.slice()) }, "Select all shown");
  const reset = el("button", { type: "button", onclick: showAll }, "Show everything");
  const note = el("p", { class: "mv-note" });
  const aside = el("p", { class: "mv-aside" });
  const none = el("div", { class: "mv-none", hidden: true });
  const view = el("div", { class: "mv" },
    el("div", { class: "mv-stage" },
      el("div", { class: "mv-frame" }, plot.element, none, card.element, aside,
        el("div", { class: "mv-tools" }, modes.element, el("div", { class: "mv-buttons", role: "group", "aria-label": "Zoom" },
          el("button", { type: "button", "aria-label": "Zoom in", onclick: () => plot.zoom(1.5) }, "+"),
          el("button", { type: "button", "aria-label": "Zoom out", onclick: () => plot.zoom(1 / 1.5) }, "−"),
          el("button", { type: "button", title: "Show the whole map", onclick: () => plot.whole() }, "Fit"))),
        el("div", { class: "mv-tools mv-right" }, projection.element)),
      el("div", { class: "mv-foot" }, note, run.kinds.length > 1 ? morph : ""), table.element),
    el("aside", { class: "mv-side", "aria-label": "Settings of the map" },
      el("div", { class: "mv-counts" }, count, el("div", { class: "mv-actions" }, every, reset)),
      controls.element, el("details", { class: "mv-keys" }, el("summary", {}, "Keys and mouse"), el("p", { id: "mv-help" }, HELP))));

  const projectionNow = () => (projections.includes(state.get().projection) ? state.get().projection : projections[0]);
  function placesNow() {
    const name = projectionNow();
    if (!places.has(name)) places.set(name, placesOf(run, name));
    return places.get(name);
  }
  // codes hidden by the legend; of kinds the state has the names
  const hiddenNow = () => (seen.colours.name === "kind" ? new Set() : parseHidden(state.get().hide, seen.colours));
  function kindsOff() { // codes of the kinds that are not shown, for the legend
    const names = kindsShown(state.get().kinds, run);
    return new Set(run.kinds.map((_, code) => code).filter((code) => !names.has(run.kinds[code].name)));
  }

  function toggle(code) {
    if (seen.colours.name === "kind") {
      const names = kindsShown(state.get().kinds, run);
      run.kinds.forEach(({ name }, at) => { // the last entry may stand for several
        if (Math.min(at, seen.colours.entries.length - 1) === code && !names.delete(name)) names.add(name);
      });
      state.set({ kinds: spellKinds(names, run) });
      return;
    }
    const codes = hiddenNow();
    if (!codes.delete(code)) codes.add(code);
    state.set({ hide: spellHidden(codes, seen.colours) });
  }
  function showAll() {
    state.set({ kinds: "", filter: "all", least: "", hide: "" });
  }
  function setMode(mode) {
    modes.set(mode);
    plot.setMode(mode);
  }
  function select(mask) {
    selected = mask?.some((on) => on) ? mask : null;
    const rows = selected ? rowsOf(selected) : [];
    table.setRows(rows);
    table.setChosen(current);
    refreshLooks();
    drawLines();
    refreshCount();
    if (mask) say(`${counted(rows.length)} selected.`);
  }

  function refreshRows() {
    Object.assign(seen, visibleRows(run, state.get(), placesNow().own, seen.colours, hiddenNow()));
    plot.setVisible(seen.visible, seen.shown);
    refreshLegend();
    refreshLooks();
    drawLines();
    refreshCount();
  }
  function refreshLegend() {
    const kind = seen.colours.name === "kind";
    legend.update(seen.colours, seen.counts, kind ? kindsOff() : hiddenNow(), seen.shapes, local.shape);
  }
  function refreshLooks() {
    plot.setLooks(looksOf(run, { visible: seen.visible, shown: seen.shown, colours: seen.colours, shapes: seen.shapes, selected,
      trust: state.get().trust !== "" }));
    note.textContent = [READING[projectionNow()], plot.note()].filter(Boolean).join(" ");
  }
  function drawLines() {
    plot.setLines(local.lines ? linesOf(run, seen.visible, selected) : new Uint32Array(0));
  }
  function refreshCount() {
    const chosen = selected ? rowsOf(selected).length : 0;
    const words = filterWords(run, state.get());
    const unplaced = seen.unplaced ? ` ${counted(seen.unplaced)} without a place on this map.` : "";
    count.replaceChildren(el("b", {}, seen.shown.toLocaleString("en")), ` of ${run.count.toLocaleString("en")} shown, `,
      el("b", {}, chosen.toLocaleString("en")), ` selected.${unplaced}`);
    every.disabled = !seen.shown;
    reset.disabled = seen.shown === run.count && !words;
    none.hidden = seen.shown > 0;
    if (!none.hidden) {
      none.replaceChildren(el("p", {}, `No image passes: ${words || "all entries of the legend are hidden"}.`),
        el("button", { type: "button", class: "primary", onclick: showAll }, "Show everything"));
    }
  }
  function recolour() {
    seen.colours = colouring(run, state.get().colour);
    repaint();
    controls.sync(seen.colours.name);
  }
  function repaint() {
    const share = (name) => rgbOf(variable(name)).map((value) => value / 255);
    plot.setColours(paletteOf(seen.colours), {
      line: share("--soft"), paper: share("--paper"), density: rgbOf(variable("--density")),
      ground: variable("--paper"), ink: variable("--ink"),
    });
  }
  function focusRow() {
    const key = state.get().row;
    if (current < 0 || run.key(current) !== key) current = key ? run.row(key) : -1;
    const family = current < 0 ? null : run.family(current);
    plot.current(current, family ? (current === family.clean ? family.copies : [family.clean].filter((row) => row >= 0)) : []);
    table.setChosen(current);
    return current;
  }

  function follow(_, changed) {
    if (gone) return; // the change that took this view away is told to it as well
    if (changed.has("colour")) recolour();
    if (changed.has("projection")) placeAll();
    if (changed.has("at")) plot.look(state.get().at);
    if (changed.has("morph")) placeMorph();
    if (changed.has("density")) plot.setDensity(state.get().density !== "");
    if (["colour", "projection", "kinds", "filter", "least", "hide"].some((name) => changed.has(name))) refreshRows();
    else if (changed.has("trust")) refreshLooks();
    controls.sync(seen.colours.name);
    if (changed.has("row") && focusRow() >= 0) say(described(run, current));
  }
  function complete(broken) { // columns have come that were not needed to draw the map
    if (gone) return;
    const before = controls.element;
    controls = makeControls();
    before.replaceWith(controls.element);
    recolour();
    refreshRows();
    if (broken) say(broken);
  }
  function placeMorph() {
    const share = Math.min(1, Math.max(0, Number(state.get().morph) || 0));
    morph.set(share);
    plot.setMorph(share);
  }
  function placeAll() {
    const { own, partner } = placesNow();
    projection.set(projectionNow());
    plot.setPlaces(projectionNow(), own, partner);
  }
  const themed = () => { repaint(); refreshLegend(); };

  if (selected) table.setRows(rowsOf(selected));
  main.append(view);
  plot.measure();
  setMode("pan");
  placeAll();
  placeMorph();
  recolour();
  refreshRows();
  plot.setDensity(state.get().density !== "");
  focusRow();
  plot.look(state.get().at);
  if (before && before.current !== current) focusRow(); // chosen elsewhere meanwhile: has to be in sight
  run.late?.then(complete, (error) => { if (!gone) say(error.message); });
  const silent = state.subscribe(follow);
  document.documentElement.addEventListener("heatprint-theme", themed);
  return () => {
    gone = true;
    left.set(run, { selected, current });
    silent();
    document.documentElement.removeEventListener("heatprint-theme", themed);
    plot.dispose();
    view.remove();
  };
}
