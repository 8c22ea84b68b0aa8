// A text field that suggests as one types, as the ARIA practices describe it.

import { h, say, unique } from "./dom.js";
import { t } from "./words.js";

const REST_MS = 250;

/**
 * `search(text, signal)` answers options: {label, hint, ...}; `typed(text)` hears each change before it; `found(options,
 * text)` what was found; `pick(option)` what was chosen; `failed(error)` why nothing was. The popup lies over the page.
 */
export const combobox = ({ value = "", search, typed, found, pick, failed, attributes }) => {
  const list = unique("options");
  const popup = h("ul", { role: "listbox", id: list, class: "popup", hidden: true });
  const input = h("input", { type: "text", role: "combobox", autocomplete: "off", spellcheck: "false", "aria-autocomplete": "list",
    "aria-expanded": "false", "aria-controls": list, value, ...attributes });
  const element = h("div", { class: "combobox" }, input, popup);
  let options = [];
  let active = -1;
  let timer;
  let asked;

  const close = () => {
    popup.hidden = true;
    active = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const mark = (n) => {
    active = n;
    [...popup.children].forEach((li, at) => li.setAttribute("aria-selected", String(at === n)));
    const li = popup.children[n];
    if (li) input.setAttribute("aria-activedescendant", li.id);
    else input.removeAttribute("aria-activedescendant");
    li?.scrollIntoView({ block: "nearest" });
  };
  const choose = (option) => {
    clearTimeout(timer);
    asked?.abort();
    close();
    pick(option);
  };
  const open = () => {
    popup.replaceChildren(...options.map((option) =>
      h("li", { role: "option", id: unique("option"), "aria-selected": "false", onclick: () => choose(option) },
        h("span", null, option.label), option.hint && h("span", { class: "hint" }, option.hint))));
    popup.hidden = options.length === 0;
    input.setAttribute("aria-expanded", String(!popup.hidden));
    mark(-1);
  };
  const ask = async (text) => {
    // It would ask the same again.
    clearTimeout(timer);
    asked?.abort();
    const mine = (asked = new AbortController());
    try {
      const answer = await search(text, mine.signal);
      if (mine.signal.aborted) return;
      options = answer;
      found?.(options, text);
      if (document.activeElement !== input) return;
      open();
      say(t("base.options", { count: options.length }));
    } catch (error) {
      if (mine.signal.aborted) return;
      options = [];
      open();
      failed?.(error);
    }
  };

  input.addEventListener("input", () => {
    clearTimeout(timer);
    asked?.abort();
    close();
    typed?.(input.value);
    timer = setTimeout(() => ask(input.value), REST_MS);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" && popup.hidden) {
      if (options.length > 0) open();
      else ask(input.value);
    } else if (event.key === "ArrowDown") mark((active + 1) % options.length);
    else if (event.key === "ArrowUp" && !popup.hidden) mark((active <= 0 ? options.length : active) - 1);
    else if (event.key === "Enter" && !popup.hidden && active >= 0) choose(options[active]);
    else if (event.key === "Escape" && !popup.hidden) close();
    else return;
    event.preventDefault();
  });
  // The popup's own clicks must come before it closes.
  popup.addEventListener("mousedown", (event) => event.preventDefault());
  input.addEventListener("blur", close);
  return { element, input, ask, close };
};
