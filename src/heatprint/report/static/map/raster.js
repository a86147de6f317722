// All points as plain squares, painted by the processor: what the map shows while it moves where the card is slow.
// (Without a graphics card WebGL needs about ten times as long for 100,000 points as this loop.)

const word = (red, green, blue) => (255 << 24 | blue << 16 | green << 8 | red) >>> 0; // as RGBA lies in memory

// One opaque colour for each row, 0 for hidden ones: its ink on the paper, as much as its opacity.
export function plainColours(looks, palette, paper) {
  const ground = paper.map((value) => 255 * value);
  const colours = new Uint32Array(looks.length / 4);
  for (let row = 0; row < colours.length; row++) {
    if (!looks[4 * row + 3]) continue;
    const at = 4 * looks[4 * row];
    const share = Math.sqrt(looks[4 * row + 2] / 255); // marks that overlap look denser than each alone
    const mixed = (channel) => Math.round(ground[channel] + share * (palette[at + channel] - ground[channel]));
    colours[row] = word(mixed(0), mixed(1), mixed(2));
  }
  return colours;
}

// pixels: uint32, wide * tall, the lowest line first as WebGL has it; side: of the squares, in device pixels
export function paint(pixels, wide, tall, { own, partner }, colours, camera, { ratio, morph, side }) {
  pixels.fill(0);
  const scale = camera.scale * ratio;
  const left = wide / 2 - camera.x * scale - side / 2;
  const bottom = tall / 2 - camera.y * scale - side / 2;
  for (let row = 0; row < colours.length; row++) {
    const colour = colours[row];
    if (!colour) continue;
    const fromX = partner[2 * row];
    const fromY = partner[2 * row + 1];
    const x = Math.round(left + scale * (fromX + morph * (own[2 * row] - fromX)));
    const y = Math.round(bottom + scale * (fromY + morph * (own[2 * row + 1] - fromY)));
    if (x < 0 || y < 0 || x + side > wide || y + side > tall) continue;
    const start = y * wide + x;
    for (let line = start; line < start + side * wide; line += wide) {
      for (let at = line; at < line + side; at++) pixels[at] = colour;
    }
  }
}
