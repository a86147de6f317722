// Finding an image: by its id, or from a few that are shown.

import { el } from "./dom.js";
import { photo } from "./photo.js";

const MOST = 8; // matches that are listed

export const nameOf = (run, row) => (run.isClean(row) ? run.id(row) : `${run.id(row)} (${run.title(row)})`);
export const tail = (id) => id.split("/").pop();

// A field that lists images whose id or attack contains all its words.
export function finder(run, choose) {
  const list = el("ul", { class: "found" });
  const count = el("p", { class: "hint", role: "status" });
  const field = el("input", { type: "search", autocomplete: "off", spellcheck: false, placeholder: "for example cat.12 fgsm", oninput: look });
  function look() {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [];
    let more = 0;
    const titles = run.kinds.map(({ title }) => title.toLowerCase()), classes = run.classes.map((name) => name.toLowerCase());
    const { kind, label } = run.columns;
    for (let row = 0; words.length && row < run.count; row++) {
      const text = `${run.lower(row)} ${titles[kind[row]]} ${classes[label[row]] ?? "unknown"}`;
      if (words.every((word) => text.includes(word))) { if (rows.length < MOST) rows.push(row); else more++; }
    }
    list.replaceChildren(...rows.map((row) => el("li", {}, el("button", { type: "button", onclick: () => choose(row) }, nameOf(run, row)))));
    count.textContent = !words.length ? "" : !rows.length ? "No image has this in its id." : more ? `and ${more} more; type more letters` : "";
  }
  return el("form", { class: "finder", role: "search", onsubmit: (event) => {
    event.preventDefault();
    list.querySelector("button")?.click();
  } }, el("label", { class: "field" }, el("span", {}, "Find an image by its id"), field), list, count);
}

// A picture as a button.
export function thumbnail(run, row, choose, words = [], current = false) {
  const name = `${nameOf(run, row)}, ${run.label(row)}${run.isClean(row) ? "" : `, predicted ${run.predicted(row)}`}`;
  return el("button", { type: "button", class: "thumb", title: name, "aria-label": [name, ...words].join(", "),
    "aria-current": current ? "true" : null, onclick: () => choose(row) },
    photo(run, row, 64), ...words.map((word) => el("span", {}, word)));
}

// Some images of each kind that have a picture, each from a class of its own while there are any.
export function samples(run, most, kinds = run.kinds.map((_, place) => place)) {
  return kinds.map((kind) => {
    const rows = [];
    for (let row = 0; row < run.count && rows.length < 40 * most; row++) {
      if (run.columns.kind[row] === kind && run.pictured(row)) rows.push(row);
    }
    const seen = new Map();
    const turn = rows.map((row) => {
      const label = run.columns.label[row];
      seen.set(label, (seen.get(label) ?? 0) + 1);
      return [seen.get(label), row];
    });
    return [kind, turn.sort((one, two) => one[0] - two[0] || one[1] - two[1]).slice(0, most).map(([, row]) => row)];
  }).filter(([, rows]) => rows.length);
}
