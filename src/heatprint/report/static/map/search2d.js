// Which point is near, which lies that way, which lie inside: on the processor, where the positions are anyway.

// Box of the places that count, [left, bottom, right, top]; null where none does.
export function boxOf(places, counts) {
  let [left, bottom, right, top] = [Infinity, Infinity, -Infinity, -Infinity];
  for (let row = 0; row < places.length / 2; row++) {
    const x = places[2 * row];
    const y = places[2 * row + 1];
    if ((counts && !counts[row]) || !Number.isFinite(x + y)) continue;
    if (x < left) left = x;
    if (x > right) right = x;
    if (y < bottom) bottom = y;
    if (y > top) top = y;
  }
  return left <= right ? [left, bottom, right, top] : null;
}

// A grid over the visible places, by counting: cell c holds rows[starts[c]] ... rows[starts[c + 1] - 1].
export function buildGrid(places, visible) {
  const box = boxOf(places, visible);
  if (!box) return { nearest: () => -1 };
  const [left, bottom, right, top] = box;
  const side = Math.max(1, Math.min(512, Math.round(Math.sqrt(visible.length / 3))));
  const cell = Math.max(right - left, top - bottom, 1e-9) / side * (1 + 1e-9);
  const column = (x) => Math.min(side - 1, Math.max(0, Math.floor((x - left) / cell)));
  const line = (y) => Math.min(side - 1, Math.max(0, Math.floor((y - bottom) / cell)));
  const counts = (row) => visible[row] && Number.isFinite(places[2 * row] + places[2 * row + 1]);
  const cellOf = (row) => line(places[2 * row + 1]) * side + column(places[2 * row]);
  const starts = new Uint32Array(side * side + 1);
  for (let row = 0; row < visible.length; row++) if (counts(row)) starts[cellOf(row) + 1]++;
  for (let at = 0; at < side * side; at++) starts[at + 1] += starts[at];
  const next = starts.slice();
  const rows = new Uint32Array(starts[side * side]);
  for (let row = 0; row < visible.length; row++) if (counts(row)) rows[next[cellOf(row)]++] = row;

  // the nearest row within a radius, -1 where there is none; of several at one place the last, which is drawn on top
  function nearest(x, y, radius) {
    let best = radius * radius;
    let found = -1;
    for (let up = line(y - radius); up <= line(y + radius); up++) {
      const first = starts[up * side + column(x - radius)];
      const last = starts[up * side + column(x + radius) + 1];
      for (let at = first; at < last; at++) {
        const row = rows[at];
        const away = (places[2 * row] - x) ** 2 + (places[2 * row + 1] - y) ** 2;
        if (away <= best) [best, found] = [away, row];
      }
    }
    return found;
  }
  return { nearest };
}

// The visible place nearest to another one within a quarter turn about a direction; -1 where there is none.
export function towards(places, visible, from, [dx, dy]) {
  const [x, y] = [places[2 * from], places[2 * from + 1]];
  let best = Infinity;
  let found = -1;
  for (let row = 0; row < visible.length; row++) {
    if (!visible[row] || row === from) continue;
    const right = places[2 * row] - x;
    const up = places[2 * row + 1] - y;
    const along = right * dx + up * dy;
    const aside = Math.abs(right * dy - up * dx);
    const away = right * right + up * up;
    if (along > 0 && aside <= along && away < best) [best, found] = [away, row];
  }
  return found;
}

// 1 for each visible row inside a closed polygon (even-odd), 0 for all others.
// Edges are sorted into bands of height first, so that a point meets only the few edges at its own height.
export function rowsInside(polygon, places, visible) {
  const inside = new Uint8Array(visible.length);
  const box = boxOf(Float64Array.from(polygon.flat()));
  if (!box || polygon.length < 3) return inside;
  const [left, bottom, right, top] = box;
  const bands = Math.max(1, Math.min(512, polygon.length));
  const band = (y) => Math.min(bands - 1, Math.max(0, Math.floor((y - bottom) / (top - bottom || 1) * bands)));
  const edges = Array.from({ length: bands }, () => []);
  polygon.forEach(([x, y], corner) => {
    const [fromX, fromY] = polygon[(corner + polygon.length - 1) % polygon.length];
    if (fromY === y) return;
    for (let at = band(Math.min(y, fromY)); at <= band(Math.max(y, fromY)); at++) edges[at].push(fromX, fromY, x, y);
  });
  for (let row = 0; row < visible.length; row++) {
    const x = places[2 * row];
    const y = places[2 * row + 1];
    if (!visible[row] || !(x >= left && x <= right && y >= bottom && y <= top)) continue;
    const near = edges[band(y)];
    let odd = 0;
    for (let at = 0; at < near.length; at += 4) {
      const [fromX, fromY, toX, toY] = [near[at], near[at + 1], near[at + 2], near[at + 3]];
      if (fromY > y !== toY > y && x < fromX + (y - fromY) / (toY - fromY) * (toX - fromX)) odd ^= 1;
    }
    inside[row] = odd;
  }
  return inside;
}
