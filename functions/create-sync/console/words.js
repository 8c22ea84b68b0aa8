// What the console says, in three languages: every string on screen comes from catalogue.json.

const LANGUAGES = ["en", "fr", "sv"];
const STORED = "language";

const catalogue = await (await fetch("/console/catalogue.json")).json();

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

/** The language of the screen: en, fr or sv. */
export const language = () => current;

/** All of them. */
export const languages = () => LANGUAGES;

/** Where numbers and dates are written as the browser's own region does. */
export const locale = () => navigator.languages.find((tag) => tag.slice(0, 2).toLowerCase() === current) ?? current;

/** Says everything in another language from now on; the page is shown anew. */
export const setLanguage = (code) => {
  if (!LANGUAGES.includes(code)) return;
  current = code;
  remember(STORED, code);
  document.documentElement.lang = code;
  dispatchEvent(new Event("words"));
};

const find = (key, params) => {
  if (catalogue[key]) return catalogue[key][current];
  if (typeof params?.count !== "number") return undefined;
  const form = new Intl.PluralRules(current).select(params.count);
  return (catalogue[`${key}#${form}`] ?? catalogue[`${key}#other`])?.[current];
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
