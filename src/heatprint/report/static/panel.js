// A titled box whose content comes later, and may fail to come.

import { el } from "./dom.js";
import { aborted } from "./live.js";

export function panel(title, words = "Loading …") {
  const content = el("div", { class: "content" });
  const node = el("section", { class: "panel-box" }, el("h3", {}, title), content);
  const made = {
    node,
    set(...children) { node.removeAttribute("aria-busy"); content.replaceChildren(...children.filter((child) => child !== null)); },
    wait(text = words) { node.setAttribute("aria-busy", "true"); content.replaceChildren(el("p", { class: "loading" }, text)); },
    none(text) { made.set(el("p", { class: "empty" }, text)); },
    // fill with what `work` returns; where it fails, say why and offer to try again
    async fill(work) {
      made.wait();
      try {
        made.set(...[await work()].flat());
      } catch (error) {
        if (!aborted(error)) made.failed(error, () => made.fill(work));
      }
    },
    failed(error, again) {
      made.set(el("p", { class: "problem", role: "alert" }, error.message),
        again ? el("button", { type: "button", onclick: again }, "Try again") : null);
    },
  };
  made.wait();
  return made;
}
