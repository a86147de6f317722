// Choosing the image of the laboratory: from the run, or one's own by file, drop or paste.

import { finder, nameOf, samples, thumbnail } from "../chooser.js";
import { ask } from "../data.js";
import { el } from "../dom.js";
import { aborted } from "../live.js";
import { nameOfSpecimen } from "./specimen.js";

const MOST_BYTES = 16 * 2 ** 20; // that the server takes
const KINDS = "image/png,image/jpeg,image/webp,image/bmp,image/gif";
const SAMPLES = 4; // of each kind

export function imagePanel(main, { run, state, say }, signal) {
  const name = el("p", { class: "specimen-name" });
  const problem = el("p", { class: "problem", role: "alert", hidden: true });
  const selected = el("button", { type: "button", hidden: true, onclick: () => take(state.get().row) });
  const file = el("input", { type: "file", accept: KINDS, hidden: true, "aria-label": "Image file", onchange: () => {
    if (file.files[0]) upload(file.files[0]);
    file.value = ""; // so that the same file can be chosen again
  } });
  const button = el("button", { type: "button", onclick: () => file.click() }, "Upload an image");
  const take = (base) => { refuse(""); state.set({ base, origin: "", gain: "0", edits: "" }); };
  const takeRow = (row) => { list.open = !state.get().base; take(run.key(row)); };
  const list = el("details", { class: "from-run" }, el("summary", {}, "Choose from the run"),
    finder(run, takeRow),
    ...samples(run, SAMPLES).map(([kind, rows]) => el("section", {}, el("h4", {}, run.kinds[kind].title),
      el("ul", { class: "thumbs small" }, ...rows.map((row) => el("li", {}, thumbnail(run, row, takeRow, [run.label(row)])))))));

  function refuse(words) {
    problem.textContent = words;
    problem.hidden = !words;
  }

  async function upload(content) {
    if (content.size > MOST_BYTES) {
      refuse(`This file has ${(content.size / 2 ** 20).toFixed(0)} MiB; at most 16 MiB are taken. Make it smaller first.`);
      return;
    }
    refuse("");
    button.disabled = true;
    button.textContent = "Uploading …";
    try {
      const answer = await ask("api/live/upload", { method: "POST", body: content, signal,
        headers: { "content-type": content.type || "application/octet-stream" } }).then((one) => one.json());
      list.open = false;
      take(answer.base);
      say("Your image is in the laboratory.");
    } catch (error) {
      if (!aborted(error)) refuse(error.message);
    }
    button.disabled = false;
    button.textContent = "Upload an image";
  }

  const dropped = (items) => [...items ?? []].find((one) => one instanceof File);
  main.addEventListener("dragover", (event) => { event.preventDefault(); main.classList.add("dropping"); }, { signal });
  main.addEventListener("dragleave", (event) => {
    if (!main.contains(event.relatedTarget)) main.classList.remove("dropping");
  }, { signal });
  main.addEventListener("drop", (event) => {
    event.preventDefault();
    main.classList.remove("dropping");
    const found = dropped(event.dataTransfer?.files);
    if (found) upload(found); else refuse("Only an image file can be dropped here.");
  }, { signal });
  document.addEventListener("paste", (event) => {
    const found = dropped(event.clipboardData?.files);
    if (found) { event.preventDefault(); upload(found); }
  }, { signal });

  return {
    node: el("section", { class: "panel-box image-panel" }, el("h3", {}, "Image"), name,
      el("div", { class: "buttons" }, button, selected), file, problem,
      el("p", { class: "hint" }, "Or drop one on this page, or paste it. It stays on this server, in memory."), list),
    update() {
      const now = state.get();
      name.textContent = now.base ? nameOfSpecimen(run, now) : "None yet. Upload one, or choose one of the run.";
      const row = run.row(now.row);
      selected.hidden = row < 0 || now.row === now.base;
      if (row >= 0) selected.textContent = `Take ${nameOf(run, row).split("/").pop()}`;
      if (!now.base) list.open = true;
    },
    refuse,
  };
}
