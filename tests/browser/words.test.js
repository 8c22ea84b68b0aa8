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

const contract = await readFile(new URL("../openapi.json", FOLDER), "utf8");

/** The rows of the set-up check by their names in its sources, and the reasons that it gives: setup.any of any row. */
const CODES = new Map();
const REASONS = new Set();
const SETUP = new URL("../src/setup/", FOLDER);
/** Reasons that stand in a variable where they are given: how often, and which they are. */
const IN_VARIABLES = { self: ["not_in_time"], BUCKET: ["not_listed", "not_readable"], FILE: ["under_way", "taken"], QUOTA: ["left", "left_by_our_count"], about: ["closed", "no_origins"] };
for (const name of await readdir(SETUP)) {
  const source = await readFile(new URL(name, SETUP), "utf8");
  for (const [, row, code] of source.matchAll(/const ([A-Z_]+): About =[^;]*?(?:code: |about\(\s*)"(\w+)"/g)) CODES.set(`${name}/${row}`, code);
  for (const [, row, reason] of source.matchAll(/(\w+)\s*\.(?:ok|not_ok|not_seen|not_used)\(\s*("?\w+)/g)) {
    const known = reason.startsWith('"') ? [reason.slice(1)] : IN_VARIABLES[row];
    assert.ok(known, `${name}: which reasons does ${row} give?`);
    for (const one of known) REASONS.add(`setup.${CODES.get(`${name}/${row}`) ?? "any"}.${one}`);
  }
}

const placeholders = (text) => [...text.matchAll(/\{(\w+)\}/g)].map(([, name]) => name).sort();
/** The key that modules use: plural forms stand behind a #. */
const base = (key) => key.split("#")[0];
const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

/** The one name in a template that has a point of its own: sync.pause. */
const WITH_POINT = "audit.what.${what}";
/** What the modules ask for: whole keys, and templates such as status.${…} as patterns. `say` and `key` are looked up later. */
const asked = [];
for (const [name, source] of sources) {
  for (const [, how, quoted] of source.matchAll(/(?<![.\w])(t|has)\(\s*"([^"]+)"/g)) asked.push({ name, how, key: quoted });
  for (const [, how, template] of source.matchAll(/(?<![.\w])(t\(|has\(|say\(|key = )\s*`([^`]+)`/g)) {
    const value = template === WITH_POINT ? "([^#]+)" : "([^#.]+)";
    const pieces = template.split(/\$\{[^}]*\}/);
    if (pieces.includes("/")) continue; // A place in a picture, and no key.
    asked.push({ name, how: how === "t(" ? "t" : "has", key: template, prefix: pieces[0], pattern: new RegExp(`^${pieces.map(escaped).join(value)}$`) });
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

test("every pattern begins with the words of one page", () => {
  // Else it would match every key, and no string were unused.
  for (const { name, key, prefix } of asked.filter(({ pattern }) => pattern)) assert.match(prefix, /^[a-z]\w*\./, `${name} asks for ${key}`);
});

/** What the sources of the API say is compared with the catalogue by tests of the API (said.rs, audit.rs, contract.rs). */
const OF_THE_API = /^(why|said|marketo|audit\.what)\./;
/** Words that the modules or the API's contract know: what is put into a pattern is one of them. */
const known = new Set([...sources.values(), contract].flatMap((text) => [...text.replace(/^\s*\/\/.*|\/\*[^]*?\*\//gm, "").matchAll(/[\w-]+/g)].map(([word]) => word)));

test("no string is unused", () => {
  for (const key of new Set(Object.keys(catalogue).map(base))) {
    if (OF_THE_API.test(key) || REASONS.has(key)) continue;
    const fits = ({ pattern }) => pattern.exec(key)?.slice(1).every((word) => known.has(word));
    const used = texts.has(key) || asked.some((one) => (one.pattern ? fits(one) : one.key === key));
    assert.ok(used, `nobody asks for ${key}`);
  }
});

/** The values of the contract's enumeration at a path of its schemas. */
const values = (...path) => path.reduce((at, name) => at[name], JSON.parse(contract).components.schemas).enum.filter((value) => value !== null);
const item = (name, ...more) => ["properties", name, "items", "properties", ...more];
/** What is said of each value of an enumeration: the key's beginning, the values, and other keys that begin so. */
const ENUMERATIONS = [
  ["progress.", values("Progress", "properties", "step"), ["held", "label", "left", "not_known", "of", "unknown", "of.browsers", "of.cookies", "of.entries", "of.people"]],
  ["progress.of.", values("Progress", "properties", "unit"), []],
  ["cause.", values("Run", "properties", "cause"), []],
  ["compare.code.", values("Comparison", ...item("explained", "code")), []],
  ["compare.only_", values("Comparison", ...item("explained", "side")).map((side) => side.replace("only_", "")), []],
  ["missing.", values("Explanation", "properties", "missing", "properties", "code").flatMap((code) => [code, `${code}.helps`]), ["no_match_person"]],
  ["explain.list.", values("Explanation", ...item("lists", "state")), ["adopted"]],
  ["explain.match.", values("Explanation", ...item("browsers", "matches", "items", "properties", "state")), []],
  ["explain.kind.", values("Explanation", "properties", "subject"), []],
  ["setup.area.", values("Setup", ...item("rows", "area")), []],
  ["setup.status.", values("Setup", ...item("rows", "status")), []],
  ["feed.kind.", values("FeedKind"), []],
  ["files.status.", values("Import", "properties", "status"), []],
  ["erase.status.", values("Erasure", "properties", "status"), []],
  ["status.", values("Status"), null],
  ["settings.import.change.", values("Changes", ...item("changes", "change")), []],
];

test("each value that the API knows has its words, and no other has", () => {
  const keys = new Set(Object.keys(catalogue).map(base));
  for (const [prefix, all, others] of ENUMERATIONS) {
    assert.deepEqual(all.filter((value) => !keys.has(prefix + value)), [], `${prefix} lacks`);
    if (!others) continue;
    const more = [...keys].filter((key) => key.startsWith(prefix)).map((key) => key.slice(prefix.length));
    assert.deepEqual(more.filter((value) => !all.includes(value) && !others.includes(value)), [], `${prefix} has more than the API says`);
  }
});

test("each row of the set-up check has its words, and each of its reasons a sentence", () => {
  const rows = values("Setup", ...item("rows", "code"));
  assert.deepEqual([...CODES.values()].sort(), [...rows].sort());
  for (const code of rows) for (const name of ["title", "tried", "where"]) assert.ok(`setup.${code}.${name}` in catalogue, `${code}: ${name}`);
  for (const reason of REASONS) assert.ok(reason in catalogue || reason.replace(/^setup\.\w+/, "setup.any") in catalogue, reason);
  const general = new Set([...REASONS].map((reason) => reason.replace(/^setup\.\w+/, "setup.any")));
  for (const key of Object.keys(catalogue)) {
    const [, code, name] = /^setup\.(\w+)\.(\w+)$/.exec(key) ?? [];
    if (["title", "tried", "where"].includes(name)) assert.ok([...rows, "column"].includes(code), `there is no row of ${key}`);
    else if (rows.includes(code)) assert.ok(REASONS.has(key) || REASONS.has(`setup.any.${name}`), `nothing says ${key}`);
    else if (code === "any") assert.ok(general.has(key), `nothing says ${key}`);
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
  const internal = {
    en: /(?<!\p{L})(leads?|ECIDs?|tokens?|doorbells?|overlays?|pass(es)?)(?!\p{L})/iu,
    fr: /(?<!\p{L})(leads?|prospects?|ECIDs?|jetons?|tokens?|overlays?|passes?)(?!\p{L})/iu,
    sv: /(?<!\p{L})(leads?|leadet|prospekt\p{L}*|ECID\p{L}*|\p{L}*token\p{L}*|overlays?|pass|passet)(?!\p{L})/iu,
  };
  // What a browser's id is called at Adobe stands in brackets behind our word, and where it is the name of a column or a namespace.
  const names = /\(ECID\)|\.ECID|(column that is|namespace|colonne|d’identité|heter|identitetsnamnrymden) ECID/g;
  // The help explains it once; the rest are names of Marketo's: a field and two permissions.
  const may = ["help.words", "setup.marketo_ecids.missing", "setup.marketo_read_lead.title", "setup.marketo_read_write_lead.title"];
  for (const [key, entry] of Object.entries(catalogue)) {
    if (may.includes(key)) continue;
    for (const code of LANGUAGES) assert.doesNotMatch(entry[code].replace(names, ""), internal[code], `${key}: ${code}`);
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
