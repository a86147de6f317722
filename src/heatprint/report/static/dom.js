// Elements without a library: el("p", { class: "note" }, "words", other).

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && typeof value !== "string") made[name] = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// A labelled choice; options are [value, words].
export function choice(words, options, value, change) {
  const select = el("select", { onchange: () => change(select.value) },
    ...options.map(([name, title]) => el("option", { value: name }, title)));
  select.value = value;
  return el("label", { class: "field" }, el("span", {}, words), select);
}

// A labelled slider with its value in words.
export function slider(words, { min, max, step, value, spell = String }, change) {
  const out = el("output", {}, spell(value));
  const input = el("input", { type: "range", min: String(min), max: String(max), step: String(step), oninput: () => {
    out.textContent = spell(Number(input.value));
    change(Number(input.value));
  } });
  input.value = String(value);
  const field = el("label", { class: "field slider" }, el("span", {}, words), input, out);
  field.set = (now) => { input.value = String(now); out.textContent = spell(Number(now)); };
  return field;
}

export function checkbox(words, checked, change) {
  const input = el("input", { type: "checkbox", onchange: () => change(input.checked) });
  input.checked = checked;
  return el("label", { class: "check" }, input, el("span", {}, words));
}

export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;

export const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
