// Letting an attack search, which takes seconds: start, progress, stop.

import { ask } from "../data.js";
import { choice, el } from "../dom.js";
import { aborted, live } from "../live.js";

const ASK = 350; // ms between questions about a running search
const OVER = ["done", "failed", "stopped"];

// specimen(): what to start from; found(base): what to do with the image of a search that succeeded.
export function searchPanel(offer, say, signal, { specimen, found }) {
  let wanted = offer.searches[0]?.name ?? "";
  let job = null;
  const start = el("button", { type: "button", class: "primary", onclick: run }, "Start the search");
  const stop = el("button", { type: "button", hidden: true, onclick: halt }, "Stop");
  const bar = el("progress", { "aria-label": "Progress of the search", hidden: true });
  const told = el("p", { class: "hint", role: "status" });
  const problem = el("p", { class: "problem", role: "alert", hidden: true });

  function show(running, words = "") {
    start.disabled = running;
    stop.hidden = bar.hidden = !running;
    stop.disabled = false;
    told.textContent = words;
  }

  function refuse(words) {
    show(false);
    problem.textContent = words;
    problem.hidden = false;
  }

  async function run() {
    problem.hidden = true;
    show(true, "The search begins …");
    stop.focus();
    bar.removeAttribute("value");
    try {
      job = await live("search", { specimen: specimen(), search: wanted }, signal);
      while (!OVER.includes(job.state)) {
        await new Promise((done) => setTimeout(done, ASK));
        job = await ask(`api/live/jobs/${job.job}`, { signal }).then((answer) => answer.json());
        tell(job);
      }
      end(job);
    } catch (error) {
      if (!aborted(error)) refuse(error.message);
    }
    job = null;
  }

  function tell({ state, done, of, note }) {
    if (of) { bar.max = of; bar.value = done; } else bar.removeAttribute("value");
    told.textContent = state === "waiting" ? "Waits for another search to end …" : note || "searching …";
  }

  function end({ state, note, result }) {
    if (state === "failed") { refuse(note); return; }
    const words = state === "stopped" ? "The search was stopped."
      : result.success ? `Found after ${result.queries.toLocaleString("en")} queries. What was found is now the image.`
        : `Nothing was found in ${result.queries.toLocaleString("en")} queries. Try another search.`;
    const held = document.activeElement === stop;
    show(false, words);
    if (held) start.focus();
    say(words);
    if (state === "done" && result.success) found(result.base);
  }

  async function halt() {
    if (!job) return;
    stop.disabled = true;
    told.textContent = "Stopping …";
    try {
      await ask(`api/live/jobs/${job.job}`, { method: "DELETE", signal });
    } catch (error) {
      if (!aborted(error)) refuse(error.message);
    }
  }

  return {
    node: el("section", { class: "panel-box" }, el("h3", {}, "Search"),
      choice("Attack", offer.searches.map(({ name, title }) => [name, title]), wanted, (name) => { wanted = name; }),
      el("div", { class: "buttons" }, start, stop), bar, told, problem),
    // nobody waits for it any more; the server need not go on
    leave() { if (job) fetch(`api/live/jobs/${job.job}`, { method: "DELETE", keepalive: true }).catch(() => {}); },
  };
}
