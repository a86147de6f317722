// The stored picture of an image, or an empty frame that says why there is none.

import { el } from "./dom.js";

export const NO_PICTURE = "This run holds no picture of this image: older versions kept only the clean images of the atlas.";
const BROKEN = "The picture could not be read. Open the pair to see why.";

export function photo(run, row, side) {
  if (!run.pictured(row)) return frame(side, NO_PICTURE);
  const image = el("img", { src: run.image(row), alt: "", loading: "lazy", width: side, height: side,
    onerror: () => image.replaceWith(frame(side, BROKEN)) });
  return image;
}

function frame(side, words) {
  const made = el("span", { class: "no-photo", role: "img", "aria-label": words, title: words }, "?");
  made.style.width = made.style.height = `${side}px`;
  return made;
}
