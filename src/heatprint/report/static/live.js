// Asking the live laboratory.

import { ask, post } from "./data.js";

let known = null; // what the laboratory offers, asked for once

export function about() {
  known ??= ask("api/live").then((answer) => answer.json()).catch((error) => { known = null; throw error; });
  return known;
}

export const live = (path, value, signal) => post(`api/live/${path}`, value, signal);

export const aborted = (error) => error.name === "AbortError";

// One at a time: while one call runs only the newest of those that follow is remembered, and runs next.
export function newest(work, failed) {
  let busy = false, next = null;
  async function run(value) {
    if (busy) { next = { value }; return; }
    busy = true;
    try {
      await work(value);
    } catch (error) {
      if (!aborted(error)) failed(error);
    }
    busy = false;
    if (next) { const { value: waiting } = next; next = null; await run(waiting); }
  }
  run.forget = () => { next = null; };
  run.busy = () => busy;
  return run;
}

export function debounced(work, wait) {
  let timer = 0;
  const run = (...values) => { clearTimeout(timer); timer = setTimeout(() => work(...values), wait); };
  run.forget = () => clearTimeout(timer);
  return run;
}

// The name and address part of an explainer that is offered, the first where the wanted one is not.
export const methodOf = (offer, wanted) =>
  (offer.explainers.find(({ name }) => name === wanted) ?? offer.explainers[0]).name;

// "": the class predicted; "true": the right one; else its number.
export function targetOf(word, label, count) {
  if (word === "" || word === undefined) return null;
  const place = word === "true" ? label : Number(word);
  return Number.isInteger(place) && place >= 0 && place < count ? place : null;
}
