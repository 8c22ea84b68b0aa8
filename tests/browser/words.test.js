// The console's catalogue: every string on screen is in it, in three languages, and nothing else is.

import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { test } from "node:test";

const FOLDER = new URL("../../functions/create-sync/console/", import.meta.url);
const LANGUAGES = ["en", "fr", "sv"];
/** The words that people know from Marketo, in the three languages. */
const PRODUCT = {
  "nav.home": ["Database", "Base de données", "Databas"],
  "home.new": ["New", "Nouveau", "Nytt"],
  "home.sync_from": [
    "Sync from Experience Cloud Audience",
    "Synchronisation à partir de l'audience Experience Cloud",
    "Synkronisera från Experience Cloud-målgrupp",
  ],
  "step.folder": ["Audience Library Folder", "Dossier de bibliothèque d'audiences", "Målgruppsbiblioteksmapp"],
  "step.audience": ["Audience Name", "Nom de l'audience", "Målgruppsnamn"],
  "create.sync": ["Sync", "Synchronisation", "Synkronisera"],
};

const catalogue = JSON.parse(await readFile(new URL("catalogue.json", FOLDER), "utf8"));
const modules = (await readdir(FOLDER)).filter((name) => name.endsWith(".js"));
const sources = new Map();
for (const name of modules) sources.set(name, await readFile(new URL(name, FOLDER), "utf8"));

const placeholders = (text) => [...text.matchAll(/\{(\w+)\}/g)].map(([, name]) => name).sort();
/** The key that modules use: plural forms stand behind a #. */
const base = (key) => key.split("#")[0];
const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

/** What the modules ask for: whole keys, and templates such as status.${…} as patterns. */
const asked = [];
for (const [name, source] of sources) {
  for (const [, how, quoted] of source.matchAll(/(?<![.\w])(t|has)\(\s*"([^"]+)"/g)) asked.push({ name, how, key: quoted });
  for (const [, how, template] of source.matchAll(/(?<![.\w])(t|has)\(\s*`([^`]+)`/g)) {
    const pattern = template.split(/\$\{[^}]*\}/).map(escaped).join("[^#]+");
    asked.push({ name, how, key: template, pattern: new RegExp(`^${pattern}$`) });
  }
}
/** Texts of the modules that look like keys: some keys are handed on before they are looked up. */
const texts = new Set([...sources.values()].flatMap((source) => [...source.matchAll(/["`]([a-z_]+(?:\.[\w.]+)+)["`]/g)].map(([, text]) => text)));

test("every string stands in the catalogue in the three languages, with the same placeholders", () => {
  for (const [key, entry] of Object.entries(catalogue)) {
    assert.deepEqual(Object.keys(entry).sort(), LANGUAGES, key);
    for (const code of LANGUAGES) {
      assert.ok(typeof entry[code] === "string" && entry[code].trim() !== "", `${key}: ${code}`);
      assert.deepEqual(placeholders(entry[code]), placeholders(entry.en), `${key}: ${code}`);
    }
  }
});

test("every key that a module asks for is there", () => {
  const known = Object.keys(catalogue).map(base);
  // What has an English sentence of the API to fall back on may be missing.
  const may = new Set(asked.filter(({ how }) => how !== "t").map(({ key }) => key));
  for (const { name, key, pattern } of asked.filter(({ key }) => !may.has(key))) {
    const found = pattern ? known.some((one) => pattern.test(one)) : known.includes(key);
    assert.ok(found, `${name} asks for ${key}`);
  }
});

test("no string is unused", () => {
  for (const key of new Set(Object.keys(catalogue).map(base))) {
    const used = texts.has(key) || asked.some((one) => (one.pattern ? one.pattern.test(key) : one.key === key));
    assert.ok(used, `nobody asks for ${key}`);
  }
});

test("a plural has all the forms of its language", () => {
  const plurals = new Set(Object.keys(catalogue).filter((key) => key.includes("#")).map(base));
  for (const key of plurals) {
    assert.ok(!(key in catalogue), `${key} stands with and without plural`);
    for (const form of ["one", "other"]) assert.ok(`${key}#${form}` in catalogue, `${key}#${form}`);
    // "every hour", "every 6 hours": one need not be said.
    const many = placeholders(catalogue[`${key}#other`].en);
    assert.ok(placeholders(catalogue[`${key}#one`].en).every((name) => many.includes(name)), key);
  }
});

test("each row of the set-up check says where it is mended", () => {
  const rows = Object.keys(catalogue).filter((key) => /^setup\.\w+\.title$/.test(key));
  for (const key of rows) assert.ok(key.replace(/title$/, "where") in catalogue, key);
});

test("product words are those of Marketo's users", () => {
  for (const [key, words] of Object.entries(PRODUCT)) {
    assert.deepEqual(LANGUAGES.map((code) => catalogue[key][code]), words, key);
  }
});

test("internal words stay internal", () => {
  // What a browser's id is called at Adobe is explained once, in the help, and named where somebody must copy one.
  const internal = /\b(leads?|ECIDs?|tokens?|doorbells?|overlay)\b/i;
  const may = /^(help|explain|settings|setup|feeds|auth|marketo|why)\./;
  for (const [key, entry] of Object.entries(catalogue)) {
    if (!may.test(key)) assert.doesNotMatch(entry.en, internal, key);
  }
});

test("the modules set no markup, no style attribute and load nothing from elsewhere", () => {
  for (const [name, source] of sources) {
    assert.doesNotMatch(source, /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function/, name);
    assert.doesNotMatch(source, /setAttribute\(\s*["']style/, name);
    // Namespaces and examples are no addresses to load from.
    const loads = /(?:import\(|from\s|fetch\(|src:|href:)\s*["'`]https?:/;
    assert.doesNotMatch(source, loads, name);
  }
});

test("no string on screen stands in a module", () => {
  for (const [name, source] of sources) {
    // A child that is a literal of words: h("p", null, "Some words").
    const literal = /\bh\("[a-z0-9]+",\s*(?:null|\{[^{}]*\}),\s*"[A-Za-zÀ-ÿ]{3,}[^"]*"/;
    assert.doesNotMatch(source, literal, name);
  }
});
