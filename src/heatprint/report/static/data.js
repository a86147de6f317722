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
  return unpack(facts, points, (row) => `api/image/${row}.png?of=${facts.digest}`);
}

// facts: see columns.py; points: ArrayBuffer; image: row -> address of its picture.
export function unpack(facts, points, image) {
  const columns = {};
  for (const { name, type, width, offset } of facts.columns) {
    columns[name] = new ARRAYS[type](points, offset, facts.rows * width);
  }
  const text = new TextDecoder().decode(new Uint8Array(points, facts.ids.offset, facts.ids.bytes));
  const ids = facts.rows ? text.split("\0") : [];
  const key = (row) => `${facts.kinds[columns.kind[row]].name}/${ids[row]}`;
  let rows = null;
  return {
    ...facts, columns, ids, image, key,
    count: facts.rows,
    // the row of a key, -1 where there is none
    row(word) {
      rows ??= new Map(ids.map((_, row) => [key(row), row]));
      return rows.get(word) ?? -1;
    },
    title: (row) => facts.kinds[columns.kind[row]].title,
    label: (row) => facts.classes[columns.label[row]] ?? "unknown",
    predicted: (row) => facts.classes[columns.predicted[row]] ?? "unknown",
    isClean: (row) => facts.kinds[columns.kind[row]].name === "clean",
    // attacked copies of the same source, and the clean original, as rows
    family(row) {
      const own = columns.pair[row];
      const clean = facts.kinds[columns.kind[row]].name === "clean" ? row : own;
      const copies = [];
      for (let other = 0; other < facts.rows; other++) {
        if (other !== clean && columns.pair[other] === clean && clean >= 0) copies.push(other);
      }
      return { clean, copies };
    },
  };
}
