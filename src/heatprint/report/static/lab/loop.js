// What the laboratory asks of the server, and when: looks at once, one at a time; verdicts when things have settled.

import { bytesOf, floats } from "../heat/heat.js";
import { aborted, debounced, live, methodOf, newest, targetOf } from "../live.js";
import { readPixels } from "../heat/pixels.js";
import { labelOf, originOf, specimenOf, untouched } from "./specimen.js";

const SETTLED = 250; // ms without a change before the slower questions are asked

// tell: { seen, unseen, judged, unjudged, reached, unreached }, see lab.js.
export function makeLoop({ run, state }, offer, signal, tell) {
  let before = null, current = null, reach = null;
  const alike = (specimen) => JSON.stringify(specimen) === JSON.stringify(current);

  async function see(specimen, method, target) {
    const look = await live("look", { specimen, method, target }, signal);
    return { ...look, heat: { side: look.side, values: floats(look.heat) }, pixels: await readPixels(look.image, signal) };
  }

  const look = newest(async () => {
    const now = state.get(), specimen = specimenOf(run, now), origin = originOf(run, now);
    if (!specimen) throw new Error("There is no such image in this run. Choose another one.");
    const method = methodOf(offer, now.method), known = labelOf(run, now);
    const key = JSON.stringify([origin.base, method, now.target]);
    if (before?.key !== key) before = { key, ...await see(origin, method, targetOf(now.target, known, run.classes.length)) };
    const label = known >= 0 ? known : before.label;
    const after = untouched(specimen, origin) ? before : await see(specimen, method, targetOf(now.target, label, run.classes.length));
    current = specimen;
    tell.seen({ before, after, label, known: known >= 0 });
    settle();
  }, (error) => { current = null; tell.unseen(error); });

  const judge = newest(async (specimen) => {
    const told = await live("judge", specimen, signal);
    if (alike(specimen)) tell.judged(told);
  }, tell.unjudged);

  const settle = debounced(async () => {
    if (signal.aborted || look.busy() || !current) return; // the look that runs will settle again
    if (tell.wantsReach()) await showReach();
    if (current) judge(current);
  }, SETTLED);

  function reachOf(specimen) {
    const key = JSON.stringify(specimen);
    if (reach?.key !== key) {
      const found = live("reach", specimen, signal).then((answer) => ({
        map: { side: answer.side, values: floats(answer.reach) }, colours: bytesOf(answer.colour),
      }));
      found.catch(() => { if (reach?.key === key) reach = null; });
      reach = { key, found };
    }
    return reach.found;
  }

  async function showReach() {
    const specimen = current;
    try {
      const found = await reachOf(specimen);
      if (alike(specimen)) tell.reached(found.map);
    } catch (error) {
      if (!aborted(error)) tell.unreached(error);
    }
  }

  return {
    look: () => look(),
    judge: () => { if (current) judge(current); },
    reach: () => { if (current) showReach(); },
    // the colour that moves the answer most at one place, null where that is not known
    async bestColour(at) {
      try {
        return current && [...(await reachOf(current)).colours.subarray(3 * at, 3 * at + 3)];
      } catch (error) {
        if (!aborted(error)) tell.unreached(error);
        return null;
      }
    },
    leave() { settle.forget(); look.forget(); judge.forget(); },
  };
}
