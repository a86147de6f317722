// The map as a picture to move about in: point layer, density behind it, rings and lasso in front.

import { createCamera } from "./camera.js";
import { densityOf } from "./density.js";
import { el } from "../dom.js";
import { listen } from "./gestures.js";
import { createPoints } from "./points.js";
import { createPoints2d } from "./points2d.js";
import { boxOf, buildGrid, rowsInside, towards } from "./search2d.js";

const SHARPEST = 2; // device pixels per CSS pixel; more costs much and shows little
const NEAR = 14; // CSS pixels within which a point is meant
const REST = 140; // milliseconds without movement until all is drawn again
const SETTLED = 300; // milliseconds without movement until what is in sight is told
const LATE = 42; // milliseconds after which a frame is late
const TOO_LATE = 250; // and after which one such frame is enough
const MANY = 200000; // points whose first picture the processor paints, which is there sooner; shapes and shades follow
const BUSY_LINES = 4000; // pair lines beyond which they are left out during movement
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

// CSS pixels of a mark: large in a map of few, growing slowly as one comes closer
function markSize(count, depth) {
  const base = Math.min(10, Math.max(2.6, 46 / Math.max(count, 1) ** 0.25));
  return base * Math.min(3, Math.max(0.7, depth ** 0.35));
}

// the more lines, the fainter each
const lineOpacity = (count) => Math.min(0.5, Math.max(0.05, 2.2 / Math.sqrt(count)));

// told: { hover(row, x, y), choose(row), open(row), region(mask, add), clear(), partner(row), mark(row), moving(words),
// rested(place) }; row is -1 for none, mask has one byte a row, words say what waits until the map rests, place is what is in
// sight, see camera.js
export function createPlot(labels, told) {
  const canvas = el("canvas", { class: "mv-layer mv-points", tabindex: "0", role: "application", ...labels });
  const over = el("canvas", { class: "mv-layer mv-over", "aria-hidden": "true" });
  const [lasso, outline] = ["svg", "polygon"].map((tag) => document.createElementNS("http://www.w3.org/2000/svg", tag));
  lasso.setAttribute("class", "mv-layer mv-lasso");
  lasso.append(outline);
  const element = el("div", { class: "mv-plot" }, canvas, over, lasso);
  const camera = createCamera();
  const slow = { late: 0, noticed: false };
  const dirty = { points: false, over: false };
  const now = {
    own: null, partner: null, morph: 1, visible: new Uint8Array(0), shown: 0, lines: 0,
    density: false, colours: null, hovered: -1, current: -1, family: [], mode: "pan", moving: false,
  };
  let places = null; // where the points are at this morph; made when asked for
  let grid = null;
  let cloud = null; // density, made when asked for
  let [frame, resting, settling, framed] = [0, 0, 0, false];
  let early = true; // until the first picture has been seen
  const layer = createPoints(canvas, () => redraw()) ?? createPoints2d(canvas);

  const placed = () => {
    if (places) return places;
    const { own, partner, morph } = now;
    places = morph === 1 ? own : new Float32Array(own.length);
    if (morph !== 1) for (let at = 0; at < own.length; at++) places[at] = partner[at] + morph * (own[at] - partner[at]);
    return places;
  };
  const forget = () => { // the density is of what was there before
    cloud = null;
    layer.setCloud(null);
  };
  const pick = (x, y) => {
    if (!now.own) return -1;
    grid ??= buildGrid(placed(), now.visible);
    return grid.nearest(...camera.place(x, y), NEAR / camera.scale);
  };

  function redraw(points = true) {
    dirty.points ||= points;
    dirty.over = true;
    frame ||= requestAnimationFrame(draw);
  }
  function moved() {
    now.moving = true;
    clearTimeout(resting);
    resting = setTimeout(rest, REST);
    settle();
    redraw();
  }
  function rest() {
    [now.moving, early, resting] = [false, false, 0];
    redraw();
  }
  function settle() {
    clearTimeout(settling);
    settling = setTimeout(settled, SETTLED);
  }
  function settled() {
    settling = 0;
    if (framed) told.rested(camera.spell());
  }

  function draw() {
    frame = 0;
    if (!now.own || !now.colours || camera.width <= 1) return;
    const ratio = Math.min(SHARPEST, devicePixelRatio || 1);
    if (dirty.points) drawPoints(ratio);
    drawOver(ratio);
    dirty.points = dirty.over = false;
  }

  function drawPoints(ratio) {
    const less = now.moving && now.lines > BUSY_LINES;
    const first = early && now.shown > MANY;
    const hasty = first || (now.moving && slow.noticed);
    if (first) resting ||= setTimeout(rest, REST);
    if (!cloud && now.density && !now.moving) {
      cloud = densityOf(placed(), now.visible, boxOf(placed(), now.visible), now.colours.density);
      layer.setCloud(cloud);
    }
    layer.draw(camera, {
      ratio, morph: now.morph, size: markSize(now.shown, camera.depth), hasty,
      ink: now.lines && !less ? [...now.colours.line, lineOpacity(now.lines)] : null, paper: now.colours.paper,
    });
    told.moving([less && "pair lines return", hasty && now.shown > 2000 && "marks take their shapes"].filter(Boolean));
    if (now.moving && !slow.noticed) watch(performance.now());
  }
  // the next frame comes late where the card cannot keep up
  function watch(began) {
    requestAnimationFrame(() => {
      const took = performance.now() - began;
      slow.late = took > TOO_LATE ? 3 : took > LATE ? slow.late + 1 : 0;
      if (slow.late >= 3) slow.noticed = true;
    });
  }

  function drawOver(ratio) {
    over.hidden = now.hovered < 0 && now.current < 0; // an empty layer would cost as much as a full one
    if (over.hidden) return;
    const context = over.getContext("2d", { willReadFrequently: true }); // drawn by the processor: little and often
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, camera.width, camera.height);
    const half = markSize(now.shown, camera.depth) / 2;
    if (now.current >= 0) drawFamily(context, half);
    for (const [row, width] of [[now.hovered, 1.5], [now.current, 2.5]]) if (row >= 0) ring(context, row, half + 4, width);
  }
  function ring(context, row, radius, width) {
    const [x, y] = camera.screen(placed()[2 * row], placed()[2 * row + 1]);
    for (const [colour, wide] of [[now.colours.ground, width + 2.5], [now.colours.ink, width]]) {
      context.strokeStyle = colour;
      context.lineWidth = wide;
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      context.stroke();
    }
  }
  // the chosen image is tied to its original, or to its attacked copies
  function drawFamily(context, half) {
    const at = (row) => camera.screen(placed()[2 * row], placed()[2 * row + 1]);
    context.strokeStyle = now.colours.ink;
    context.lineWidth = 1.5;
    for (const other of now.family) {
      if (!now.visible[other]) continue;
      context.beginPath();
      context.moveTo(...at(now.current));
      context.lineTo(...at(other));
      context.stroke();
      ring(context, other, half + 2, 1.2);
    }
  }
  function enclose(corners) {
    outline.setAttribute("points", (corners ?? []).map((corner) => corner.map(Math.round).join(",")).join(" "));
  }

  function hover(row, x, y) {
    if (row !== now.hovered) {
      now.hovered = row;
      redraw(false);
    }
    told.hover(row, x, y);
  }
  function current(row, family) {
    Object.assign(now, { current: row, family });
    if (row >= 0 && now.own && camera.reveal(placed()[2 * row], placed()[2 * row + 1])) moved(); else redraw(false);
  }

  const gestures = {
    pan(dx, dy) { camera.pan(dx, dy); moved(); },
    zoom(factor, x, y) { hover(-1); camera.zoom(factor, x, y); moved(); },
    hover: (x, y) => hover(pick(x, y), x, y),
    leave: () => hover(-1),
    click: (x, y) => told.choose(pick(x, y)),
    open(x, y) { const row = pick(x, y); if (row >= 0) told.open(row); else whole(); },
    drawing(corners) { hover(-1); enclose(corners); },
    drawn(corners, add) {
      enclose(null);
      told.region(rowsInside(corners.map(([x, y]) => camera.place(x, y)), placed(), now.visible), add);
    },
  };
  const deaf = listen(canvas, () => now.mode, gestures);

  function middle() { // where a walk by keys begins
    let [best, found] = [Infinity, -1];
    for (let row = 0; row < now.visible.length; row++) {
      const away = (placed()[2 * row] - camera.x) ** 2 + (placed()[2 * row + 1] - camera.y) ** 2;
      if (now.visible[row] && away < best) [best, found] = [away, row];
    }
    return found;
  }
  function walk(direction) {
    const from = now.current >= 0 && now.visible[now.current] ? now.current : -1;
    const next = from < 0 ? middle() : towards(placed(), now.visible, from, direction);
    if (next >= 0) told.choose(next);
  }
  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = ARROWS[event.key] ? () => walk(ARROWS[event.key]) : {
      "+": () => gestures.zoom(1.3), "=": () => gestures.zoom(1.3), "-": () => gestures.zoom(1 / 1.3), 0: whole,
      Enter: () => now.current >= 0 && told.open(now.current),
      " ": () => now.current >= 0 && told.mark(now.current),
      n: () => now.current >= 0 && told.partner(now.current),
      Escape: () => { gestures.drawing(null); told.clear(); },
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }
  canvas.addEventListener("keydown", key);

  function whole() {
    frameAll();
    camera.reset();
    settle();
    redraw();
  }
  function look(place) {
    if (!framed || place === camera.spell()) return;
    camera.look(place);
    moved();
  }
  // all points of this projection, clean and attacked, so that neither filter nor morph moves the ground
  function frameAll() {
    const box = now.own && boxOf(now.own);
    if (box) camera.frame(box);
  }
  function resize() {
    const ratio = Math.min(SHARPEST, devicePixelRatio || 1);
    const { width, height } = element.getBoundingClientRect();
    if (!width || !height) return;
    const whole = camera.whole || !framed;
    camera.resize(width, height);
    for (const one of [canvas, over]) {
      [one.width, one.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    }
    frameAll();
    if (whole) camera.reset();
    framed = true;
    if (frame) cancelAnimationFrame(frame);
    dirty.points = true;
    draw(); // at once: a canvas that changed its size is empty
  }
  const observer = new ResizeObserver(resize);
  observer.observe(element);

  return {
    element, canvas, camera, note: layer.note, pick, places: placed, whole, look, current,
    measure: resize, // once it is on the page; from then on it follows by itself
    zoom: (factor) => gestures.zoom(factor),
    setMode(mode) { now.mode = mode; canvas.dataset.mode = mode; },
    setPlaces(name, own, partner) {
      const other = own !== now.own;
      Object.assign(now, { own, partner });
      places = grid = null;
      forget();
      layer.setPlaces(name, own, partner);
      if (other) whole(); else redraw();
    },
    setMorph(share) {
      if (share === now.morph) return;
      now.morph = share;
      places = grid = null;
      forget();
      moved();
    },
    setVisible(visible, shown) {
      Object.assign(now, { visible, shown });
      if (now.hovered >= 0 && !visible[now.hovered]) hover(-1);
      grid = null;
      forget();
    },
    setLooks(looks) { layer.setLooks(looks); redraw(); },
    setLines(lines) { now.lines = lines.length / 2; layer.setLines(lines); redraw(); },
    setDensity(on) { now.density = on; forget(); redraw(); },
    setColours(palette, colours) { now.colours = colours; forget(); layer.setPalette(palette); redraw(); },
    dispose() {
      deaf();
      observer.disconnect();
      canvas.removeEventListener("keydown", key);
      cancelAnimationFrame(frame);
      clearTimeout(resting);
      if (settling) { // left before it could be told
        clearTimeout(settling);
        settled();
      }
      layer.dispose();
    },
  };
}
