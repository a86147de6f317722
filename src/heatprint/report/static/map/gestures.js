// Mouse, pen and fingers on the map: pan, zoom, point at, and draw around.

const CLICK = 4; // CSS pixels a press may wander and still be a click
const DOUBLE = 350; // milliseconds between the clicks of a double click
const STEP = 4; // CSS pixels between corners of a lasso

// told: { pan(dx, dy), zoom(factor, x, y), hover(x, y), leave(), click(x, y), open(x, y), drawing(corners), drawn(corners, add) }
// mode(): "pan", "lasso" or "rectangle". Returns how to stop listening.
export function listen(canvas, mode, told) {
  const down = new Map(); // pointer -> where it is
  let press = null; // { x, y, moved, corners, shape }
  let last = { time: -Infinity, x: 0, y: 0 };
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  function start(event) {
    if (event.button !== 0) return;
    const [x, y] = at(event);
    try { canvas.setPointerCapture(event.pointerId); } catch { /* a pointer made by a script */ }
    down.set(event.pointerId, [x, y]);
    if (down.size > 1) { // a second finger: from now on a pinch
      press = null;
      told.drawing(null);
      return;
    }
    const shape = event.shiftKey && mode() === "pan" ? "lasso" : mode();
    press = { x, y, moved: false, shape, corners: [[x, y]] };
  }

  function move(event) {
    const [x, y] = at(event);
    if (!down.has(event.pointerId)) {
      told.hover(x, y);
      return;
    }
    const before = down.get(event.pointerId);
    if (down.size === 2) pinch(event.pointerId, before, [x, y]);
    down.set(event.pointerId, [x, y]);
    if (!press) return;
    press.moved ||= Math.hypot(x - press.x, y - press.y) > CLICK;
    if (!press.moved) return;
    if (press.shape === "pan") {
      told.leave();
      told.pan(x - before[0], y - before[1]);
    } else {
      outline(x, y);
    }
  }

  function pinch(moving, [fromX, fromY], [x, y]) {
    const [, [restX, restY]] = [...down].find(([pointer]) => pointer !== moving);
    told.pan((x - fromX) / 2, (y - fromY) / 2);
    const factor = Math.hypot(x - restX, y - restY) / Math.max(1, Math.hypot(fromX - restX, fromY - restY));
    told.zoom(factor, (x + restX) / 2, (y + restY) / 2);
  }

  function outline(x, y) {
    if (press.shape === "rectangle") {
      press.corners = [[press.x, press.y], [x, press.y], [x, y], [press.x, y]];
    } else {
      const [lastX, lastY] = press.corners.at(-1);
      if (Math.hypot(x - lastX, y - lastY) >= STEP) press.corners.push([x, y]);
    }
    told.drawing(press.corners);
  }

  function end(event) {
    const pressed = press;
    down.delete(event.pointerId);
    press = null;
    if (!pressed || event.type === "pointercancel") {
      told.drawing(null);
      return;
    }
    if (pressed.moved) {
      if (pressed.shape !== "pan") told.drawn(pressed.corners, event.ctrlKey || event.metaKey);
      return;
    }
    const { x, y } = pressed;
    if (event.timeStamp - last.time < DOUBLE && Math.hypot(x - last.x, y - last.y) < 2 * CLICK) told.open(x, y);
    else told.click(x, y);
    last = { time: event.timeStamp, x, y };
  }

  function wheel(event) {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : 1;
    told.zoom(Math.exp(-Math.max(-240, Math.min(240, event.deltaY * lines)) * 0.0022), ...at(event));
  }

  const events = {
    pointerdown: start, pointermove: move, pointerup: end, pointercancel: end, pointerleave: () => told.leave(), wheel,
  };
  for (const [name, heard] of Object.entries(events)) canvas.addEventListener(name, heard, { passive: false });
  return () => {
    for (const [name, heard] of Object.entries(events)) canvas.removeEventListener(name, heard);
  };
}
