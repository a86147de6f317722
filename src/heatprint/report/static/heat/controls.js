// How heat maps are shown: explainer, class, palette, over the image or beside it.

import { checkbox, choice, el, slider } from "../dom.js";
import { methodOf } from "../live.js";
import { PALETTES } from "./palettes.js";

const OPACITY = 0.6; // of a heat map over its image, to begin with

// offer: of /api/live; null where there is no laboratory.
export function explainControls(run, state, offer) {
  if (!offer) return [];
  const now = state.get();
  const classes = [["", "predicted class"], ["true", "true class"], ...run.classes.map((name, place) => [String(place), name])];
  return [
    choice("Explained by", offer.explainers.map(({ name, title }) => [name, title]), methodOf(offer, now.method),
      (method) => state.set({ method })),
    choice("Explained class", classes, now.target ?? "", (target) => state.set({ target })),
  ];
}

export function paletteControl(state) {
  const now = state.get().palette;
  const known = PALETTES.some(([name]) => name === now) ? now : PALETTES[0][0];
  return choice("Colours", PALETTES, known, (palette) => state.set({ palette }));
}

export function overlayControl(state) {
  const now = state.get();
  const strength = slider("Opacity", { min: 0, max: 1, step: 0.05, value: now.overlay || OPACITY,
    spell: (share) => `${Math.round(100 * share)} %` }, (share) => state.set({ overlay: share }));
  strength.hidden = !now.overlay;
  return el("div", { class: "overlay-choice" },
    checkbox("Heat map over image", Boolean(now.overlay), (on) => {
      strength.hidden = !on;
      state.set({ overlay: on ? strength.querySelector("input").value : "" });
    }), strength);
}

// For picture.heat: limit and palette, and the image below where it is wanted.
export function heatLook(state, limit, pixels) {
  const { palette, overlay } = state.get();
  return overlay ? { limit, palette, under: pixels, opacity: Number(overlay) } : { limit, palette };
}
