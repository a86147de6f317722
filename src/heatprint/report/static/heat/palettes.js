// Colours for numbers. Diverging palettes have zero in the middle and are told apart by colour-blind eyes.

const STEPS = 511; // odd, so that zero has a colour of its own

const DIVERGING = {
  "blue-red": ["Blue, white, red", // ColorBrewer RdBu, reversed, white in the middle
    ["#053061", "#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#ffffff", "#fddbc7", "#f4a582", "#d6604d", "#b2182b", "#67001f"]],
  "purple-green": ["Purple, white, green", // ColorBrewer PRGn
    ["#40004b", "#762a83", "#9970ab", "#c2a5cf", "#e7d4e8", "#ffffff", "#d9f0d3", "#a6dba0", "#5aae61", "#1b7837", "#00441b"]],
  "blue-yellow": ["Blue, black, yellow",
    ["#9fd8ff", "#56b4f0", "#2a86cc", "#195a92", "#0c2f50", "#000000", "#403600", "#7d6a00", "#bd9f00", "#f0d000", "#fff59a"]],
};
const VIRIDIS = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];
const made = new Map();

// [value, words] of each, for a choice.
export const PALETTES = Object.entries(DIVERGING).map(([name, [title]]) => [name, title]);

// RGB of -1 to 1 in equal steps; an unknown name is the first palette.
export function diverging(name) {
  const known = name in DIVERGING ? name : PALETTES[0][0];
  return table(known, DIVERGING[known][1]);
}

// RGB of 0 to 1 in equal steps.
export const sequential = () => table("viridis", VIRIDIS);

// Where in a table a share from 0 to 1 lies, times three.
export const place = (share) => 3 * Math.round(Math.min(1, Math.max(0, share)) * (STEPS - 1));

function table(name, stops) {
  if (!made.has(name)) {
    const colours = stops.map((word) => [1, 3, 5].map((at) => parseInt(word.slice(at, at + 2), 16)));
    const found = new Uint8Array(3 * STEPS);
    for (let step = 0; step < STEPS; step++) {
      const where = step / (STEPS - 1) * (stops.length - 1);
      const low = Math.min(Math.floor(where), stops.length - 2);
      for (let band = 0; band < 3; band++) {
        found[3 * step + band] = Math.round(colours[low][band] + (where - low) * (colours[low + 1][band] - colours[low][band]));
      }
    }
    made.set(name, found);
  }
  return made.get(name);
}
