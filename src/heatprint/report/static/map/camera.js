// From the plane of the map to the pixels of the screen and back; both axes have the same scale.

const MARGIN = 28; // CSS pixels around the map when all of it is seen
const HEAD = 56; // and above it, where the buttons are
const DEEPEST = 400; // times the scale at which all is seen
const FARTHEST = 0.4;
const DIGITS = 7; // of a place in words, as many as the places themselves have

export function createCamera() {
  let whole = { x: 0, y: 0, scale: 1 };
  const bounded = (scale) => Math.min(Math.max(scale, FARTHEST * whole.scale), DEEPEST * whole.scale);
  const camera = {
    x: 0, y: 0, scale: 1, // what lies in the middle; CSS pixels per unit
    width: 1, height: 1, // CSS pixels
    get whole() { return camera.x === whole.x && camera.y === whole.y && camera.scale === whole.scale; },
    get depth() { return camera.scale / whole.scale; },

    resize(width, height) {
      camera.width = Math.max(1, width);
      camera.height = Math.max(1, height);
    },

    // what shows all of a box [left, bottom, right, top]
    frame([left, bottom, right, top]) {
      const wide = Math.max(right - left, 1e-6);
      const tall = Math.max(top - bottom, 1e-6);
      const room = [Math.max(camera.width - 2 * MARGIN, 10), Math.max(camera.height - HEAD - MARGIN, 10)];
      const scale = Math.min(room[0] / wide, room[1] / tall);
      whole = { x: (left + right) / 2, y: (bottom + top) / 2 + (HEAD - MARGIN) / 2 / scale, scale };
    },
    reset() { Object.assign(camera, whole); },

    // "x,y,scale", or "" where all is seen; look() takes it up again, and shows all where it cannot be read
    spell: () => (camera.whole ? "" : [camera.x, camera.y, camera.scale].map((one) => Number(one.toPrecision(DIGITS))).join(",")),
    look(words) {
      const [x, y, scale] = words.split(",").map(Number);
      if (Number.isFinite(x) && Number.isFinite(y) && scale > 0) Object.assign(camera, { x, y, scale: bounded(scale) });
      else camera.reset();
    },

    pan(dx, dy) {
      camera.x -= dx / camera.scale;
      camera.y += dy / camera.scale;
    },
    // the place under (x, y) of the screen stays there
    zoom(factor, x = camera.width / 2, y = camera.height / 2) {
      const [atX, atY] = camera.place(x, y);
      camera.scale = bounded(camera.scale * factor);
      camera.x = atX - (x - camera.width / 2) / camera.scale;
      camera.y = atY + (y - camera.height / 2) / camera.scale;
    },
    screen: (x, y) => [
      camera.width / 2 + (x - camera.x) * camera.scale,
      camera.height / 2 - (y - camera.y) * camera.scale,
    ],
    place: (x, y) => [
      camera.x + (x - camera.width / 2) / camera.scale,
      camera.y - (y - camera.height / 2) / camera.scale,
    ],
    // moves as little as is needed to have a place in sight; true if it had to
    reveal(x, y) {
      const [left, top] = camera.screen(x, y);
      const edge = Math.min(MARGIN, camera.width / 4, camera.height / 4);
      const dx = Math.min(Math.max(left, edge), camera.width - edge) - left;
      const dy = Math.min(Math.max(top, edge), camera.height - edge) - top;
      if (dx || dy) camera.pan(dx, dy);
      return dx !== 0 || dy !== 0;
    },
  };
  return camera;
}
