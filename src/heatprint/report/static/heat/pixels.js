// Pixels of images: { side, data }, data as a canvas gives it, red, green, blue, 255 of each pixel in turn.

import { ask } from "../data.js";

// Read a picture exactly; `source` is an address or a data URI of a square PNG.
export async function readPixels(source, signal) {
  const image = new Image();
  image.src = source;
  try {
    await image.decode();
  } catch {
    if (!source.startsWith("data:")) await ask(source, { signal }); // which throws what the server says
    throw new Error("The image could not be read. Reload the page; if that does not help, the run folder is damaged.");
  }
  signal?.throwIfAborted();
  const canvas = document.createElement("canvas");
  const side = canvas.width = canvas.height = image.naturalWidth;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return { side, data: context.getImageData(0, 0, side, side).data };
}

export function paintPixels(canvas, { side, data }) {
  canvas.width = canvas.height = side;
  canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(data), side), 0, 0);
}

// How far two images are apart: changed pixels (their places), l2 of values from 0 to 1, linf in levels.
export function distances(one, two) {
  const changed = [];
  let squares = 0, most = 0;
  for (let at = 0; at < one.data.length; at += 4) {
    let moved = false;
    for (let band = 0; band < 3; band++) {
      const gap = Math.abs(two.data[at + band] - one.data[at + band]);
      squares += (gap / 255) ** 2;
      most = Math.max(most, gap);
      moved ||= gap > 0;
    }
    if (moved) changed.push(at / 4);
  }
  return { changed, l0: changed.length, l2: Math.sqrt(squares), linf: most };
}

// Second minus first around mid grey, made louder by a whole factor so that the largest change is just visible in full.
export function amplified(one, two, linf) {
  const factor = Math.max(1, Math.floor(127 / Math.max(1, linf)));
  const data = new Uint8ClampedArray(one.data.length);
  for (let at = 0; at < data.length; at++) {
    data[at] = at % 4 === 3 ? 255 : 128 + factor * (two.data[at] - one.data[at]);
  }
  return { factor, pixels: { side: one.side, data } };
}
