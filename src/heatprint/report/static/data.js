// The run: facts, and one typed array per column, read once.

const ARRAYS = { float32: Float32Array, int32: Int32Array, int16: Int16Array, uint8: Uint8Array };

export class Failure extends Error {}

// An answer of the server, or an error that says what it said.
export async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The server does not answer. Is it still running? Start it again and reload this page.");
  }
  if (answer.ok) return answer;
  const text = await answer.text();
  let words = text;
  try { words = JSON.parse(text).error || text; } catch { /* plain text it is */ }
  throw new Failure(words || `The server answered ${answer.status}.`);
}

export const post = (path, value, signal) => ask(path, {
  method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(value), signal,
}).then((answer) => answer.json());

export async function loadRun() {
  const [facts, points] = await Promise.all([
    ask("api/run").then((answer) => answer.json()),
    ask("api/points").then((answer) => answer.arrayBuffer()),
  ]);
  const run = unpack(facts, points, (row) => `api/image/${row}.png?of=${facts.digest}`);
  const drawn = new Promise((done) => { run.drawn = done; }); // to be called when the first view is on the page
  run.late = drawn.then(() => ask("api/more")).then((answer) => add(run, answer));
  run.late.catch(() => {}); // told by the map
  return run;
}

// The columns that a map can be drawn without; resolves to what could not be read, in words.
async function add(run, answer) {
  const { columns, broken } = JSON.parse(answer.headers.get("x-columns"));
  place(run.columns, columns, await answer.arrayBuffer(), run.count);
  run.late = null;
  return broken;
}

function place(columns, told, block, rows) {
  for (const { name, type, width, offset } of told) columns[name] = new ARRAYS[type](block, offset, rows * width);
}

// facts: see columns.py; points: ArrayBuffer; image: row -> address of its picture.
export function unpack(facts, points, image) {
  const columns = {};
  place(columns, facts.columns, points, facts.rows);
  const { kind, label, predicted, pair, pictured, source } = columns;
  const names = unpackNames(facts.ids, points);
  const clean = facts.kinds.findIndex(({ name }) => name === "clean");
  const known = new Map(); // keys that were asked for before -> row
  return {
    ...facts, columns, image,
    count: facts.rows,
    id: (row) => names.at(source[row]),
    key: (row) => `${facts.kinds[kind[row]].name}/${names.at(source[row])}`,
    // the key in small letters, for searches: made of all ids at the first one
    lower: (row) => `${facts.kinds[kind[row]].name.toLowerCase()}/${names.lower()[source[row]]}`,
    // the row of a key, -1 where there is none
    row(word) {
      if (!known.has(word)) known.set(word, find(word));
      return known.get(word);
    },
    title: (row) => facts.kinds[kind[row]].title,
    label: (row) => facts.classes[label[row]] ?? "unknown",
    predicted: (row) => facts.classes[predicted[row]] ?? "unknown",
    isClean: (row) => kind[row] === clean,
    pictured: (row) => !pictured || pictured[row] > 0,
    // attacked copies of the same source, and the clean original, as rows
    family(row) {
      const own = kind[row] === clean ? row : pair[row];
      const copies = [];
      for (let other = 0; other < facts.rows; other++) {
        if (other !== own && pair[other] === own && own >= 0) copies.push(other);
      }
      return { clean: own, copies };
    },
  };

  function find(word) {
    for (const [code, { name }] of facts.kinds.entries()) {
      if (!word.startsWith(`${name}/`)) continue;
      const wanted = names.find(word.slice(name.length + 1));
      for (let row = 0; row < facts.rows; row++) if (kind[row] === code && wanted.has(source[row])) return row;
    }
    return -1;
  }
}

// Ids as they lie in the block: a million strings would cost more than all columns, and few are ever read.
function unpackNames({ count, begins, offset, bytes }, points) {
  const starts = new Uint32Array(points, begins, count + 1), text = new Uint8Array(points, offset, bytes);
  const decoder = new TextDecoder();
  const at = (place) => decoder.decode(text.subarray(starts[place], starts[place + 1]));
  let lowered = null;
  return {
    at,
    lower: () => (lowered ??= Array.from({ length: count }, (_, place) => at(place).toLowerCase())),
    // places of an id: one, but where copies lost their original
    find(id) {
      const wanted = new TextEncoder().encode(id), found = new Set();
      for (let place = 0; place < count; place++) {
        if (starts[place + 1] - starts[place] !== wanted.length) continue;
        let same = 0;
        while (same < wanted.length && text[starts[place] + same] === wanted[same]) same++;
        if (same === wanted.length) found.add(place);
      }
      return found;
    },
  };
}
