// Which images are shown: by attack, by what became of them, by least gain and by name.

export const FILTERS = [
  ["all", "All images"],
  ["flipped", "Prediction flipped"],
  ["moved", "Heat map moved, answer did not"],
];
export const wordsOf = (preset) => FILTERS.find(([name]) => name === preset)[1];

// "flipped:dog.12" is the preset and the text that ids contain.
export function parseFilter(words) {
  const colon = words.indexOf(":");
  const preset = colon < 0 ? words : words.slice(0, colon);
  return {
    preset: FILTERS.some(([name]) => name === preset) ? preset : "all",
    text: colon < 0 ? "" : words.slice(colon + 1),
  };
}
export const spellFilter = ({ preset, text }) => (text ? `${preset}:${text}` : preset);

// "" is every kind; otherwise names between bars, so that "|" is none.
export const kindsShown = (words, run) =>
  new Set(words === "" ? run.kinds.map(({ name }) => name) : words.split("|").filter(Boolean));
export function spellKinds(names, run) {
  const kept = run.kinds.map(({ name }) => name).filter((name) => names.has(name));
  return kept.length === run.kinds.length ? "" : kept.join("|") || "|";
}

// "label:0.2" are the codes that the legend of a colouring hides; they wait while another colouring is shown.
export function parseHidden(words, { name, entries }) {
  const [whose, codes] = words.split(":");
  const named = whose === name && codes ? codes.split(".") : [];
  return new Set(entries.map(({ code }) => code).filter((code) => named.includes(String(code))));
}
export const spellHidden = (codes, { name }) =>
  (codes.size ? `${name}:${[...codes].sort((one, other) => one - other).join(".")}` : "");

// What the heat maps of half of the successful copies exceed; NaN where nothing succeeded.
export function usualMove(run) {
  const { moved, success } = run.columns;
  if (!moved) return NaN;
  const found = moved.filter((far, row) => success[row] && !run.isClean(row) && Number.isFinite(far)).sort(); // by number
  const half = found.length >> 1;
  return found.length % 2 ? found[half] : (found[half - 1] + found[half]) / 2;
}

// Why no copy of the run can pass the preset "moved"; "" where one may.
export function whyNoneMoved(run) {
  const { pair, predicted } = run.columns;
  const kept = predicted.some((answer, row) => !run.isClean(row) && pair[row] >= 0 && answer === predicted[pair[row]]);
  if (!kept) return "no copy in this run keeps the answer of its original";
  return Number.isFinite(usualMove(run)) ? "" : "this run has no heat maps of copies that succeeded to compare with";
}

// Uint8 [rows]: 1 for what passes. Presets and least gain speak of attacked copies; originals of these stay in sight.
export function passing(run, { kinds, filter, least }) {
  const { preset, text } = parseFilter(filter);
  const { kind, pair, predicted, success, moved, gain } = run.columns;
  const wanted = kindsShown(kinds, run);
  const kindOn = run.kinds.map(({ name }) => wanted.has(name));
  const most = least === "" ? Infinity : Number(least);
  const far = preset === "moved" ? usualMove(run) : NaN;
  const lower = text.toLowerCase();
  const tests = [];
  if (preset === "flipped") tests.push((row) => success[row]);
  if (preset === "moved" && moved) tests.push((row) => moved[row] > far && predicted[row] === predicted[pair[row]]);
  if (Number.isFinite(most) && gain) tests.push((row) => gain[row] >= 0 && gain[row] <= most);
  const named = (row) => !lower || run.lower(row).includes(lower);
  const passes = new Uint8Array(run.count);
  if (!tests.length && !lower && kindOn.every(Boolean)) return passes.fill(1);
  for (let row = 0; row < run.count; row++) {
    if (run.isClean(row)) {
      if (!tests.length && kindOn[kind[row]] && named(row)) passes[row] = 1;
    } else if (kindOn[kind[row]] && tests.every((test) => test(row)) && named(row)) {
      passes[row] = 1;
      const original = pair[row];
      if (tests.length && original >= 0 && kindOn[kind[original]]) passes[original] = 1;
    }
  }
  return passes;
}

// The filter in words, for the sentence above the map; "" where everything is shown.
export function filterWords(run, { kinds, filter, least }) {
  const { preset, text } = parseFilter(filter);
  const off = run.kinds.filter(({ name }) => !kindsShown(kinds, run).has(name)).map(({ title }) => title);
  return [
    preset === "all" ? "" : wordsOf(preset).toLowerCase(),
    least === "" ? "" : `minimal gain at most ${least}`,
    text ? `names with “${text}”` : "",
    off.length ? `without ${off.join(", ")}` : "",
  ].filter(Boolean).join("; ");
}
