// What the console says, in three languages: every string on screen comes from catalogue.json, of
// which the API gives one language at a time.

const LANGUAGES = ["en", "fr", "sv"];
const STORED = "language";

/** Storage may be closed to us; then nothing is remembered. */
export const remembered = (key) => {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
};

export const remember = (key, value) => {
  try {
    localStorage.setItem(key, value);
  } catch {
    // The next visit asks again.
  }
};

const preferred = () =>
  navigator.languages.map((tag) => tag.slice(0, 2).toLowerCase()).find((code) => LANGUAGES.includes(code)) ?? "en";

let current = remembered(STORED);
if (!LANGUAGES.includes(current)) current = preferred();
document.documentElement.lang = current;

const load = async (code) => {
  const answer = await fetch(`/console/catalogue.${code}.json`);
  if (!answer.ok) throw new Error(`catalogue: ${answer.status}`);
  return answer.json();
};
let catalogue = await load(current);

/** The language of the screen: en, fr or sv. */
export const language = () => current;

/** All of them. */
export const languages = () => LANGUAGES;

/** Where numbers and dates are written as the browser's own region does. */
export const locale = () => navigator.languages.find((tag) => tag.slice(0, 2).toLowerCase() === current) ?? current;

let wanted = current;
/** Says everything in another language from now on; the page is shown anew. Where its words cannot be had, nothing changes. */
export const setLanguage = async (code) => {
  if (!LANGUAGES.includes(code)) return;
  wanted = code;
  const words = await load(code).catch(() => null);
  // The last choice counts, whichever comes first.
  if (wanted !== code) return;
  if (!words) {
    wanted = current;
    dispatchEvent(new Event("words"));
    return;
  }
  catalogue = words;
  current = code;
  remember(STORED, code);
  document.documentElement.lang = code;
  dispatchEvent(new Event("words"));
};

const find = (key, params) => {
  if (Object.hasOwn(catalogue, key)) return catalogue[key];
  if (typeof params?.count !== "number") return undefined;
  const form = new Intl.PluralRules(current).select(params.count);
  return catalogue[`${key}#${form}`] ?? catalogue[`${key}#other`];
};

/** Whether the catalogue has this key. */
export const has = (key, params) => find(key, params) !== undefined;

const shown = (value) => (typeof value === "number" ? new Intl.NumberFormat(locale()).format(value) : String(value));

/** The string of a key. `{name}` is filled in from `params`, numbers as the locale writes them; `count` chooses the plural. */
export const t = (key, params = {}) => {
  const text = find(key, params);
  // A key that is missing is seen at once, and found by a test.
  if (text === undefined) return key;
  return text.replace(/\{(\w+)\}/g, (all, name) => (name in params ? shown(params[name]) : all));
};
