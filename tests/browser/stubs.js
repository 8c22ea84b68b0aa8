// Answers of the control plane for states that a small world does not come into, and what every page is looked at for.

import { readFile } from "node:fs/promises";

const AT = "2026-11-22T09:30:00Z";
export const SYNC_ID = "00c0ffee00c0ffee";

/** A sync that runs, with whatever can be wrong with it. */
export const sync = (more = {}) => ({
  id: SYNC_ID,
  status: "active",
  why: null,
  munchkin_id: "123-ABC-456",
  audience_id: "aam:101",
  audience_name: "Cart abandoners",
  delivered: true,
  sources: [{ feed: "default", kind: "aam-files", last_at: AT, lateness: "this feed is delivered once a day; the list can be up to 26 hours behind Adobe", overdue: null }],
  not_delivered: null,
  list: { id: 1001, name: "VIP", folder_id: null, ours: false },
  leaving: "remove",
  members_before: "keep",
  start: "now",
  guard: { removals_percent: 30, removals_at_least: 100, additions_at_least: 5_000 },
  held: null,
  created_at: AT,
  progress: { step: "writing", done: 30, of: 40, unit: "people", estimate_seconds: 95, sentence: "the list is being written" },
  freshness: { last_file_at: AT, last_event_at: null, last_match_at: AT, last_look_up_at: AT },
  live: {},
  ...more,
});

export const report = (more = {}) => ({
  sync_id: SYNC_ID,
  as_of: AT,
  delivered: true,
  audience: 100,
  no_match: 30,
  set_aside: 2,
  anonymous: 8,
  addressable: 70,
  known: 60,
  people: 50,
  in_list: { ours: 30, before_us: 4 },
  waiting: 6,
  kept_out: 3,
  dropped: 2,
  failed: { 1004: 4, 9999: 1 },
  reasons: [
    { code: "1004", count: 4, sentence: "Marketo does not find this person." },
    { code: "9999", count: 1, sentence: "A code that nobody has met before." },
  ],
  refused: [{ lead_id: 17, code: "1004", request_id: "e42b#14272d07d78", at: AT, sentence: "Marketo does not find this person." }],
  members_in_marketo: 48,
  members: { in_audience_by_us: 30, in_audience_before_us: 4, before_us_only: 7, by_another_sync: 3, kept: 2, waiting_to_leave: 2 },
  ...more,
});

export const HELD = { id: "h1", since: AT, why: "400 of the 900 people would leave", why_code: "held_removals", why_values: { removals: 400, of: 900 }, removals: 400, additions: 2, of: 900 };
export const NOT_DELIVERED = { feed: "default", since: AT, sentence: "the full delivery did not name this audience" };
export const HELD_FILE = {
  v: 1, id: "f.1", key: "incoming/S3_1234_20914_full.sync", feed: "default", delivery: "d1", status: "held",
  why: "in English: whose IDs?", why_code: "ids_meet_nobody_aam", why_values: { looked: 12, matches: 1_000 }, started_at: AT, ended_at: null, duration_ms: null, rows: 12, rejected: 3,
  rejects: [{ line: 2, reason: "in English: no ECID", code: "record_no_ecid", values: { column: 3 } }], taken: { "aam:101": 9 }, not_named: [],
};

const history = Array.from({ length: 30 }, (_, n) => ({
  at: new Date(Date.parse(AT) - (30 - n) * 86_400_000).toISOString(),
  browsers: 80 + n, addressable: 60 + n, known: 50 + n, people: 40 + n, in_list: n < 2 ? null : 30 + n, members: n < 2 ? null : 40 + n,
}));

const runs = [
  { id: "r2", started_at: AT, ended_at: null, duration_ms: null, cause: "by_hand", causes: ["by_hand", "file"], added: 3, removed: 1, refused: 1, held: 0, calls: 4,
    failures: [{ code: "1004", count: 1, request_id: "e42b#1", request_ids: ["e42b#0", "e42b#1"], sentence: "Marketo does not find this person." }] },
  { id: "r1", started_at: AT, ended_at: AT, duration_ms: 61_500, cause: "stream", causes: ["stream"], added: 30, removed: 0, refused: 0, held: 0, calls: 2, failures: [] },
];

export const setup = {
  checked_at: AT,
  rows: [
    ["hipaa", "subscription", "ok", { reason: "not_marked" }],
    ["marketo_read_asset", "marketo", "not_ok", { reason: "missing" }],
    ["last_file", "feeds", "not_seen_yet", { reason: "none", feed: "default" }],
    ["tag_seen", "tag", "not_used", { reason: "closed" }],
  ].map(([code, area, status, values]) => ({
    code, area, status, values, title: `in English: ${code}`, tried: "in English: tried", means: "in English: means", who: "in English: who", where: "in English: where",
  })),
};

const feeds = [
  { id: "default", kind: "aam-files", declared: true, snapshots: false, completeness: "single-file", quiet_minutes: 30, lag_minutes: 0, every_hours: 24, lateness: "…",
    came: { named: { "aam:101": AT }, met_at: AT },
    would_have_left: { sentence: "…", deliveries: [{ delivery: "d1", time: AT, snapshot: false, held: { "aam:101": 90 }, absent: { "aam:101": 10 }, held_total: 90, absent_total: 10, sentence: "…" }] } },
  { id: "live", kind: "aam-stream", declared: true, ecid_field: "AAM_UUID", signature_header: "x-signature", signature: "sha256", lateness: null,
    came: { heard_at: AT, taken: 12, ignored: 3, rejected: 1, rejects: [{ line: 1, reason: "in English: a time", code: "stream_time", values: {} }], met_at: null, hint: "some entries …" } },
];

const subscription = { v: 1, munchkin_id: "123-ABC-456", org_id: "0123456789ABCDEF01234567@AdobeOrg", hipaa_ready: false, cookie_sync: true,
  extract_since: null, bulk_import_above: null, origins: ["https://www.example.com"], new_pairs_per_day: 1_000_000, quota_share_percent: 40 };

/** Somebody for whom everything is there, but for what `missing` says. */
export const explained = (code, more = {}) => ({
  subject: "ecid",
  people: [{ lead_id: 17, known: true, gone: false, as_of: AT }],
  browsers: [{ n: 1, ecid_ends: "2995", audiences: [{ audience_id: "aam:101", name: "Cart abandoners", inside: true, said_at: AT }],
    matches: [{ n: 1, seen_at: AT, lead_id: 17, known: true, looked_up_at: AT, state: "counts" }], from_marketo: [17] }],
  lists: [{ sync_id: SYNC_ID, audience_name: "Cart abandoners", list_id: 1001, list_name: "VIP", wanted: true, state: code ? "waiting" : "in_list", code: null, lead_id: 17 }],
  missing: { code, sentence: code ? `the sentence of ${code}` : null, what_helps: code ? `what helps ${code}` : null },
  ...more,
});

const audit = [
  { id: "a2", at: AT, who: "local", what: "sync.pause", subject: SYNC_ID, detail: {}, status: 200 },
  { id: "a1", at: AT, who: "local", what: "feed.change", subject: "default", detail: { snapshots: true }, status: 200 },
];

/** Answers by method and path; a function gets the request's body and its query. */
export const answers = () => ({
  "GET /console/config": { auth: null, version: "0" },
  "GET /me": { name: "local", role: "operator" },
  [`GET /syncs/${SYNC_ID}`]: sync(),
  [`GET /syncs/${SYNC_ID}/report`]: report(),
  [`GET /syncs/${SYNC_ID}/history`]: history,
  [`GET /syncs/${SYNC_ID}/runs`]: runs,
  [`GET /syncs/${SYNC_ID}/rejects`]: [{ feed: "default", file: "incoming/a.sync", line: 7, reason: "in English: no ECID", code: "row_no_ecid", values: {}, at: AT }],
  "GET /imports": [HELD_FILE, { ...HELD_FILE, id: "f.0", status: "done", why: null, ended_at: AT, duration_ms: 2_000 }],
  "GET /setup": setup,
  "GET /feeds": feeds,
  "GET /subscription": subscription,
  "GET /tag": { file: "tag/0.js", integrity: "sha384-0", snippet: '<script async src="https://collect.example.com/tag/0.js"></script>' },
  "GET /audit": audit,
  "GET /alerts": {
    webhooks: { team: { form: "slack", host: "hooks-1.example.com", headers: ["authorization"] } },
    deviation_percent: 20,
    incidents: [{ id: "i1", kind: "feed_late", subject: "default", sentence: "The feed is late.", values: {}, since: AT, ended_at: null, not_told_yet: [] }],
  },
  "GET /lists": { lists: [{ id: 1001, name: "VIP", workspace: "Default" }, { id: 1002, name: "VIP of before", workspace: "Default" }], count: 2, complete: true },
  "GET /export": { version: 1, subscription, feeds: {}, syncs: [] },
  "POST /explain": explained(null),
  [`POST /syncs/${SYNC_ID}/compare`]: (body) =>
    body.start ? { status: 202, json: { id: "c1" } } : { list_id: body.list_id, list_name: "VIP of before", calls: 3, calls_at_least: 1, sentence: "…" },
  "GET /comparisons/c1": { id: "c1", sync_id: SYNC_ID, list_id: 1002, list_name: "VIP of before", status: "done", why: null, as_of: AT, ours_as_of: AT, both: 40, only_there: 5, only_here: 8,
    explained: [{ side: "only_there", code: "not_in_audience", count: 5, sentence: "not in the audience" }], url: "https://bucket.example.com/c1.csv", url_until: AT },
  [`POST /syncs/${SYNC_ID}/download`]: { status: 202, json: { id: "d1", status: "working" } },
  "GET /downloads/d1": { id: "d1", sync_id: SYNC_ID, status: "done", why: null, rows: 50, url: "https://bucket.example.com/d1.csv", url_until: AT },
});

/** Lets a context's API be answered by these; what is asked is kept. */
export async function stub(context, found = answers()) {
  const asked = [];
  await context.route(/^https?:\/\/[^/]+\/(?!console\/(?!config)|$|\?)/, async (route) => {
    const request = route.request();
    const url = new URL(request.url());
    const body = request.postData() ? request.postDataJSON() : null;
    const key = `${request.method()} ${url.pathname}`;
    asked.push({ key, url: request.url(), body });
    let answer = found[key];
    if (typeof answer === "function") answer = answer(body, url);
    if (answer === undefined) answer = { status: 404, json: { title: "Not Found", status: 404, detail: `no such stub: ${key}` } };
    const whole = typeof answer?.status === "number" && "json" in answer ? answer : { status: 200, json: answer };
    await route.fulfill({ contentType: "application/json", ...whole });
  });
  return asked;
}

const AXE = await readFile(new URL("node_modules/axe-core/axe.min.js", import.meta.url), "utf8");

/** What axe-core finds that is serious or critical. */
export async function accessibility(page) {
  // The page's own policy lets no script in but its own; the debugger's may.
  if (!(await page.evaluate(() => "axe" in window))) await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  return violations.filter(({ impact }) => ["serious", "critical"].includes(impact))
    .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" | ")}`);
}

/** Adds up how far a page's content moves by itself. To be called before the page is opened. */
export const watchShifts = (context) =>
  context.addInitScript(() => {
    window.shifts = [];
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries())
        if (!entry.hadRecentInput)
          window.shifts.push({ value: entry.value, nodes: entry.sources.map(({ node }) => node?.outerHTML?.slice(0, 120) ?? "") });
    }).observe({ type: "layout-shift", buffered: true });
  });
export const shifts = (page) => page.evaluate(() => window.shifts);

/** Whether the page is wider than the screen. */
export const overflows = (page) => page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);

/** Keys that stand on the screen instead of their words. */
export const bareKeys = (page) =>
  page.evaluate(() => {
    const all = [];
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) if (/^[a-z_]+(\.[a-zA-Z_\-0-9]+)+$/.test(walk.currentNode.textContent.trim())) all.push(walk.currentNode.textContent.trim());
    return all;
  });
