// The pair view: one image clean and attacked, and all that is known of both.

import { finder, samples, thumbnail } from "../chooser.js";
import { explainControls, overlayControl, paletteControl } from "../heat/controls.js";
import { choice, el } from "../dom.js";
import { about, aborted } from "../live.js";
import { makeScene } from "./scene.js";

const CONTROLS = "input, select, textarea, [contenteditable], [role=application]"; // these have keys of their own
const FORWARD = ["j", "ArrowRight"], BACK = ["k", "ArrowLeft"];

export function show(main, { run, state, say }) {
  const head = pairHead(run, state, step);
  const body = el("div", { class: "pair-body" });
  let stop = new AbortController();
  let scene = null;
  main.append(el("div", { class: "pair-view" }, head.node, body));

  async function showRow(told) {
    stop.abort();
    stop = new AbortController();
    const { signal } = stop;
    const word = state.get().row, row = run.row(word);
    head.update(row);
    if (row < 0) {
      scene = null;
      body.replaceChildren(emptyPair(run, state, word));
      return;
    }
    if (!scene) body.replaceChildren(el("p", { class: "loading" }, "Loading the images …"));
    if (told) say(head.words(row));
    try {
      const next = await makeScene({ run, state, say }, row, signal);
      if (signal.aborted) return;
      scene = next;
      body.replaceChildren(scene.node);
      await scene.start();
    } catch (error) {
      if (signal.aborted || aborted(error)) return;
      body.replaceChildren(el("div", { class: "error", role: "alert" }, el("h2", {}, "This pair could not be shown"), el("p", {}, error.message)));
    }
  }

  function step(by) {
    const row = run.row(state.get().row);
    if (row < 0) return;
    const next = head.beside(row, by);
    if (next < 0) say(by > 0 ? "This is the last image of its kind." : "This is the first image of its kind.");
    else state.set({ row: run.key(next) });
  }

  function keys(event) {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.(CONTROLS)) return;
    const by = FORWARD.includes(event.key) ? 1 : BACK.includes(event.key) ? -1 : 0;
    if (!by) return;
    event.preventDefault();
    step(by);
  }

  const leave = state.subscribe((now, changed) => {
    if (now.view !== "pair" && changed.has("view")) return;
    if (changed.has("row")) showRow(true);
    else if (changed.has("method") || changed.has("target")) scene?.explain();
    else if (changed.has("palette") || changed.has("overlay")) scene?.redraw();
  });
  document.addEventListener("keydown", keys);
  showRow(false);
  let gone = false;
  if (!run.live) run.late?.then(() => { if (!gone) showRow(false); }, () => {}); // how sure it was, which nobody else tells
  return () => {
    gone = true;
    stop.abort();
    leave();
    document.removeEventListener("keydown", keys);
  };
}

// Title, previous and next, which copy, and how heat maps are shown; stays while the pairs change.
function pairHead(run, state, step) {
  const title = el("h2", {}), place = el("span", { class: "muted" }), copies = el("div");
  const previous = el("button", { type: "button", onclick: () => step(-1), title: "Key k or arrow left" }, "← Previous");
  const next = el("button", { type: "button", onclick: () => step(1), title: "Key j or arrow right" }, "Next →");
  const search = el("details", { class: "search" }, el("summary", {}, "Find an image"),
    finder(run, (row) => { search.open = false; state.set({ row: run.key(row) }); }));
  const explainers = el("div", { class: "controls" });
  const node = el("div", { class: "pair-head" },
    el("div", { class: "who" }, title, el("div", { class: "steps" }, previous, next, place, search)),
    el("div", { class: "controls" }, copies, explainers, paletteControl(state), overlayControl(state)));
  if (run.live) about().then((offer) => explainers.replaceChildren(...explainControls(run, state, offer)), () => {}); // the scene says what failed
  const order = new Map(); // kind to its rows
  const alike = (row) => {
    const kind = run.columns.kind[row];
    if (order.has(kind)) return order.get(kind);
    const rows = [];
    run.columns.kind.forEach((other, at) => { if (other === kind) rows.push(at); });
    order.set(kind, rows);
    return rows;
  };
  const words = (row) => `${run.id(row)}, ${run.isClean(row) ? "clean" : run.title(row)}, true class ${run.label(row)}, predicted ${run.predicted(row)}`;
  return {
    node, words,
    beside: (row, by) => alike(row)[alike(row).indexOf(row) + by] ?? -1,
    update(row) {
      node.hidden = row < 0;
      if (row < 0) return;
      const rows = alike(row), at = rows.indexOf(row);
      title.textContent = run.id(row);
      place.textContent = `${at + 1} of ${rows.length.toLocaleString("en")}, ${run.isClean(row) ? "clean" : run.title(row)}`;
      previous.disabled = at === 0;
      next.disabled = at === rows.length - 1;
      choices(copies, run, state, row);
    },
  };
}

// The clean original and its attacked copies; the list is renewed in place, so that it keeps the focus.
function choices(where, run, state, row) {
  const { clean, copies } = run.family(row);
  const options = [clean, ...copies].filter((one) => one >= 0)
    .map((one) => [run.key(one), run.isClean(one) ? "clean original" : run.title(one)]);
  const select = where.querySelector("select");
  if (!select) {
    where.replaceChildren(choice("Selected", options, run.key(row), (key) => state.set({ row: key })));
    return;
  }
  select.replaceChildren(...options.map(([value, words]) => el("option", { value }, words)));
  select.value = run.key(row);
}

function emptyPair(run, state, word) {
  const go = (row) => state.set({ row: run.key(row) });
  const attacks = run.kinds.map((_, place) => place).filter((place) => run.kinds[place].name !== "clean");
  return el("div", { class: "start" },
    el("h2", {}, word ? "There is no such image" : "Choose an image"),
    el("p", { class: "hint" }, word ? `This run does not show ${word}. Choose another, or pick one on the map.`
      : "Pick a point on the map, find an image by its id, or begin with one of these."),
    finder(run, go),
    ...samples(run, 8, attacks.length ? attacks : [0]).map(([kind, rows]) => el("section", {},
      el("h3", {}, run.kinds[kind].title),
      el("ul", { class: "thumbs" }, ...rows.map((row) => el("li", {}, thumbnail(run, row, go, [`${run.label(row)} → ${run.predicted(row)}`])))))));
}
