// How many images lie where: a histogram over the map, smoothed, as a small picture that is stretched behind the points.

const CELLS = 160; // along the longer side
const PASSES = 3; // of a running mean; three come close to a Gaussian
const REACH = 3; // cells to each side

// { picture: canvas, box: [left, bottom, right, top] } or null where nothing is visible; rgb: 0 ... 255.
export function densityOf(places, visible, box, rgb) {
  if (!box) return null;
  const pad = 0.06 * Math.max(box[2] - box[0], box[3] - box[1], 1e-6);
  const [left, bottom, right, top] = [box[0] - pad, box[1] - pad, box[2] + pad, box[3] + pad];
  const cell = Math.max(right - left, top - bottom) / CELLS;
  const wide = Math.max(1, Math.ceil((right - left) / cell));
  const tall = Math.max(1, Math.ceil((top - bottom) / cell));
  let counts = new Float32Array(wide * tall);
  for (let row = 0; row < visible.length; row++) {
    const x = Math.floor((places[2 * row] - left) / cell);
    const y = Math.floor((top - places[2 * row + 1]) / cell);
    if (visible[row] && x >= 0 && x < wide && y >= 0 && y < tall) counts[y * wide + x]++;
  }
  for (let pass = 0; pass < PASSES; pass++) {
    counts = smoothed(counts, wide, tall, 1, wide);
    counts = smoothed(counts, tall, wide, wide, 1);
  }
  return { picture: painted(counts, wide, tall, rgb), box: [left, top - tall * cell, left + wide * cell, top] };
}

// A running mean along lines of `length` entries that lie `step` apart; `lines` of them, `next` apart.
function smoothed(values, length, lines, step, next) {
  const out = new Float32Array(values.length);
  for (let line = 0; line < lines; line++) {
    let sum = 0;
    for (let at = -REACH; at < length; at++) {
      if (at + REACH < length) sum += values[line * next + (at + REACH) * step];
      if (at - REACH - 1 >= 0) sum -= values[line * next + (at - REACH - 1) * step];
      if (at >= 0) out[line * next + at * step] = sum / (2 * REACH + 1);
    }
  }
  return out;
}

function painted(counts, wide, tall, [red, green, blue]) {
  const picture = document.createElement("canvas");
  [picture.width, picture.height] = [wide, tall];
  const context = picture.getContext("2d");
  const pixels = context.createImageData(wide, tall);
  const most = counts.reduce((high, count) => Math.max(high, count), 0) || 1;
  counts.forEach((count, at) => {
    pixels.data.set([red, green, blue, 150 * (count / most) ** 0.7], 4 * at); // the power shows thin places too
  });
  context.putImageData(pixels, 0, 0);
  return picture;
}
