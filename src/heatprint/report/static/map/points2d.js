// The point layer without WebGL2: the same interface on a plain canvas, with a stated sample of large maps.

import { trace } from "./shapes.js";

const MOST = 20000; // points that a plain canvas draws in bearable time
const SMALLEST = 4.5; // device pixels below which a mark is a square

// A fixed series of numbers in 0 ... 1, so that the same sample is drawn each time.
function series(seed) {
  let now = seed;
  return () => {
    now = (now + 0x6d2b79f5) | 0;
    let mixed = Math.imul(now ^ (now >>> 15), 1 | now);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

// At most so many of the rows, in their order, each equally likely.
export function sampled(rows, most) {
  if (rows.length <= most) return rows;
  const random = series(1);
  const kept = [];
  rows.forEach((row, at) => {
    if (random() * (rows.length - at) < most - kept.length) kept.push(row);
  });
  return kept;
}

export function createPoints2d(canvas) {
  const context = canvas.getContext("2d");
  const places = new Map();
  let now = null; // places of the projection in use
  let looks = new Uint8Array(0);
  let lines = new Uint32Array(0);
  let palette = new Uint8Array(1024);
  let groups = new Map(); // marks that look the same are one path
  let cloud = null; // density
  let shown = 0;

  function group() {
    const visible = [];
    for (let row = 0; row < looks.length / 4; row++) if (looks[4 * row + 3]) visible.push(row);
    shown = visible.length;
    groups = new Map();
    for (const row of sampled(visible, MOST)) {
      const key = looks[4 * row] * 2 ** 16 + looks[4 * row + 1] * 2 ** 8 + (looks[4 * row + 2] >> 4) * 16 + looks[4 * row + 3];
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(row);
    }
  }

  function draw(camera, { ratio, morph, size, ink }) {
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, camera.width, camera.height);
    if (!now) return;
    if (cloud) {
      const [left, bottom, right, top] = cloud.box;
      const corner = camera.screen(left, top);
      context.drawImage(cloud.picture, ...corner, (right - left) * camera.scale, (top - bottom) * camera.scale);
    }
    const at = (row) => camera.screen(
      now.partner[2 * row] + morph * (now.own[2 * row] - now.partner[2 * row]),
      now.partner[2 * row + 1] + morph * (now.own[2 * row + 1] - now.partner[2 * row + 1]),
    );
    if (ink) drawLines(at, ink);
    for (const rows of groups.values()) drawGroup(rows, at, size, size * ratio < SMALLEST);
  }

  function drawLines(at, [red, green, blue, alpha]) {
    context.strokeStyle = `rgba(${red * 255}, ${green * 255}, ${blue * 255}, ${alpha})`;
    context.lineWidth = 1;
    context.beginPath();
    for (let end = 0; end < Math.min(lines.length, 2 * MOST); end += 2) {
      context.moveTo(...at(lines[end]));
      context.lineTo(...at(lines[end + 1]));
    }
    context.stroke();
  }

  function drawGroup(rows, at, size, tiny) {
    const [colour, shape, opacity, quarters] = looks.subarray(4 * rows[0], 4 * rows[0] + 4);
    const [red, green, blue] = palette.subarray(4 * colour, 4 * colour + 3);
    const half = size * quarters / 8;
    context.fillStyle = `rgba(${red}, ${green}, ${blue}, ${opacity / 255})`;
    context.beginPath();
    for (const row of rows) {
      const [x, y] = at(row);
      if (tiny) context.rect(x - half, y - half, 2 * half, 2 * half); else trace(context, shape, x, y, half);
    }
    context.fill();
  }

  return {
    note() {
      const less = shown > MOST ? ` It draws a random sample of ${MOST.toLocaleString("en")} of the ${shown.toLocaleString("en")} images shown; counts, selection and table are of all.` : "";
      return `This browser offers no WebGL2, so the map is drawn more slowly.${less}`;
    },
    setPlaces(projection, own, partner) {
      if (!places.has(projection)) places.set(projection, { own, partner });
      now = places.get(projection);
    },
    setLooks(values) {
      looks = values;
      group();
    },
    setLines(values) { lines = values; },
    setPalette(values) { palette = values; },
    setCloud(picture) { cloud = picture; },
    draw,
    dispose() {},
  };
}
