// The point layer in WebGL2: one call draws all points, one all pair lines. Positions are uploaded once a projection.

import { paint, plainColours } from "./raster.js";
import {
  LINE_FRAGMENT, LINE_VERTEX, PICTURE_FRAGMENT, PICTURE_VERTEX, POINT_FRAGMENT, POINT_VERTEX,
  TINY_FRAGMENT,
} from "./shaders.js";

const TINY = 4; // device pixels below which shapes cannot be told

function compile(gl, vertex, fragment) {
  const program = gl.createProgram();
  for (const [type, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
    throw new Error(`The map's shaders do not link: ${gl.getProgramInfoLog(program)}`);
  }
  return program;
}

// null where the browser has no WebGL2. `again` is called when a lost context has come back and must be drawn anew.
export function createPoints(canvas, again) {
  const gl = canvas.getContext("webgl2", { antialias: false, depth: false, stencil: false, alpha: false });
  if (!gl) return null;
  const places = new Map(); // projection -> { own, partner }
  const kept = { looks: new Uint8Array(0), lines: new Uint32Array(0), palette: new Uint8Array(1024), projection: "", cloud: null };
  const plain = { pixels: new Uint32Array(0), colours: null }; // see raster.js; colours are made when wanted
  let device = null; // all that lives on the card; made anew after a loss

  function prepare() {
    const point = compile(gl, POINT_VERTEX, POINT_FRAGMENT);
    const tiny = compile(gl, POINT_VERTEX, TINY_FRAGMENT);
    const line = compile(gl, LINE_VERTEX, LINE_FRAGMENT);
    const picture = compile(gl, PICTURE_VERTEX, PICTURE_FRAGMENT);
    const uniforms = (program, ...names) => Object.fromEntries(names.map((n) => [n, gl.getUniformLocation(program, n)]));
    device = {
      point, tiny, line, picture, places: new Map(), looks: gl.createBuffer(), lines: gl.createBuffer(),
      palette: gl.createTexture(), cloud: gl.createTexture(), plain: gl.createTexture(), bare: gl.createVertexArray(),
      ofPoint: uniforms(point, "centre", "stretch", "morph", "size", "palette", "paper"),
      ofTiny: uniforms(tiny, "centre", "stretch", "morph", "size", "palette"),
      ofLine: uniforms(line, "centre", "stretch", "morph", "ink"),
      ofPicture: uniforms(picture, "box", "picture"),
    };
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    sendLooks();
    sendLines();
    sendPalette();
    sendCloud();
  }

  function sendLooks() {
    gl.bindBuffer(gl.ARRAY_BUFFER, device.looks);
    gl.bufferData(gl.ARRAY_BUFFER, kept.looks, gl.DYNAMIC_DRAW);
  }
  function sendLines() {
    gl.bindVertexArray(null); // the binding of indices belongs to the vertex array that is bound
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, device.lines);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, kept.lines, gl.DYNAMIC_DRAW);
  }
  function sendPalette() {
    gl.bindTexture(gl.TEXTURE_2D, device.palette);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, kept.palette);
    filter(gl.NEAREST);
  }
  function sendCloud() {
    if (!kept.cloud) return;
    gl.bindTexture(gl.TEXTURE_2D, device.cloud);
    gl.pixelStorei(gl.UNPACK_FLIP_Y_WEBGL, true);
    gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, true);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, kept.cloud.picture);
    gl.pixelStorei(gl.UNPACK_FLIP_Y_WEBGL, false);
    gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, false);
    filter(gl.LINEAR);
  }
  function filter(kind) {
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, kind);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, kind);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
  }
  // the vertex array of the projection in use, uploaded when it is first wanted
  function geometry() {
    const there = device.places.get(kept.projection);
    if (there) return there;
    const made = gl.createVertexArray();
    gl.bindVertexArray(made);
    const { own, partner } = places.get(kept.projection);
    [own, partner].forEach((values, location) => {
      gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
      gl.enableVertexAttribArray(location);
      gl.vertexAttribPointer(location, 2, gl.FLOAT, false, 0, 0);
    });
    gl.bindBuffer(gl.ARRAY_BUFFER, device.looks);
    gl.enableVertexAttribArray(2);
    gl.vertexAttribPointer(2, 4, gl.UNSIGNED_BYTE, false, 0, 0);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, device.lines);
    device.places.set(kept.projection, made);
    return made;
  }

  function use(program, { centre, stretch, morph }, camera, share) {
    gl.useProgram(program);
    gl.uniform2f(centre, camera.x, camera.y);
    gl.uniform2f(stretch, 2 * camera.scale / camera.width, 2 * camera.scale / camera.height);
    gl.uniform1f(morph, share);
  }

  function drawPicture(texture, box) {
    gl.bindVertexArray(device.bare);
    gl.useProgram(device.picture);
    gl.uniform4fv(device.ofPicture.box, box);
    gl.uniform1i(device.ofPicture.picture, 0);
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
  }
  function drawCloud(camera) {
    const [left, bottom, right, top] = kept.cloud.box;
    const clip = (x, y) => [2 * camera.scale * (x - camera.x) / camera.width, 2 * camera.scale * (y - camera.y) / camera.height];
    drawPicture(device.cloud, [...clip(left, bottom), ...clip(right, top)]);
  }
  function drawLines(camera, morph, ink) {
    gl.bindVertexArray(geometry());
    use(device.line, device.ofLine, camera, morph);
    gl.uniform4fv(device.ofLine.ink, ink);
    gl.drawElements(gl.LINES, kept.lines.length, gl.UNSIGNED_INT, 0);
  }
  function drawPoints(camera, { ratio, morph, size, paper }) {
    gl.bindVertexArray(geometry());
    const small = size * ratio < TINY;
    const uniforms = small ? device.ofTiny : device.ofPoint;
    use(small ? device.tiny : device.point, uniforms, camera, morph);
    gl.uniform1f(uniforms.size, size * ratio);
    gl.uniform1i(uniforms.palette, 0);
    if (!small) gl.uniform3fv(uniforms.paper, paper);
    gl.bindTexture(gl.TEXTURE_2D, device.palette);
    gl.drawArrays(gl.POINTS, 0, kept.looks.length / 4);
  }
  function drawPlain(camera, { ratio, morph, size, paper }) {
    const { width, height } = canvas;
    gl.bindTexture(gl.TEXTURE_2D, device.plain);
    const extent = `${width} x ${height}`;
    if (device.extent !== extent) {
      plain.pixels = new Uint32Array(width * height);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, width, height, 0, gl.RGBA, gl.UNSIGNED_BYTE, null);
      filter(gl.NEAREST);
      device.extent = extent;
    }
    plain.colours ??= plainColours(kept.looks, kept.palette, paper);
    const side = Math.max(2, Math.round(0.85 * size * ratio));
    paint(plain.pixels, width, height, places.get(kept.projection), plain.colours, camera, { ratio, morph, side });
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(plain.pixels.buffer));
    drawPicture(device.plain, [-1, -1, 1, 1]);
  }

  // size: CSS pixels; ink: rgba of lines in 0 ... 1, null to leave them out; paper: rgb of the ground; hasty: plain squares
  function draw(camera, how) {
    if (!device || !places.has(kept.projection)) return;
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(...how.paper, 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
    if (kept.cloud) drawCloud(camera);
    if (how.ink && kept.lines.length) drawLines(camera, how.morph, how.ink);
    if (how.hasty) drawPlain(camera, how); else drawPoints(camera, how);
  }

  const lost = (event) => {
    event.preventDefault(); // which asks the browser to bring it back
    device = null;
  };
  const restored = () => {
    prepare();
    again();
  };
  canvas.addEventListener("webglcontextlost", lost);
  canvas.addEventListener("webglcontextrestored", restored);
  prepare();

  return {
    note: () => "",
    // own and partner: float32 x, y of each row; a copy moves from its partner's place to its own
    setPlaces(projection, own, partner) {
      if (!places.has(projection)) places.set(projection, { own, partner });
      kept.projection = projection;
    },
    setLooks(looks) { // uint8 [rows, 4]: colour, shape, opacity, size in quarters
      kept.looks = looks;
      plain.colours = null;
      if (device) sendLooks();
    },
    setLines(lines) { // uint32 pairs of rows
      kept.lines = lines;
      if (device) sendLines();
    },
    setPalette(palette) { // uint8 rgba of 256 colours
      kept.palette = palette;
      plain.colours = null;
      if (device) sendPalette();
    },
    setCloud(cloud) { // density.js; null for none
      kept.cloud = cloud;
      if (device) sendCloud();
    },
    draw,
    dispose() {
      canvas.removeEventListener("webglcontextlost", lost);
      canvas.removeEventListener("webglcontextrestored", restored);
      device = null;
      gl.getExtension("WEBGL_lose_context")?.loseContext(); // browsers keep only a few alive
    },
  };
}
