// What several pages are made of.

import { user } from "./auth.js";
import { confirm, h, problem, refusal, say, unique } from "./dom.js";
import { has, t } from "./words.js";

/** Whether whoever looks may change something. */
export const mayChange = () => user()?.role === "operator";

/** The sentence for those who may not; nothing for the others. */
export const viewerNotice = () => !mayChange() && h("p", { class: "notice" }, t("base.viewer_only"));

/**
 * A button that changes something. `not` says why it cannot be used now: it keeps its place, can be reached by the
 * keyboard, and says why. While it works it takes no second click; what goes wrong is shown in `out`.
 * @param run answers false where somebody thought better of it
 */
export const action = (label, run, { not = null, out = null, kind = null, focus = null, changes = true } = {}) => {
  const reason = changes && !mayChange() ? t("base.viewer_only") : not;
  const hint = reason && h("span", { class: "unseen", id: unique("why") }, reason);
  let busy = false;
  const button = h("button", {
    type: "button",
    class: kind,
    title: reason,
    "aria-disabled": reason ? "true" : null,
    "aria-describedby": hint ? hint.id : null,
    "data-focus": focus,
    onclick: async () => {
      if (reason) return say(reason);
      if (busy) return;
      busy = true;
      button.setAttribute("aria-busy", "true");
      out?.replaceChildren();
      try {
        await run();
      } catch (error) {
        // One at a time; the message is an alert of its own.
        if (out) out.replaceChildren(problem(error));
        else throw error;
      } finally {
        busy = false;
        button.removeAttribute("aria-busy");
      }
    },
  }, label);
  return hint ? h("span", { class: "with-reason" }, button, hint) : button;
};

/** The same, after a question that says what will happen. */
export const asked = (label, question, run, options) =>
  action(label, async () => ((await confirm(question)) ? run() : false), options);

/**
 * A table that scrolls by itself where the screen is narrow.
 * @param columns each with a `label`, a `cell` of a row, and `n` where it is a number
 */
export const table = (caption, columns, rows, { unseen = false } = {}) => {
  const body = h("tbody");
  const add = (more) => body.append(...more.map((row) => h("tr", null, columns.map((column, n) =>
    n === 0 && column.head
      ? h("th", { scope: "row", class: column.n && "n" }, column.cell(row))
      : h("td", { class: column.n && "n" }, column.cell(row))))));
  add(rows);
  const all = h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": caption },
    h("table", null, h("caption", { class: unseen ? "unseen" : null }, caption),
      h("thead", null, h("tr", null, columns.map(({ label, n }) => h("th", { scope: "col", class: n && "n" }, label)))), body));
  all.add = add;
  return all;
};

/** A button under a list that brings its next page; gone when there is none. */
export const more = (next, load) => {
  const box = h("div", { class: "buttons" });
  const out = h("div");
  const show = (path) =>
    box.replaceChildren(...(path ? [action(t("part.more"), async () => show(await load(path)), { out, changes: false }), out] : []));
  show(next);
  return box;
};

const ICONS = { good: "✓", warn: "!", bad: "✕", soft: "○" };

/** A word with a colour and a sign, so that neither stands alone. */
export const tag = (kind, word) =>
  h("span", { class: `tag ${kind}` }, h("span", { "aria-hidden": "true" }, `${ICONS[kind]} `), word);

/** Offers text as a file. */
export const saveFile = (name, text, type) => {
  const href = URL.createObjectURL(new Blob([text], { type }));
  h("a", { href, download: name }).click();
  // The browser has begun to read it by then.
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
};

/** A sentence of the API's in the language of the screen, by its code, which may be a refusal's; in English where it is unknown. */
const inWords = (sentence, code, values) =>
  has(`why.${code}`) ? t(`why.${code}`, values ?? {}) : refusal({ code, values: values ?? {}, detail: sentence });

/** Why something is as it is: what stands there as `why`. */
export const whyIs = ({ why, why_code: code, why_values: values }) => inWords(why, code, values);

/** Why a line could not be taken. */
export const reasonIs = ({ reason, code, values }) => inWords(reason, code, values);

/** A value or the error, for what a page can do without. */
export const soft = async (promise) => {
  try {
    return { value: await promise };
  } catch (error) {
    return { error };
  }
};

/** A part of a page that fails by itself. */
export const part = async (promise, render) => {
  const { value, error } = await soft(promise);
  return error ? problem(error) : render(value);
};

/** Where the pieces stand that carry a name in `data-spot`. */
const spots = (box) => new Map([...box.querySelectorAll("[data-spot]")].map((one) => [one.dataset.spot, `${one.offsetLeft} ${one.offsetTop}`]));

/**
 * Places whose content changes while somebody reads. What fits is put there at once; what would push the rest of the
 * page down, or a piece with a `data-spot` elsewhere, waits until somebody asks for it.
 */
export const places = () => {
  const waiting = new Map();
  const button = h("button", { type: "button", class: "main", onclick: () => {
    for (const [box, node] of waiting) replace(box, node);
    settle();
  } }, t("part.show_news"));
  const band = h("div", { class: "news", role: "status" });
  const settle = () => {
    waiting.clear();
    band.replaceChildren();
  };
  const replace = (box, node) => {
    const focus = box.contains(document.activeElement) && document.activeElement.dataset.focus;
    box.style.removeProperty("min-height");
    box.replaceChildren(node);
    if (focus) box.querySelector(`[data-focus="${CSS.escape(focus)}"]`)?.focus({ preventScroll: true });
  };
  const place = () => {
    const box = h("div");
    let last;
    /** Puts something there if `data` is not as it was. `now`: even if the page moves, for somebody has asked for it. */
    box.put = (data, render, now = false) => {
      const text = JSON.stringify(data);
      if (text === last && !now) return;
      last = text;
      const node = render();
      const old = [...box.childNodes];
      const [before, stood] = [box.offsetHeight, spots(box)];
      replace(box, node);
      waiting.delete(box);
      const after = box.offsetHeight;
      if (!now && old.length) {
        if (after > before || [...spots(box)].some(([name, at]) => stood.has(name) && stood.get(name) !== at)) {
          box.replaceChildren(...old);
          waiting.set(box, node);
        } else if (after < before) box.style.setProperty("min-height", `${before}px`);
      }
      if (!waiting.size) band.replaceChildren();
      else if (!band.contains(button)) band.replaceChildren(button);
    };
    return box;
  };
  return { place, band, settle };
};
