// What the graphics card computes: places of points between clean and attacked, and marks from distances.

const WHERE = `#version 300 es
precision highp float;
layout(location = 0) in vec2 own;
layout(location = 1) in vec2 partner;
uniform vec2 centre;
uniform vec2 stretch; // clip units per unit of the map
uniform float morph; // 0 clean, 1 attacked
vec4 where() { return vec4((mix(partner, own, morph) - centre) * stretch, 0.0, 1.0); }
`;

export const POINT_VERTEX = `${WHERE}
layout(location = 2) in vec4 look; // colour, shape, opacity, size in quarters of the usual; size 0 is hidden
uniform sampler2D palette;
uniform float size; // device pixels
flat out vec4 colour;
flat out float shape;
flat out float pixels;
void main() {
  pixels = size * look.w * 0.25;
  gl_Position = look.w == 0.0 ? vec4(2.0, 2.0, 2.0, 1.0) : where();
  gl_PointSize = max(pixels, 1.0);
  vec4 ink = texelFetch(palette, ivec2(int(look.x), 0), 0);
  colour = vec4(ink.rgb, ink.a * look.z / 255.0);
  shape = look.y;
}`;

export const POINT_FRAGMENT = `#version 300 es
precision mediump float;
flat in vec4 colour;
flat in float shape;
flat in float pixels;
uniform vec3 paper;
out vec4 drawn;
float bars(vec2 q) { return min(max(q.x - 0.9, q.y - 0.28), max(q.y - 0.9, q.x - 0.28)); }
float outside(vec2 p) {
  vec2 q = abs(p);
  if (shape < 0.5) return length(p) - 0.82;
  if (shape < 1.5) return (q.x + q.y - 0.98) * 0.7071;
  if (shape < 2.5) return max(q.x, q.y) - 0.74;
  if (shape < 3.5) return max(q.x * 0.866 - p.y * 0.5, p.y) - 0.5;
  if (shape < 4.5) return bars(vec2(q.x + q.y, abs(q.x - q.y)) * 0.7071);
  if (shape < 5.5) return bars(q);
  return max(q.x * 0.866 + p.y * 0.5, -p.y) - 0.5;
}
void main() {
  float opacity = colour.a;
  vec3 ink = colour.rgb;
  float away = outside(gl_PointCoord * 2.0 - 1.0) * pixels * 0.5;
  if (away >= 0.5) discard;
  opacity *= clamp(0.5 - away, 0.0, 1.0);
  if (pixels > 8.0) ink = mix(ink, paper, 0.75 * clamp(away + 1.3, 0.0, 1.0)); // a rim sets neighbours apart
  drawn = vec4(ink * opacity, opacity);
}`;

// marks too small to tell their shape are squares, which a card without hardware draws four times as fast
export const TINY_FRAGMENT = `#version 300 es
precision mediump float;
flat in vec4 colour;
out vec4 drawn;
void main() { drawn = vec4(colour.rgb * colour.a, colour.a); }`;

export const LINE_VERTEX = `${WHERE}
void main() { gl_Position = where(); }`;

export const LINE_FRAGMENT = `#version 300 es
precision mediump float;
uniform vec4 ink;
out vec4 drawn;
void main() { drawn = vec4(ink.rgb * ink.a, ink.a); }`;

// a picture on a rectangle of clip space: density, and points that the processor painted
export const PICTURE_VERTEX = `#version 300 es
precision highp float;
uniform vec4 box; // left, bottom, right, top
out vec2 at;
void main() {
  at = vec2(float(gl_VertexID & 1), float(gl_VertexID >> 1));
  gl_Position = vec4(mix(box.xy, box.zw, at), 0.0, 1.0);
}`;

export const PICTURE_FRAGMENT = `#version 300 es
precision mediump float;
uniform sampler2D picture;
in vec2 at;
out vec4 drawn;
void main() { drawn = texture(picture, at); }`;
