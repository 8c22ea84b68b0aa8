// The funnel's sums and the chart's lines, as pure functions.

import assert from "node:assert/strict";
import { test } from "node:test";

import { chart, roundUp, thinned } from "../../functions/create-sync/console/chart.js";
import { addsUp, funnel, widths } from "../../functions/create-sync/console/funnel.js";
import { report } from "./stubs.js";

const REPORT = report({ failed: { 1004: 4, 1008: 1 } });
const counts = (stages) => stages.map(({ count }) => count);
const parts = (parts) => Object.fromEntries(parts.map(({ key, count }) => [key, count]));

test("each stage follows from the one before", () => {
  const stages = funnel(REPORT);
  assert.deepEqual(counts(stages), [100, 70, 60, 50, 30, 48]);
  assert.deepEqual(stages.map(({ unit }) => unit), ["browsers", "browsers", "browsers", "people", "people", "people"]);
  assert.equal(addsUp(stages), true);
  assert.deepEqual(parts(stages[3].drops), { before_us: 4, waiting: 6, kept_out: 3, dropped: 2, refused: 5 });
  assert.deepEqual(stages[3].drops[4].codes, [{ code: "1004", count: 4 }, { code: "1008", count: 1 }]);
  assert.equal(sumOf(stages[4].gains), 18);
  assert.equal(stages[1].rate, 0.7);
  assert.equal(stages[2].rate, 60 / 70);
  assert.deepEqual(widths(stages), [1, 0.7, 0.6, 0.5, 0.3, 0.48]);
});

test("a sum that is wrong is seen", () => {
  assert.equal(addsUp(funnel({ ...REPORT, no_match: 31 })), false);
  assert.equal(addsUp(funnel({ ...REPORT, waiting: 7 })), false);
  assert.equal(addsUp(funnel({ ...REPORT, members: { ...REPORT.members, kept: 3 } })), false);
});

test("people who share a browser are a gain", () => {
  const stages = funnel({ ...REPORT, known: 40, anonymous: 28 });
  assert.deepEqual(parts(stages[2].gains), { shared_browsers: 10 });
  assert.equal(addsUp(stages), true);
});

test("a sync that only reports says who would be added, and knows no members", () => {
  const none = { ...REPORT, in_list: { ours: 0, before_us: 0 }, waiting: 50, kept_out: 0, dropped: 0, failed: { 1004: 0 } };
  const stages = funnel({ ...none, members_in_marketo: null, members: null }, true);
  assert.deepEqual(parts(stages[3].drops).would_be_added, 50);
  assert.equal(stages[5].count, null);
  assert.equal(addsUp(stages), true);
});

test("before the first report nothing is known, which is not zero", () => {
  for (const one of [null, { ...REPORT, delivered: false }]) {
    const stages = funnel(one);
    assert.deepEqual(counts(stages), [null, null, null, null, null, null]);
    assert.equal(stages[1].rate, null);
    assert.ok(stages.every(({ drops, gains }) => [...drops, ...gains].every(({ count }) => count === null)));
  }
  assert.equal(funnel({ ...REPORT, audience: 0, addressable: 0 })[1].rate, null);
});

test("lines are steps in a box, and a gap stays a gap", () => {
  const rows = [
    { at: "2026-11-01T00:00:00Z", people: 0, members: null },
    { at: "2026-11-02T00:00:00Z", people: 50, members: 80 },
    { at: "2026-11-03T00:00:00Z", people: null, members: 100 },
    { at: "2026-11-05T00:00:00Z", people: 100, members: 100 },
  ];
  const found = chart(rows, ["people", "members"], { width: 400, height: 100 });
  assert.equal(found.most, 100);
  assert.equal(found.lines[0].path, "M0 100H100V50M400 0");
  assert.equal(found.lines[1].path, "M100 20H200V0H400V0");
  assert.deepEqual([found.from, found.to], [rows[0].at, rows[3].at]);
  assert.equal(chart([], ["people"]), null);
  assert.equal(chart(rows.slice(0, 1), ["members"]), null);
  assert.equal(chart(rows.slice(1, 2), ["people"], { width: 400, height: 100 }).lines[0].path, "M0 0H400");
});

test("scales end at round numbers", () => {
  for (const [number, up] of [[0, 1], [1, 1], [3, 5], [10, 10], [11, 20], [999, 1_000], [1_000, 1_000], [1_001, 2_000]])
    assert.equal(roundUp(number), up);
  const rows = Array.from({ length: 1_000 }, (_, n) => n);
  assert.deepEqual(thinned(rows, 3), [0, 500, 999]);
  assert.deepEqual(thinned([1, 2], 3), [1, 2]);
});

function sumOf(list) {
  return list.reduce((total, { count }) => total + count, 0);
}
