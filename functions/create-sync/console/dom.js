// Small builders. Text only goes in as text: nothing here, or anywhere, sets markup.

import { has, locale, t } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";

const build = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    // The policy of the page takes no style attributes.
    else if (name === "style") for (const [property, text] of Object.entries(value)) node.style.setProperty(property, text);
    else if (name === "value") node.value = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  const text = (child) => child !== null && child !== undefined && child !== false;
  node.append(...children.flat(Infinity).filter(text).map((child) => (child instanceof Node ? child : String(child))));
  return node;
};

/** An element. `onclick` and its like take functions, `style` an object; children are elements and text. */
export const h = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);

/** An element of a picture. */
export const svg = (tag, attributes, ...children) => build(document.createElementNS(SVG, tag), attributes, children);

let ids = 0;
/** An id that no other element has. */
export const unique = (word = "id") => `${word}-${(ids += 1)}`;

/** A number as the locale writes it; a dash where it is not known. */
export const number = (n) => (typeof n === "number" ? new Intl.NumberFormat(locale()).format(n) : "–");

/** 0.123 as 12.3 %. */
export const percent = (x) =>
  typeof x === "number" && Number.isFinite(x)
    ? new Intl.NumberFormat(locale(), { style: "percent", maximumFractionDigits: 1 }).format(x)
    : "–";

/** A time (RFC 3339) in full. */
export const date = (text) =>
  text ? new Intl.DateTimeFormat(locale(), { dateStyle: "medium", timeStyle: "short" }).format(new Date(text)) : "–";

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const unitOf = (seconds) => (seconds >= 2 * DAY ? [DAY, "day"] : seconds >= HOUR ? [HOUR, "hour"] : seconds >= MINUTE ? [MINUTE, "minute"] : [1, "second"]);

/** A time as "3 hours ago", the exact time in its title. */
export const when = (text) => {
  if (!text) return h("span", null, "–");
  const seconds = (new Date(text).getTime() - Date.now()) / 1000;
  const [size, unit] = unitOf(Math.abs(seconds));
  const relative = new Intl.RelativeTimeFormat(locale(), { numeric: "auto" }).format(Math.round(seconds / size), unit);
  return h("time", { datetime: text, title: date(text) }, relative);
};

/** Seconds in words: "2 hours 5 minutes". */
export const duration = (seconds) => {
  if (typeof seconds !== "number") return "–";
  const whole = Math.round(seconds);
  const [size, unit] = unitOf(whole);
  const say = (n, of) => new Intl.NumberFormat(locale(), { style: "unit", unit: of, unitDisplay: "long" }).format(n);
  const first = Math.floor(whole / size);
  const [less, lessUnit] = { day: [HOUR, "hour"], hour: [MINUTE, "minute"], minute: [1, "second"], second: [1, "second"] }[unit];
  const rest = size === 1 ? 0 : Math.floor((whole - first * size) / less);
  return rest ? `${say(first, unit)} ${say(rest, lessUnit)}` : say(first, unit);
};

/** Asks before something is done. True: yes. */
export const confirm = ({ title, body, yes, no = t("base.cancel") }) =>
  new Promise((resolve) => {
    const heading = unique("title");
    const text = unique("body");
    const paragraphs = [body].flat().map((one) => (one instanceof Node ? one : h("p", null, one)));
    const close = (answer) => h("button", { type: "button", class: answer === "yes" ? "main" : null, onclick: () => dialog.close(answer) }, answer === "yes" ? yes : no);
    const dialog = h("dialog", { "aria-labelledby": heading, "aria-describedby": text },
      h("h2", { id: heading }, title), h("div", { id: text }, paragraphs), h("div", { class: "buttons" }, close("yes"), close("no")));
    // Whoever goes to another page has not said yes.
    const gone = () => dialog.close("no");
    addEventListener("hashchange", gone, { once: true });
    dialog.addEventListener("close", () => {
      removeEventListener("hashchange", gone);
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });

let region;
/** Tells a screen reader, without moving the focus. */
export const say = (text) => {
  region ??= document.body.appendChild(h("div", { class: "unseen", role: "status", "aria-live": "polite" }));
  region.textContent = text;
};

/**
 * What was wrong with a request or with one of its fields, in the language of the screen. In English where the catalogue does
 * not know the code: the console is older than the API.
 */
export const refusal = ({ code, values = {}, message, detail = message }) => {
  const named = values.time ? { ...values, time: date(values.time) } : values;
  return has(`said.${code}`, named) ? t(`said.${code}`, named) : h("span", { lang: "en" }, detail);
};

/** What went wrong, as the API says it. */
export const problem = (error) => {
  const key = `problem.${error.status}`;
  const title = error.status ? (has(key) ? t(key) : t("problem.other")) : t("problem.network");
  // One alone is what the whole says.
  const several = (error.errors ?? []).length > 1 ? error.errors : [];
  // A browser says in English that nobody answered, which the title has said.
  const told = error.status || !(error instanceof TypeError);
  return h("div", { class: "problem", role: "alert" }, h("strong", null, title), told && h("p", null, refusal(error)),
    several.length > 0 && h("ul", null, several.map((one) => h("li", null, h("code", null, one.pointer), " ", refusal(one)))));
};

/** Stands where something is on its way; as high as `rows` lines, so that nothing moves when it is there. */
export const loading = (rows = 6) =>
  h("div", { class: "skeleton", style: { "min-height": `${rows * 2.25}rem` }, "aria-busy": "true" },
    h("span", { class: "unseen" }, t("base.loading")), Array.from({ length: rows }, () => h("div", { "aria-hidden": "true" })));

/** Says that there is nothing, and why. */
export const empty = (...children) => h("div", { class: "empty" }, children.map((child) => (child instanceof Node ? child : h("p", null, child))));

/** A labelled control. `fail(text)` of the answer shows what is wrong with it (text or elements), `fail("")` takes it away. */
export const field = ({ label, control, hint, error = "" }) => {
  control.id ||= unique("field");
  const wrong = h("div", { class: "wrong", id: `${control.id}-wrong`, role: "alert" });
  const hinted = hint && h("p", { class: "hint", id: `${control.id}-hint` }, hint);
  control.setAttribute("aria-describedby", [hinted && hinted.id, wrong.id].filter(Boolean).join(" "));
  const all = h("div", { class: "field" }, h("label", { for: control.id }, label), hinted, control, wrong);
  all.fail = (...content) => {
    wrong.replaceChildren(...content.filter(Boolean));
    if (wrong.textContent) control.setAttribute("aria-invalid", "true");
    else control.removeAttribute("aria-invalid");
  };
  all.fail(error);
  return all;
};

const MOST_WAIT_MS = 60_000;
const later = (ms, signal) =>
  new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done, { once: true });
  });
const visible = (signal) =>
  new Promise((resolve) => {
    if (!document.hidden) return resolve();
    const done = () => {
      document.removeEventListener("visibilitychange", seen);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const seen = () => document.hidden || done();
    document.addEventListener("visibilitychange", seen);
    signal?.addEventListener("abort", done, { once: true });
  });

/**
 * Calls `fn` every `ms` until it answers true or the signal is aborted; while nobody looks it rests. A server that is
 * busy, away or in trouble is asked again, less and less often; any other error is thrown.
 */
export const poll = async (fn, ms, signal) => {
  let wait = ms;
  while (!signal?.aborted) {
    try {
      if ((await fn()) === true) return;
      wait = ms;
    } catch (error) {
      if (signal?.aborted) return;
      if (error.status && ![429, 500, 502, 503, 504].includes(error.status)) throw error;
      wait = Math.min(MOST_WAIT_MS, Math.max(2 * wait, 1000 * (error.retryAfter ?? 0)));
    }
    await later(wait, signal);
    await visible(signal);
  }
};
