// Which rows of the set-up check the wizard shows: a table, beside the codes that the check has.

import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { test } from "node:test";

import { MATTERS, matters } from "../../functions/create-sync/console/matters.js";

const CHECK = new URL("../../functions/create-sync/src/setup/", import.meta.url);

test("every row of the check is in the table, and no other", async () => {
  const codes = new Set();
  for (const file of await readdir(CHECK)) {
    const source = await readFile(new URL(file, CHECK), "utf8");
    for (const [, code] of source.matchAll(/(?:\bcode: |\babout\(\s*)"(\w+)"/g)) codes.add(code);
  }
  assert.deepEqual(Object.keys(MATTERS).sort(), [...codes].sort());
});

const FEEDS = [
  { id: "default", kind: "aam-files", came: { named: { "aam:101": "2026-11-22T09:30:00Z" } } },
  { id: "shop", kind: "aep-files", came: { named: {} } },
  { id: "web", kind: "aam-files", came: { named: {} } },
  { id: "live", kind: "aep-stream", came: {} },
];
const PLATFORM = "aep:11111111-2222-4333-8444-555555555555";
const row = (code, feed, status = "not_ok") => ({ code, status, values: { reason: "x", ...(feed && { feed }) } });
const choice = (more = {}) => ({ audience: "aam:101", list: null, start: "now", feeds: FEEDS, ...more });
/** The codes of these rows that matter. */
const left = (rows, more) => rows.filter((one) => matters(one, choice(more))).map(({ code, values }) => values.feed ?? code);

test("only what is not ok, and what nobody knows, is shown", () => {
  for (const status of ["ok", "not_seen_yet", "not_used"]) assert.ok(!matters(row("hipaa", null, status), choice()), status);
  assert.ok(matters(row("hipaa"), choice()));
  assert.ok(matters(row("a_code_of_tomorrow"), choice()));
});

test("a library matters to the audiences of its source, a permission to lists that need it", () => {
  const libraries = ["audience_manager_library", "experience_platform_library", "experience_platform_folders"].map((code) => row(code));
  assert.deepEqual(left(libraries), ["audience_manager_library"]);
  assert.deepEqual(left(libraries, { audience: PLATFORM }), ["experience_platform_library"]);
  const writing = ["marketo_read_write_lead", "marketo_read_write_asset"].map((code) => row(code));
  assert.deepEqual(left(writing), ["marketo_read_write_lead", "marketo_read_write_asset"]);
  assert.deepEqual(left(writing, { list: { id: 1001 } }), ["marketo_read_write_lead"]);
  assert.deepEqual(left(writing, { start: "report_only" }), []);
});

test("a feed matters to audiences that it can bring", () => {
  const files = FEEDS.map(({ id }) => row("last_file", id));
  assert.deepEqual(left(files), ["default"], "the other feed has other audiences");
  assert.deepEqual(left(files, { audience: "aam:102" }), ["default", "web"], "nobody has named it yet");
  assert.deepEqual(left(files, { audience: PLATFORM }), ["shop", "live"]);
  assert.deepEqual(left([row("last_file", "default"), row("last_file", "gone")], { feeds: [], audience: PLATFORM }), ["gone"]);
  assert.deepEqual(left([row("bucket")], { audience: PLATFORM }), ["bucket"]);
  assert.deepEqual(left([row("bucket")], { audience: PLATFORM, feeds: FEEDS.filter(({ id }) => id === "live") }), []);
});
