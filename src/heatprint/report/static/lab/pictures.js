// The laboratory's four pictures: image and heat map, before and now, and the one-pixel vulnerability over the image.

import { heatLook, overlayControl } from "../heat/controls.js";
import { checkbox, el } from "../dom.js";
import { colourBar, heatBar, heatWords, limitOf, short } from "../heat/heat.js";
import { sequential } from "../heat/palettes.js";
import { picture } from "../heat/picture.js";
import { distances } from "../heat/pixels.js";

const RINGED = 64; // changed pixels that are marked
const THROUGH = 0.65; // opacity of the vulnerability map
const ENOUGH = 1; // share of the margin that flips the answer, to first order

export function labPictures({ run, state }, wanted) {
  const before = picture("Before"), beforeHeat = picture("Heat map before"), nowHeat = picture("Heat map now");
  const now = picture("Now", { role: "application", tabIndex: 0, "aria-describedby": "pixel-told", class: "editable" });
  const bar = el("div", { class: "scale-row" }), reachBar = el("div", { class: "scale-row", hidden: true });
  const toggle = checkbox("One-pixel vulnerability over the image", false, (on) => {
    reach = null;
    reachBar.hidden = !on;
    drawNow();
    wanted(on);
  });
  let seen = null, reach = null;

  function drawNow() {
    if (!seen) return;
    const { after, before: first } = seen;
    const far = distances(first.pixels, after.pixels);
    const words = far.l0 ? `${far.l0} pixels differ from before.` : "Nothing is changed yet.";
    const top = reach && Math.max(...reach.values);
    if (reach && Number.isFinite(top)) {
      const limit = Math.min(ENOUGH, limitOf([reach])) || ENOUGH;
      now.reach(reach, { limit, under: after.pixels, opacity: THROUGH }, `${reachWords(reach, top)} ${words}`, "paint here");
      reachBar.replaceChildren(colourBar(`Share of the lead that one pixel at its best colour takes away, to first order; 1 or more may flip the answer. ${reachWords(reach, top)}`,
        sequential(), ["0", short(limit / 2), `${top > limit ? "≥ " : ""}${short(limit)}`]));
    } else {
      now.pixels(after.pixels, words, "paint here");
      reachBar.replaceChildren(el("p", { class: "hint" }, !reach ? "Computing the vulnerability …"
        : "The answer is wrong already, so no further pixel is needed: undo the changes to see the map."));
    }
    now.rings(far.l0 <= RINGED && !reach ? far.changed : [], after.pixels.side);
  }

  function drawHeat() {
    if (!seen) return;
    const { before: first, after } = seen;
    const limit = limitOf([first.heat, after.heat]);
    for (const [shot, look] of [[beforeHeat, first], [nowHeat, after]]) {
      shot.heat(look.heat, heatLook(state, limit, look.pixels), heatWords(look.heat), `for ${run.classes[look.target]}`);
    }
    bar.replaceChildren(heatBar(limit, state.get().palette, "One scale for both maps: against the class, nothing, for the class."),
      ...[...new Set([first.note, after.note])].filter(Boolean).map((words) => el("p", { class: "hint" }, words)));
  }

  return {
    node: el("div", { class: "lab-pictures" }, el("div", { class: "four" }, before.node, now.node, beforeHeat.node, nowHeat.node), bar,
      el("div", { class: "toggles" }, overlayControl(state), toggle), reachBar),
    now, drawHeat,
    wantsReach: () => toggle.querySelector("input").checked,
    set(found) {
      seen = found;
      reach = null;
      const words = found.known ? `true class ${run.classes[found.label]}` : "its answer counts as right";
      before.pixels(found.before.pixels, words, words);
      drawNow();
      drawHeat();
    },
    setReach(map) { if (toggle.querySelector("input").checked) { reach = map; drawNow(); } },
    reachFailed(error) { reachBar.replaceChildren(el("p", { class: "problem", role: "alert" }, error.message)); },
    empty(words) {
      seen = null;
      for (const shot of [before, now, beforeHeat, nowHeat]) shot.empty(words);
      bar.replaceChildren();
    },
  };
}

function reachWords({ side, values }, top) {
  const enough = values.reduce((count, value) => count + (value >= ENOUGH), 0);
  const at = values.indexOf(top);
  const first = enough ? `${enough} ${enough === 1 ? "pixel" : "pixels"} may be enough alone` : "No pixel is enough alone";
  return `${first}; the strongest, row ${Math.floor(at / side)}, column ${at % side}, reaches ${short(top)}.`;
}
