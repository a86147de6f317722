// Marks as geometry, in units of half a mark: what WebGL draws from distances, canvas and legend draw as polygons.

export const SHAPES = ["circle", "diamond", "square", "triangle", "cross", "plus", "triangle down"];

const BAR = 0.28; // half the thickness of cross and plus
const PLUS = [[-BAR, -0.9], [BAR, -0.9], [BAR, -BAR], [0.9, -BAR], [0.9, BAR], [BAR, BAR],
  [BAR, 0.9], [-BAR, 0.9], [-BAR, BAR], [-0.9, BAR], [-0.9, -BAR], [-BAR, -BAR]];
const TURN = Math.SQRT1_2;

// y grows downward, as on a canvas; a circle has no corners
const OUTLINES = [
  null,
  [[0, -0.98], [0.98, 0], [0, 0.98], [-0.98, 0]],
  [[-0.74, -0.74], [0.74, -0.74], [0.74, 0.74], [-0.74, 0.74]],
  [[0, -0.92], [0.84, 0.54], [-0.84, 0.54]],
  PLUS.map(([x, y]) => [TURN * (x - y), TURN * (x + y)]),
  PLUS,
  [[0, 0.92], [0.84, -0.54], [-0.84, -0.54]],
];

// Adds a mark to the path of a 2-D context.
export function trace(context, shape, x, y, half) {
  const outline = OUTLINES[shape];
  if (!outline) {
    context.moveTo(x + 0.82 * half, y);
    context.arc(x, y, 0.82 * half, 0, 2 * Math.PI);
    return;
  }
  outline.forEach(([dx, dy], corner) => {
    if (corner) context.lineTo(x + dx * half, y + dy * half); else context.moveTo(x + dx * half, y + dy * half);
  });
  context.closePath();
}

const SVG = "http://www.w3.org/2000/svg";

// A mark as a small picture for a legend; colour is any CSS colour.
export function glyph(shape, colour) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "-1 -1 2 2");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "mv-glyph");
  const outline = OUTLINES[shape];
  const mark = document.createElementNS(SVG, outline ? "polygon" : "circle");
  if (outline) mark.setAttribute("points", outline.map((corner) => corner.join(",")).join(" "));
  else mark.setAttribute("r", "0.82");
  mark.style.fill = colour;
  svg.append(mark);
  return svg;
}
