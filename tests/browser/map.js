// Shows the map of a run that the tests drew, and gives them what they need to move about in it.
import { unpack } from "/static/data.js";
import { createState } from "/static/state.js";
import { show } from "/static/map/view.js";
const name = new URLSearchParams(location.search).get("run");
if (location.search.includes("plain")) HTMLCanvasElement.prototype.getContext = new Proxy(
  HTMLCanvasElement.prototype.getContext,
  { apply: (get, canvas, [kind, ...rest]) => (kind === "webgl2" ? null : get.call(canvas, kind, ...rest)) });
const facts = await fetch(`/${name}.json`).then((answer) => answer.json());
const points = await fetch(`/${name}.bin`).then((answer) => answer.arrayBuffer());
window.run = unpack(facts, points, () => "/image.png");
window.state = createState();
window.said = [];
const say = (words) => said.push(words);
const began = performance.now();
window.begin = () => { window.undo = show(document.getElementById("main"), { run, state, say }); };
begin();
window.shownIn = performance.now() - began;
const canvas = document.querySelector(".mv-points");
const at = (kind, x, y, more = {}) => {
  const box = canvas.getBoundingClientRect();
  canvas.dispatchEvent(new PointerEvent(kind, { pointerId: 1, pointerType: "mouse", button: 0, bubbles: true,
    clientX: box.left + x, clientY: box.top + y, ...more }));
};
window.at = at;
// times between frames while `step` is called once in each; the last wait is for the card to have drawn everything
window.frames = async (step, count) => {
  const next = () => new Promise((done) => requestAnimationFrame(() => done(performance.now())));
  const gl = canvas.getContext("webgl2");
  for (let warm = 0; warm < 8; warm++) { step(warm); await next(); }
  const times = [await next()];
  for (let frame = 0; frame < count; frame++) { step(frame); times.push(await next()); }
  gl?.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
  const whole = (performance.now() - times[0]) / count;
  return { times: times.slice(1).map((time, frame) => time - times[frame]), whole };
};
window.ready = true;
