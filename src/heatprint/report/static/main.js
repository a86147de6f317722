// The page: tabs, the view that is chosen, and what all views share.

import { ask, loadRun } from "./data.js";
import { el } from "./dom.js";
import { createState } from "./state.js";

const VIEWS = [
  ["map", "Map", () => import("./map/view.js")],
  ["pair", "Pair", () => import("./pair/view.js")],
  ["lab", "Laboratory", () => import("./lab/view.js")],
  ["clusters", "Strategies"],
  ["results", "Results"],
  ["detection", "Detectors"],
  ["defences", "Defences"],
];
const root = document.documentElement;
const main = document.getElementById("main");
const status = document.getElementById("status");
const state = createState();
let shown = null; // what the present view needs to be told when it goes
let latest = 0; // views are loaded one after the other; only the latest may draw

let silence = 0;
function say(words) { // long enough to be read, not for ever
  clearTimeout(silence);
  status.textContent = words;
  silence = setTimeout(() => { status.textContent = ""; }, 4000 + 60 * words.length);
}

function fail(error) {
  main.replaceChildren(el("div", { class: "error", role: "alert" },
    el("h2", {}, "This view could not be shown"), el("p", {}, error.message)));
}

function tabs(run) {
  const bar = document.getElementById("tabs");
  bar.replaceChildren(...VIEWS.filter(([name]) => name !== "lab" || run.live).map(([name, title]) =>
    el("a", { href: `#view=${name}`, "data-view": name, onclick: (event) => {
      event.preventDefault();
      state.set({ view: name });
    } }, title)));
}

function mark(view) {
  for (const tab of document.querySelectorAll("#tabs a")) {
    if (tab.dataset.view !== view) {
      tab.removeAttribute("aria-current");
      continue;
    }
    tab.setAttribute("aria-current", "page");
    tab.scrollIntoView({ block: "nearest", inline: "nearest" }); // in narrow windows the tabs scroll
  }
}

async function fragment(name) {
  const text = await ask(`view/${name}`).then((answer) => answer.text());
  const page = new DOMParser().parseFromString(text, "text/html");
  return el("div", { class: "prose" }, ...page.body.childNodes);
}

async function draw(run) {
  const mine = ++latest;
  const [name, title, load] = VIEWS.find(([one]) => one === state.get().view) ?? VIEWS[0];
  shown?.();
  shown = null;
  mark(name);
  main.className = `view-${name}`;
  main.replaceChildren(el("p", { class: "loading" }, `Loading ${title.toLowerCase()} …`));
  document.title = `${title} · ${run.name} · heatprint`;
  try {
    const made = load ? await load() : await fragment(name);
    if (mine !== latest) return;
    main.replaceChildren();
    if (load) shown = made.show(main, { run, state, say }); else main.append(made);
  } catch (error) {
    if (mine === latest) fail(error);
    if (!(error instanceof Error) || error.constructor === TypeError) console.error(error);
  }
}

function theme() {
  const night = matchMedia("(prefers-color-scheme: dark)");
  const told = () => root.dispatchEvent(new Event("heatprint-theme"));
  document.getElementById("theme").addEventListener("click", () => {
    const dark = (root.dataset.theme || (night.matches ? "dark" : "light")) === "dark";
    root.dataset.theme = dark ? "light" : "dark";
    told();
  });
  night.addEventListener("change", told);
}

function share() {
  const button = document.getElementById("share");
  button.addEventListener("click", async () => {
    try {
      state.flush();
      await navigator.clipboard.writeText(location.origin + location.pathname + location.hash); // never a token
      say("The address of this view is in the clipboard. Whoever opens it must know the server's token.");
    } catch { // a page that is not on loopback or https has no clipboard
      say(`Copy this: ${location.origin}${location.pathname}${location.hash}`);
    }
  });
}

function skipping() { // the address holds the state, so the link must not go there
  document.querySelector("a.skip").addEventListener("click", (event) => {
    event.preventDefault();
    main.focus();
  });
}

async function start() {
  skipping();
  theme();
  share();
  try {
    const run = await loadRun();
    document.getElementById("run-name").textContent = run.name;
    tabs(run);
    state.subscribe((_, changed) => { if (changed.has("view")) { draw(run); main.focus({ preventScroll: true }); } });
    addEventListener("hashchange", () => state.reload());
    await draw(run);
    requestAnimationFrame(() => requestAnimationFrame(run.drawn));
  } catch (error) {
    fail(error);
  }
}

start();
