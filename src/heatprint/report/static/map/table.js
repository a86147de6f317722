// The selection as a table: what the map shows, for reading, for keys and for screen readers; and as a file.

import { el } from "../dom.js";
import { photo } from "../photo.js";
import { counted, csvOf, gainOf, sure } from "./spoken.js";

const PAGE = 100;

// told: { open(row), choose(row), clear() }
export function createTable(run, told) {
  const title = el("h2", { class: "mv-table-title" });
  const caption = el("caption", { class: "unseen" }, "Selected images");
  const body = el("tbody", {});
  const where = el("span", { class: "mv-where", "aria-live": "polite" });
  const back = el("button", { type: "button", onclick: () => turn(-1) }, "Previous");
  const on = el("button", { type: "button", onclick: () => turn(1) }, "Next");
  const paging = el("div", { class: "mv-paging" }, back, where, on);
  const head = ["Image", "Id", "True class", "Prediction", "Attack", "Confidence", "Gain"];
  const scroller = el("div", { class: "mv-scroll", tabindex: "0", role: "region", "aria-label": "Table of the selection" },
    el("table", {}, caption,
      el("thead", {}, el("tr", {}, ...head.map((words, at) => el("th", { scope: "col", class: at > 4 && "number" }, words)))),
      body));
  const element = el("section", { class: "mv-drawer", "aria-label": "Selection", hidden: true },
    el("div", { class: "mv-drawer-bar" }, title, paging,
      el("button", { type: "button", onclick: save }, "Save as CSV"),
      el("button", { type: "button", onclick: () => told.clear() }, "Clear")),
    scroller);
  let [rows, page, chosen] = [[], 0, -1];

  function save() {
    const address = URL.createObjectURL(new Blob([csvOf(run, rows)], { type: "text/csv" }));
    const link = el("a", { href: address, download: `${run.name.replace(/[^\w.-]+/g, "_") || "run"}-selection.csv` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 10000); // the download has begun by then
  }

  function line(row) {
    const right = run.predicted(row) === run.label(row);
    return el("tr", { "data-row": String(row), "aria-current": row === chosen && "true", onclick: () => told.choose(row) },
      el("td", {}, photo(run, row, 34)),
      el("th", { scope: "row" }, el("button", { type: "button", class: "mv-link", title: "Open the pair",
        onclick: (event) => { event.stopPropagation(); told.open(row); } }, run.id(row))),
      el("td", {}, run.label(row)),
      el("td", { class: right ? "right" : "wrong" }, run.predicted(row)),
      el("td", {}, run.isClean(row) ? "–" : run.title(row)),
      el("td", { class: "number" }, sure(run, row) || "–"),
      el("td", { class: "number" }, gainOf(run, row) || "–"));
  }

  function fill() {
    const first = page * PAGE;
    const last = Math.min(rows.length, first + PAGE);
    body.replaceChildren(...rows.slice(first, last).map(line));
    title.textContent = `${counted(rows.length)} selected`;
    caption.textContent = `${counted(rows.length)} selected; ${first + 1} to ${last} are listed here.`;
    where.textContent = `${(first + 1).toLocaleString("en")}–${last.toLocaleString("en")} of ${rows.length.toLocaleString("en")}`;
    paging.hidden = rows.length <= PAGE;
    back.disabled = page === 0;
    on.disabled = last === rows.length;
    scroller.scrollTop = 0;
  }
  function turn(step) {
    page += step;
    fill();
  }

  return {
    element,
    setRows(selected) {
      [rows, page] = [selected, 0];
      element.hidden = !rows.length;
      if (rows.length) fill(); else body.replaceChildren();
    },
    setChosen(row) {
      chosen = row;
      for (const one of body.children) {
        if (Number(one.dataset.row) === row) one.setAttribute("aria-current", "true"); else one.removeAttribute("aria-current");
      }
    },
  };
}
