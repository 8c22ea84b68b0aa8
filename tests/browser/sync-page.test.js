// The console's pages round a sync, in a real browser: against the running local stack for what it can come into, and
// with answers of the tests for what is rare.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";

import { startStack, until } from "./stack.js";
import { MUNCHKIN, ORG } from "./world.js";
import * as stubs from "./stubs.js";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
/** Browsers in the audience; the first ones have a match, and one of those belongs to nobody with an email. */
const BROWSERS = 12;
const MATCHED = 8;
const ANONYMOUS = 1;

const people = Array.from({ length: BROWSERS }, (_, n) => ({
  lead: 200_000 + n,
  email: n < ANONYMOUS ? undefined : `reader-${n}@example.com`,
  ecid: String(10n ** 37n + 104_729n * BigInt(n + 1) ** 9n).padStart(38, "0"),
  token: `_mch-example.test-1700000000000-${20_000 + n}`,
}));
const matchOf = ({ ecid, token }) => ({ org_id: ORG, ecid, munchkin_id: MUNCHKIN, token });

/** One sync into a list of its own, and a list that something else fills: two of ours, and somebody anonymous. */
const OWN = "Seen in a browser";
const OTHER = "Filled by something else";
const WORLD = {
  library: { folders: [{ folderId: 1, parentFolderId: 0, name: "Retail" }], segments: [{ sid: 101, folderId: 1, name: OWN }] },
  lists: [{ id: 1001, name: OTHER, members: [200_000, 200_001, 200_002] }],
  syncs: [{ audience_id: "aam:101", list: { name: OWN } }],
  delivered: "101",
};

let browser, stack, id;
/** Leads in the sync's list, as Marketo has them. */
const members = async () => (await stack.lists()).find(({ name }) => name === OWN)?.members ?? [];

before(async () => {
  browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-background-networking"] });
  stack = await startStack({ org: ORG, munchkin: MUNCHKIN, people, world: WORLD });
  for (const one of people.slice(0, MATCHED)) await stack.call("POST", "/matches", matchOf(one));
  [{ id }] = await until("the sync", async () => {
    const all = await stack.call("GET", "/syncs");
    return all.length > 0 && all;
  });
});

after(async () => {
  await browser?.close();
  await stack?.stop();
});

/** A page of the console in a browser of its own; nothing may go wrong in it. */
async function open(t, hash, { answers, width = 1_280, scheme = "light", language = "en", session } = {}) {
  const context = await browser.newContext({ viewport: { width, height: 800 }, colorScheme: scheme, locale: language });
  t.after(() => context.close());
  const wrong = [];
  context.on("weberror", (error) => wrong.push(`${error.error()}`));
  context.on("console", (message) => {
    // A browser logs each answer of 400 and above; pages show them.
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) wrong.push(message.text());
  });
  const asked = answers ? await stubs.stub(context, answers) : [];
  await stubs.watchShifts(context);
  if (session) await context.addInitScript((value) => location.protocol === "about:" || sessionStorage.setItem("auth.session", JSON.stringify(value)), session);
  const page = await context.newPage();
  await page.goto(`${stack.url}/${hash}`);
  await page.locator("main h1").waitFor();
  t.after(() => assert.deepEqual(wrong, []));
  return { page, asked };
}

const yes = (page) => page.locator("dialog .buttons button").first();
const numberOf = (text) => Number(/-?[\d,]+/.exec(text.replaceAll("−", "-"))?.[0].replaceAll(",", "") ?? NaN);

/** The funnel as it stands on the screen. */
async function funnelOf(page) {
  const rows = await page.locator("[data-stage]").all();
  return Promise.all(rows.map(async (row) => ({
    key: await row.getAttribute("data-stage"),
    label: await row.locator(".count").innerText(),
    parts: Object.fromEntries(await Promise.all((await row.locator("[data-part]").all()).map(async (chip) =>
      [await chip.getAttribute("data-part"), numberOf(await chip.locator(".n").innerText())]))),
  })));
}
const sum = (numbers) => Object.values(numbers).reduce((total, one) => total + one, 0);

test("on real data the funnel adds up, from the audience to what Marketo shows", async (t) => {
  const expected = MATCHED - ANONYMOUS;
  await until("the list", async () => (await members()).length === expected, 180_000);
  const { page } = await open(t, `#/syncs/${id}`);
  await page.locator("[data-focus=run]").click();
  assert.match(await page.locator("dialog").innerText(), /worked out anew/);
  await yes(page).click();
  // The page shows the new report by itself.
  await page.locator("[data-stage=members] .count", { hasText: `${expected} people` }).waitFor({ timeout: 120_000 });
  await page.locator("[data-stage=ours] .count", { hasText: `${expected} people` }).waitFor();
  const stages = await funnelOf(page);
  assert.deepEqual(stages.map(({ label }) => label),
    [`${BROWSERS} browsers`, `${MATCHED} browsers`, `${expected} browsers`, `${expected} people`, `${expected} people`, `${expected} people`]);
  for (const [n, { label, parts }] of stages.slice(0, -1).entries())
    assert.equal(numberOf(label) + sum(parts), numberOf(stages[n + 1].label), JSON.stringify(stages));
  assert.equal(stages[0].parts.no_match, MATCHED - BROWSERS);
  assert.equal(stages[1].parts.anonymous, -ANONYMOUS);
  assert.match(await page.locator("[data-stage=addressable] .rate").innerText(), /match rate 66\.7/);
  // Each drop opens a sentence, and closes it.
  const chip = page.locator("[data-part=anonymous]");
  await chip.click();
  assert.equal(await chip.getAttribute("aria-expanded"), "true");
  assert.match(await page.locator("#why-addressable-anonymous").innerText(), /email address/);
  await chip.click();
  assert.equal(await page.locator("#why-addressable-anonymous").isVisible(), false);
  // The same numbers as a table.
  await page.locator(".funnel + details summary").click();
  assert.match(await page.locator(".funnel + details table").innerText(), /12 browsers/);
});

test("on real data: explain finds the first missing link, and a chain without one", async (t) => {
  const { page } = await open(t, "#/explain");
  const ask = async (one) => {
    await page.getByRole("textbox", { name: "Its value" }).fill(one.ecid);
    await page.getByRole("button", { name: "Explain", exact: true }).click();
  };
  await ask(people[BROWSERS - 1]);
  await page.locator("[data-missing=no_match]").waitFor();
  await ask(people[0]);
  await page.locator("[data-missing=anonymous]").waitFor();
  await ask(people[1]);
  await page.getByText("Every link is there.").waitFor();
  assert.match(await page.locator("[data-link=list]").innerText(), /Seen in a browser: in the list · Marketo ID 200001/);
  // Whose answer is shown is not said in full.
  assert.ok(!(await page.locator(".chain").innerText()).includes(people[1].ecid));
});

/** What an address answers that the console offers, line by line. */
async function linesAt(link) {
  const answer = await fetch(await link.getAttribute("href"));
  assert.equal(answer.status, 200);
  return (await answer.text()).trim().split(/\r?\n/);
}

test("on real data: a comparison and a download, as numbers and as files", async (t) => {
  const expected = MATCHED - ANONYMOUS;
  const { page } = await open(t, `#/syncs/${id}/compare`);
  await page.getByLabel("The other list").fill("filled by");
  await page.getByRole("button", { name: OTHER }).click({ timeout: 60_000 });
  await page.getByText(/This takes .*Marketo call/).waitFor();
  await page.getByRole("button", { name: "Compare", exact: true }).click();
  await page.locator("[data-count=both]").waitFor({ timeout: 120_000 });
  assert.deepEqual(await Promise.all(["both", "only_there", "only_here"].map((key) => page.locator(`[data-count=${key}]`).innerText())),
    ["2 people", "1 person", `${expected - 2} people`]);
  const compared = await linesAt(page.getByRole("link", { name: "Download the file" }));
  assert.equal(compared.length, 1 + expected + 1);
  await page.goto(`${stack.url}/#/syncs/${id}`);
  const drawer = page.locator("details.drawer", { hasText: "Download" });
  await drawer.locator("summary").click();
  await drawer.getByRole("button").click();
  const link = drawer.getByRole("link");
  await link.waitFor({ timeout: 120_000 });
  assert.match(await link.innerText(), new RegExp(`${expected} rows`));
  assert.equal((await linesAt(link)).length, 1 + expected);
});

test("a pause leaves the list alone, a resume catches up, a stop takes ours out", async (t) => {
  const { page } = await open(t, `#/syncs/${id}`);
  const before = await members();
  const button = (name) => page.locator(`[data-focus=${name}]`);
  // Whoever cancels has done nothing.
  await button("pause").click();
  assert.match(await page.locator("dialog").innerText(), /list is not written any more.+resume catches up/s);
  await page.keyboard.press("Escape");
  await button("pause").click();
  await page.evaluate(() => (location.hash = "#/help"));
  await page.locator("main h1", { hasText: "Help" }).waitFor();
  assert.equal(await page.locator("dialog").count(), 0);
  await page.goBack();
  assert.equal((await stack.call("GET", `/syncs/${id}`)).status, "active");
  await button("pause").click();
  await yes(page).click();
  await page.locator(".tag", { hasText: "paused" }).waitFor();
  assert.equal((await stack.call("GET", `/syncs/${id}`)).status, "paused");
  // Facts are still taken in, and the list is not written.
  await stack.call("POST", "/matches", matchOf(people[MATCHED]));
  await until("the look-up", async () => {
    const { live } = await stack.call("GET", `/syncs/${id}`);
    return live.wanted === before.length + 1;
  }, 120_000);
  assert.deepEqual(await members(), before);
  await button("resume").click();
  assert.match(await page.locator("dialog").innerText(), /campaigns/);
  await yes(page).click();
  await page.locator(".tag", { hasText: "active" }).waitFor();
  await until("the list", async () => (await members()).includes(people[MATCHED].lead), 120_000);
  // A stop asks what becomes of the people.
  await button("stop").click();
  assert.match(await page.locator("dialog").innerText(), /cannot be resumed.+Keep the people.+Take ours out/s);
  await page.locator("dialog input[value=take_out]").check();
  await yes(page).click();
  await page.locator(".tag", { hasText: "stopped" }).waitFor();
  assert.equal((await stack.call("GET", `/syncs/${id}`)).status, "stopped_leaving");
  await until("an empty list", async () => (await members()).length === 0, 120_000);
  // What cannot be done any more says why, and can be reached.
  assert.equal(await button("run").getAttribute("aria-disabled"), "true");
  assert.match(await button("run").getAttribute("title"), /stopped for good/);
});

test("a large change that is held is applied or dropped by its id", async (t) => {
  for (const decision of ["apply", "drop"]) {
    const answers = stubs.answers();
    answers[`GET /syncs/${stubs.SYNC_ID}`] = stubs.sync({ held: stubs.HELD, progress: { step: "held" } });
    answers[`POST /syncs/${stubs.SYNC_ID}/held`] = { status: 202, json: stubs.sync() };
    const { page, asked } = await open(t, `#/syncs/${stubs.SYNC_ID}`, { answers });
    const notice = page.locator("[data-notice=held]");
    assert.match(await notice.innerText(), /removed: 400\. To be added: 2\. In the list: 900\./);
    assert.match(await notice.innerText(), /Of 900 people who may be taken out of the list, 400 would leave it\./);
    await page.locator(`[data-focus=held-${decision}]`).click();
    assert.match(await page.locator("dialog").innerText(), /400/);
    answers[`GET /syncs/${stubs.SYNC_ID}`] = stubs.sync();
    await yes(page).click();
    await notice.waitFor({ state: "detached" });
    assert.deepEqual(asked.filter(({ key }) => key.endsWith("/held")).map(({ body }) => body), [{ held: "h1", decision }]);
  }
});

test("a held delivery is decided on the page of the sync, and on the feeds' page", async (t) => {
  for (const [hash, decision, name] of [[`#/syncs/${stubs.SYNC_ID}`, "apply", "Take the delivery in"], ["#/feeds", "drop", "Drop the delivery"]]) {
    const answers = stubs.answers();
    answers["POST /imports/decide"] = { status: 202, json: {} };
    const { page, asked } = await open(t, hash, { answers });
    await page.locator("[data-notice=delivery]").getByRole("button", { name }).click();
    assert.match(await page.locator("dialog").innerText(), /S3_1234_20914_full\.sync/);
    answers["GET /imports"] = [];
    await yes(page).click();
    await page.locator("[data-notice=delivery]").waitFor({ state: "detached" });
    assert.deepEqual(asked.filter(({ key }) => key === "POST /imports/decide").map(({ body }) => body), [{ import: "f.1", decision }]);
  }
});

test("a held delivery is found behind any number of later files", async (t) => {
  const answers = stubs.answers();
  const done = { ...stubs.HELD_FILE, status: "done", why: null };
  // Three pages; what waits is on the last one.
  answers["GET /imports"] = (_, url) => {
    const page = Number(url.searchParams.get("after") ?? 0);
    const headers = page < 2 ? { link: `</imports?limit=500&after=${page + 1}>; rel="next"` } : {};
    return { status: 200, headers, json: [page < 2 ? { ...done, id: `f.${page}` } : stubs.HELD_FILE] };
  };
  const { page } = await open(t, `#/syncs/${stubs.SYNC_ID}`, { answers });
  // It moves nothing by itself.
  await page.locator(".news button").click({ timeout: 60_000 });
  assert.match(await page.locator("[data-notice=delivery]").innerText(), /S3_1234_20914_full\.sync/);
});

test("an audience that is not delivered says what to ask, and can be declared empty", async (t) => {
  const answers = stubs.answers();
  answers[`GET /syncs/${stubs.SYNC_ID}`] = stubs.sync({ not_delivered: stubs.NOT_DELIVERED });
  answers[`POST /syncs/${stubs.SYNC_ID}/not-delivered`] = { status: 202, json: stubs.sync() };
  const { page, asked } = await open(t, `#/syncs/${stubs.SYNC_ID}`, { answers });
  const notice = page.locator("[data-notice=not-delivered]");
  assert.match(await notice.innerText(), /Ask Adobe to map segment 101/);
  await notice.getByRole("button").click();
  await yes(page).click();
  await until("the order", () => asked.some(({ key }) => key.endsWith("/not-delivered")));
  assert.deepEqual(asked.find(({ key }) => key.endsWith("/not-delivered")).body, { decision: "empty" });
});

test("what Marketo refused, lines that were not taken, the guard, and the download", async (t) => {
  const answers = stubs.answers();
  answers[`POST /syncs/${stubs.SYNC_ID}/guard`] = stubs.sync();
  const { page, asked } = await open(t, `#/syncs/${stubs.SYNC_ID}`, { answers });
  const drawer = (name) => page.locator("details.drawer", { hasText: name });
  await drawer("Whom Marketo refused").locator("summary").click();
  await drawer("Whom Marketo refused").locator("table").first().waitFor();
  const refused = await drawer("Whom Marketo refused").innerText();
  assert.match(refused, /1004\s+4\s+Marketo does not find this person: deleted/);
  assert.match(refused, /9999\s+1\s+A code that nobody has met before/);
  assert.match(refused, /e42b#14272d07d78/);
  await drawer("Lines of feeds").locator("summary").click();
  await drawer("Lines of feeds").locator("table").waitFor();
  assert.match(await drawer("Lines of feeds").innerText(), /incoming\/a\.sync\s+7\s+Column 1 holds no browser ID/);
  await drawer("When a change is held").locator("summary").click();
  await drawer("When a change is held").locator("input").first().fill("50");
  await drawer("When a change is held").getByRole("button").click();
  await until("the order", () => asked.some(({ key }) => key.endsWith("/guard")));
  assert.deepEqual(asked.find(({ key }) => key.endsWith("/guard")).body, { removals_percent: 50, removals_at_least: 100, additions_at_least: 5_000 });
  await drawer("Download").locator("summary").click();
  await drawer("Download").getByRole("button").click();
  const link = drawer("Download").getByRole("link");
  await link.waitFor();
  assert.match(await link.innerText(), /50 rows/);
  assert.equal(await link.getAttribute("href"), "https://bucket.example.com/d1.csv");
});

test("what comes by itself moves nothing; what would waits for a click", async (t) => {
  const answers = stubs.answers();
  answers["GET /imports"] = [];
  const { page, asked } = await open(t, `#/syncs/${stubs.SYNC_ID}`, { answers });
  await page.locator(".chart .plot").first().waitFor();
  const reads = () => asked.filter(({ key }) => key === `GET /syncs/${stubs.SYNC_ID}/report`).length;
  const first = reads();
  answers[`GET /syncs/${stubs.SYNC_ID}/report`] = stubs.report({ waiting: 0, in_list: { ours: 36, before_us: 4 }, as_of: "2026-11-22T09:31:00Z" });
  answers[`GET /syncs/${stubs.SYNC_ID}`] = stubs.sync({ held: stubs.HELD, progress: { step: "held" } });
  await until("new numbers", () => reads() > first, 30_000);
  await page.locator("[data-stage=ours] .count", { hasText: "36 people" }).waitFor();
  const news = page.locator(".news button");
  await news.waitFor();
  assert.equal(await page.locator("[data-notice=held]").count(), 0);
  assert.deepEqual(await stubs.shifts(page), []);
  await news.click();
  await page.locator("[data-notice=held]").waitFor();
  assert.equal(await news.count(), 0);
});

test("progress shows its estimate, or that it is not known", async (t) => {
  for (const [progress, text] of [
    [{ step: "writing", done: 30, of: 40, unit: "people", estimate_seconds: 95 }, /Writing the list.+30 of 40 people · about 1 minute 35 seconds to go/s],
    [{ step: "asking_marketo", done: 1, of: 900, unit: "cookies", estimate_seconds: null }, /1 of 900 cookies · time to go: not known yet/],
    [{ step: "reading_delivery", done: 12_000_000, of: 30_000_000, unit: "entries", estimate_seconds: null }, /Reading Adobe’s delivery.+12,000,000 of 30,000,000 entries/s],
    [{ step: "in_step" }, /Up to date/],
    [{ step: "of_tomorrow", sentence: "a step that came later" }, /a step that came later/],
  ]) {
    const answers = stubs.answers();
    answers[`GET /syncs/${stubs.SYNC_ID}`] = stubs.sync({ progress });
    const { page } = await open(t, `#/syncs/${stubs.SYNC_ID}`, { answers });
    assert.match(await page.locator(".progress").innerText(), text);
  }
});

test("runs with their cause, their numbers and Marketo's request id, page by page", async (t) => {
  const answers = stubs.answers();
  const [newest, oldest] = answers[`GET /syncs/${stubs.SYNC_ID}/runs`];
  answers[`GET /syncs/${stubs.SYNC_ID}/runs`] = (_, url) => url.searchParams.has("after")
    ? { status: 200, json: [oldest] }
    : { status: 200, json: [newest], headers: { link: `</syncs/${stubs.SYNC_ID}/runs?after=r2>; rel="next"` } };
  const { page } = await open(t, `#/syncs/${stubs.SYNC_ID}/runs`, { answers });
  assert.match(await page.locator("tbody").innerText(), /still running\s+by hand, a file\s+3\s+1\s+1\s+0\s+4/);
  await page.locator("tbody summary").click();
  assert.match(await page.locator("tbody").innerText(), /Code 1004, 1 person:.+e42b#1/s);
  await page.getByRole("button", { name: "Show more" }).click();
  await page.locator("tbody tr").nth(1).waitFor();
  assert.match(await page.locator("tbody tr").nth(1).innerText(), /a stream\s+30\s+0\s+0\s+0\s+2\s+1 minute 2 seconds/);
  assert.equal(await page.getByRole("button", { name: "Show more" }).count(), 0);
});

const LINKS = {
  audience: ["not_in_audience", "not_delivered"],
  match: ["no_match", "match_expired", "set_aside_browser", "set_aside_cookie"],
  person: ["not_asked", "nobody", "anonymous", "gone"],
  list: ["kept_out", "dropped", "refused", "waiting", "held", "paused", "to_leave", "report_only"],
};

test("explain marks the first missing link, whichever it is, and says what helps", async (t) => {
  const answers = stubs.answers();
  const { page, asked } = await open(t, "#/explain", { answers });
  const secret = "1".repeat(38);
  await page.getByRole("textbox", { name: "Its value" }).fill(secret);
  const order = Object.keys(LINKS);
  for (const [link, codes] of Object.entries(LINKS)) {
    for (const code of codes) {
      answers["POST /explain"] = stubs.explained(code);
      await page.getByRole("button", { name: "Explain", exact: true }).click();
      await page.locator(`[data-missing=${code}]`).waitFor();
      const states = await page.locator("[data-link]").evaluateAll((all) => all.map((one) => one.dataset.state));
      const n = order.indexOf(link);
      assert.deepEqual(states, order.map((_, place) => (place < n ? "there" : place === n ? "missing" : "later")), code);
      const text = await page.locator(`[data-link=${link}] [data-missing]`).innerText();
      assert.match(text, /What helps: \S/);
      // In the words of the catalogue, and not of the API.
      assert.doesNotMatch(text, /the sentence of|what helps /);
    }
  }
  answers["POST /explain"] = stubs.explained("nothing_known", { people: [], browsers: [], lists: [] });
  await page.getByRole("button", { name: "Explain", exact: true }).click();
  await page.locator("[data-missing=nothing_known]").waitFor();
  answers["POST /explain"] = stubs.explained(null);
  await page.getByRole("button", { name: "Explain", exact: true }).click();
  await page.getByText("Every link is there.").waitFor();
  // A code of ours, in a list that is adopted, is said in words.
  const [stood] = stubs.explained(null).lists;
  answers["POST /explain"] = stubs.explained(null, { lists: [{ ...stood, wanted: false, state: "to_leave", code: "adopted", sentence: "of the API" }] });
  await page.getByRole("button", { name: "Explain", exact: true }).click();
  await page.locator("[data-link=list]", { hasText: "the list is adopted" }).waitFor();
  assert.doesNotMatch(await page.locator("[data-link=list]").innerText(), /of the API|code adopted/i);
  // What was typed went into bodies alone.
  assert.ok(asked.filter(({ key }) => key === "POST /explain").every(({ body }) => body.ecid === secret));
  assert.ok(asked.every(({ url }) => !url.includes(secret)) && !page.url().includes(secret));
  assert.ok(!(await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, history.state]))).includes(secret));
});

test("explain says at the field what is wrong with a value", async (t) => {
  const answers = stubs.answers();
  answers["POST /explain"] = { status: 400, json: { title: "Bad Request", status: 400, detail: "expected a string of 38 digits", errors: [{ pointer: "/ecid", detail: "expected a string of 38 digits" }] } };
  const { page, asked } = await open(t, "#/explain", { answers });
  await page.getByRole("textbox", { name: "Its value" }).fill("12");
  await page.getByRole("button", { name: "Explain", exact: true }).click();
  await page.getByText("A browser ID has 38 digits.").waitFor();
  await page.getByRole("combobox", { name: "What do you have?" }).selectOption("lead_id");
  await page.getByRole("textbox", { name: "Its value" }).fill("seventeen");
  await page.keyboard.press("Enter");
  await page.getByText("A Marketo ID is a number.").waitFor();
  assert.equal(asked.filter(({ key }) => key === "POST /explain").length, 1);
});

test("erasing a person asks first, and then shows how far it is", async (t) => {
  const answers = stubs.answers();
  const job = { id: "e1", status: "forgetting", cookies_forgotten: 0, browsers_forgotten: 0, people_out_of_audiences: 0, people_who_stay: 0, lists: [], lists_waiting: [1001] };
  answers["POST /people/erase"] = { status: 202, json: job };
  answers["GET /people/erase/e1"] = { ...job, status: "done", cookies_forgotten: 2, browsers_forgotten: 3, people_out_of_audiences: 1, lists: [{ list_id: 1001, taken_out: 1, stay: 0 }], lists_waiting: [] };
  const { page, asked } = await open(t, "#/explain", { answers });
  const drawer = page.locator("details.drawer");
  await drawer.locator("summary").click();
  await drawer.getByLabel("What do you have?").selectOption("lead_id");
  await drawer.getByLabel("Its value").fill("17");
  await drawer.getByRole("button", { name: "Erase" }).click();
  assert.match(await page.locator("dialog").innerText(), /cannot be undone/);
  assert.equal(asked.filter(({ key }) => key === "POST /people/erase").length, 0);
  await yes(page).click();
  await drawer.getByText("2 cookies").waitFor();
  assert.match(await drawer.innerText(), /3 browsers/);
  assert.deepEqual(asked.find(({ key }) => key === "POST /people/erase").body, { lead_id: 17 });
});

test("a comparison says first what it costs", async (t) => {
  const { page, asked } = await open(t, `#/syncs/${stubs.SYNC_ID}/compare`, { answers: stubs.answers() });
  await page.getByLabel("The other list").fill("vip");
  // The sync's own list is not offered.
  await page.getByRole("button", { name: "VIP of before" }).waitFor();
  assert.equal(await page.locator(".picks li").count(), 1);
  await page.getByRole("button", { name: "VIP of before" }).click();
  await page.getByText("This takes 3 Marketo calls.").waitFor();
  const starts = () => asked.filter(({ body }) => body?.start === true);
  assert.equal(starts().length, 0);
  await page.getByRole("button", { name: "Compare", exact: true }).click();
  await page.locator("[data-count=both]").waitFor();
  assert.deepEqual(await Promise.all(["both", "only_there", "only_here"].map((key) => page.locator(`[data-count=${key}]`).innerText())),
    ["40 people", "5 people", "8 people"]);
  assert.deepEqual(starts().map(({ body }) => body), [{ list_id: 1002, start: true }]);
  // Each list is of its own time.
  await page.getByText(/^The other list as Marketo showed it on .* The list of this sync as we know it on /).waitFor();
  assert.equal(await page.getByRole("link", { name: "Download the file" }).getAttribute("href"), "https://bucket.example.com/c1.csv");
});

test("the other list of a comparison may be an ID or a pasted address", async (t) => {
  const answers = stubs.answers();
  const { page, asked } = await open(t, `#/syncs/${stubs.SYNC_ID}/compare`, { answers });
  const field = page.getByLabel("The other list");
  await field.fill("https://app-ab12.marketo.com/#ST1007A1");
  await page.getByRole("button", { name: "The list with ID 1007" }).click();
  await page.getByText("This takes 3 Marketo calls.").waitFor();
  assert.deepEqual(asked.filter(({ key }) => key.endsWith("/compare")).map(({ body }) => body), [{ list_id: 1007 }]);
  assert.equal(asked.filter(({ key }) => key === "GET /lists").length, 0);
  // A number may be a name, too.
  await field.fill("1008");
  await page.getByRole("button", { name: "The list with ID 1008" }).waitFor();
  await page.getByRole("button", { name: "VIP of before" }).waitFor();
  for (const [text, words] of [["1001", "This is the list of this sync"], ["https://app-ab12.marketo.com/#SL77A1", "This is the address of a smart list."]]) {
    await field.fill(text);
    await page.getByText(words).waitFor();
    assert.equal(await field.getAttribute("aria-invalid"), "true");
    assert.equal(await page.locator(".picks").count(), 0);
  }
});

test("the set-up check shows each row with a word for its state, and who can mend it", async (t) => {
  const { page, asked } = await open(t, "#/setup", { answers: stubs.answers() });
  const rows = await page.locator("[data-code]").evaluateAll((all) => all.map((one) => [one.dataset.status, one.querySelector(".tag").textContent]));
  assert.deepEqual(rows, [["ok", "✓ ok"], ["not_ok", "✕ not ok"], ["not_seen_yet", "! not seen yet"], ["not_used", "○ not used"]]);
  assert.match(await page.locator("[data-status=not_ok]").innerText(), /Marketo administrator/);
  await page.getByRole("button", { name: "Check again" }).click();
  await until("a fresh check", () => asked.some(({ url }) => url.includes("/setup?fresh=1")));
});

test("a quota that is used up says by whom, and names Marketo's API users to whoever may know them", async (t) => {
  const answers = stubs.answers();
  const users = [{ user: "sync@api.example.com", calls: 12_000 }, { user: "forms@api.example.com", calls: 38_000 }];
  const values = { reason: "used_up", left: 0, ours: 12_000, others: 38_000, per_day: 50_000, share: 20_000, day_ends: "2026-11-23T06:00:00Z", user_count: 2 };
  const row = (more) => ({ checked_at: "2026-11-22T09:30:00Z", rows: [{ code: "marketo_quota", area: "marketo", status: "not_ok", title: "in English", tried: "in English",
    means: "in English", who: "in English", where: "in English", values: { ...values, ...more } }] });
  answers["GET /setup"] = row({ users });
  const { page } = await open(t, "#/setup", { answers });
  const text = () => page.locator("[data-code=marketo_quota]").innerText();
  assert.match(await text(), /we made 12,000, other tools 38,000 of 50,000/);
  assert.match(await text(), /Calls today by API user\s+sync@api\.example\.com · 12,000\s+forms@api\.example\.com · 38,000/);
  assert.deepEqual(await page.locator("main [lang=en]").allInnerTexts(), []);
  // A viewer is not told.
  answers["GET /setup"] = row({});
  await page.getByRole("button", { name: "Check again" }).click();
  await until("the row without users", async () => !(await text()).includes("example.com"));
  assert.ok(!(await text()).includes("Calls today"));
});

test("the real set-up check has a row for every area", async (t) => {
  const { page } = await open(t, "#/setup");
  await page.locator("[data-code]").first().waitFor();
  const found = await stack.call("GET", "/setup");
  assert.equal(await page.locator("[data-code]").count(), found.rows.length);
  assert.deepEqual(await stubs.bareKeys(page), []);
});

test("settings say what a change will do before it is saved, and where a value is wrong", async (t) => {
  const answers = stubs.answers();
  answers["PUT /subscription"] = { status: 400, json: { title: "Bad Request", status: 400, detail: "one field is wrong", errors: [{ pointer: "/origins", detail: "expected a list of origins" }] } };
  const { page, asked } = await open(t, "#/settings", { answers });
  const puts = () => asked.filter(({ key }) => key === "PUT /subscription");
  await page.getByLabel("this Marketo instance is HIPAA-ready (this integration must not be used with it)").check();
  await page.getByLabel("Websites whose pages may send matches").fill("example.com");
  await page.getByRole("button", { name: "Save" }).first().click();
  assert.match(await page.locator("dialog").innerText(), /All syncs are paused/);
  assert.equal(puts().length, 0);
  await yes(page).click();
  await page.getByText("expected a list of origins").waitFor();
  const { hipaa_ready: hipaa, origins, new_pairs_per_day: pairs, quota_share_percent: share } = puts()[0].body;
  assert.deepEqual([hipaa, origins, pairs, share], [true, ["example.com"], 1_000_000, 40]);
  assert.match(await page.locator("pre").first().innerText(), /<script async/);
});

test("webhooks are added and removed without their secrets, and incidents are shown", async (t) => {
  const answers = stubs.answers();
  let refused = true;
  answers["PUT /alerts"] = (body) => refused
    ? { status: 400, json: { title: "Bad Request", status: 400, detail: "a field is wrong", errors: [{ pointer: "/webhooks/ops/url", detail: "expected an address that begins with https://" }] } }
    : body;
  const { page, asked } = await open(t, "#/settings", { answers });
  const alerts = page.locator(".alerts");
  assert.match(await alerts.innerText(), /team\s+Slack\s+hooks-1\.example\.com\s+authorization/);
  assert.match(await alerts.innerText(), /a feed is late\s+✕ lasts/);
  await alerts.getByText("Add a webhook").first().click();
  await alerts.getByLabel("Name").fill("ops");
  await alerts.getByLabel("Address").fill("ftp://example.com");
  await alerts.getByLabel("Headers").fill("Authorization: Bearer x");
  await alerts.getByRole("button", { name: "Add a webhook" }).click();
  await alerts.getByText("expected an address that begins with https://").waitFor();
  // One that is there is not replaced.
  await alerts.getByLabel("Name").fill(" team ");
  await alerts.getByRole("button", { name: "Add a webhook" }).click();
  await alerts.getByText("A webhook of this name is there already.").waitFor();
  assert.equal(await alerts.getByLabel("Name").getAttribute("aria-invalid"), "true");
  assert.equal(asked.filter(({ key }) => key === "PUT /alerts").length, 1);
  await alerts.getByLabel("Name").fill("ops");
  refused = false;
  await alerts.getByLabel("Address").fill("https://example.com/hook");
  await alerts.getByRole("button", { name: "Add a webhook" }).click();
  const puts = () => asked.filter(({ key }) => key === "PUT /alerts").map(({ body }) => body);
  await until("the second try", () => puts().length === 2);
  assert.deepEqual(puts()[1], {
    webhooks: { team: { form: "slack" }, ops: { url: "https://example.com/hook", form: "json", headers: { Authorization: "Bearer x" } } },
    deviation_percent: 20,
  });
  await alerts.getByRole("button", { name: "Remove" }).click();
  await yes(page).click();
  await until("the removal", () => puts().length === 3);
  assert.deepEqual(puts()[2], { webhooks: {}, deviation_percent: 20 });
});

test("an import shows its changes first, and writes them when it is told to", async (t) => {
  const answers = stubs.answers();
  const change = { what: "sync", name: "aam:101 → VIP", change: "add", fields: [], why: null };
  answers["POST /import"] = (body) => ({ changes: [{ ...change, ...(body.apply ? { done: true } : {}) }, { what: "feed", name: "default", change: "same", fields: [] }] });
  const { page, asked } = await open(t, "#/settings", { answers });
  await page.getByLabel("A file that was exported").setInputFiles({ name: "a.json", mimeType: "application/json", buffer: Buffer.from('{"version":1}') });
  await page.getByRole("button", { name: "Show what would change" }).click();
  await page.getByText("would be added").waitFor();
  await page.getByRole("button", { name: "Apply" }).click();
  assert.match(await page.locator("dialog").innerText(), /1 thing is written/);
  await yes(page).click();
  await page.getByRole("cell", { name: "yes" }).waitFor();
  assert.deepEqual(asked.filter(({ key }) => key === "POST /import").map(({ body }) => body), 
    [{ export: { version: 1 }, munchkin_id: MUNCHKIN }, { export: { version: 1 }, munchkin_id: MUNCHKIN, apply: true }]);
  await page.getByText("Applied.").first().waitFor();
  // Settings are called as on their own pages, and as in the API where they stand on none.
  answers["POST /import"] = () => ({ changes: [
    { what: "subscription", name: MUNCHKIN, change: "change", fields: ["quota_share_percent", "extract_since"] },
    { what: "feed", name: "default", change: "change", fields: ["every_hours"] },
    { what: "sync", name: "aam:101 → VIP", change: "change", fields: ["guard", "of_tomorrow"] }] });
  await page.getByRole("button", { name: "Show what would change" }).click();
  await page.getByText("would change: Our share of Marketo’s limits, in percent; extract_since").waitFor();
  await page.getByText("would change: Adobe delivers every so many hours").waitFor();
  await page.getByText("would change: When a change is held; of_tomorrow").waitFor();
  // Nothing is called applied that is not.
  answers["POST /import"] = (body) => ({ changes: [{ ...change, ...(body.apply ? { done: false, why: "in English", why_code: "import_time_over", why_values: {} } : {}) }] });
  await page.getByRole("button", { name: "Show what would change" }).click();
  await page.getByRole("button", { name: "Apply" }).click();
  await yes(page).click();
  await page.getByRole("alert").getByText("1 change was not made").waitFor();
  assert.equal(await page.locator("main").getByText("Applied.").count(), 0);
});

test("a preview is that of the audience and the list on screen, and what fails without an answer is said", async (t) => {
  const answers = stubs.answers();
  const audience = (id, name) => ({ audience_id: id, name, description: null, delivered: true, size: 10, delivered_at: "2026-11-22T09:30:00Z" });
  Object.assign(answers, {
    "GET /folders": [{ id: "aam:1", parent_id: null, name: "Retail" }],
    "GET /folders/aam%3A1/audiences": [audience("aam:101", "First"), audience("aam:102", "Second")],
    "GET /list-folders": [{ id: 12, name: "Group Lists", path: "/Group Lists" }],
    "POST /syncs/preview": (body) => ({ status: 202, json: { id: body.audience_id.slice(4), status: "counting" } }),
    "GET /previews/101": { id: "101", status: "done", list: { id: 1001, name: "VIP", new: false }, as_of: "2026-11-22T09:30:00Z", browsers: 70, addressable: 60, known: 50,
      people: 40, already_there: 30, already_there_asked: 20, kept_out: 4, to_add: 6, to_add_is_estimate: true, calls: { total: 1 }, seconds: 60, left_today: 100, not_asked: 0 },
    "GET /previews/102": { id: "102", status: "counting" },
  });
  const { page } = await open(t, "#/new", { answers });
  const cells = () => page.locator(".preview td").allInnerTexts();
  const next = () => page.getByRole("button", { name: "Next" }).click();
  await page.getByRole("treeitem", { name: "Retail" }).click();
  await next();
  await page.getByRole("radio", { name: "First" }).check();
  await next();
  await page.locator("main input[role=combobox]").fill("1001");
  await until("the preview", async () => (await cells())[3] === "40");
  // People: those who are there, who are kept out, and who are to be added.
  assert.deepEqual((await cells()).slice(3, 7), ["40", "about 30", "4", "about 6"]);
  await page.goBack();
  await page.getByRole("radio", { name: "Second" }).check();
  await next();
  await page.locator(".preview").waitFor();
  await until("the second preview", () => page.getByText("Counting …").isVisible());
  assert.ok((await cells()).every((cell) => cell === "–"));
  const lost = (route) => route.abort();
  await page.route(/\/syncs(\?|$)/, lost);
  await page.getByRole("button", { name: "Sync", exact: true }).click();
  await page.locator("main .problem").waitFor();
});

test("feeds and files come page by page, and a name is declared once", async (t) => {
  const answers = stubs.answers();
  const [first, second] = answers["GET /feeds"];
  const paged = (path, one, two) => (_, url) => url.searchParams.has("after")
    ? { status: 200, json: [two] } : { status: 200, json: [one], headers: { link: `<${path}?after=1>; rel="next"` } };
  answers["GET /feeds"] = paged("/feeds", first, second);
  answers["GET /imports"] = paged("/imports", stubs.HELD_FILE, { ...stubs.HELD_FILE, id: "f.0", status: "done" });
  const { page } = await open(t, "#/feeds", { answers });
  assert.equal(await page.locator("[data-feed]").count(), 2);
  assert.equal(await page.locator("[data-import]").count(), 1);
  await page.getByRole("button", { name: "More" }).click();
  await page.locator("[data-import='f.0']").waitFor();
  await page.locator("summary", { hasText: "Declare" }).click();
  await page.getByLabel("Name of the feed").fill("live");
  await page.locator("details.card.drawer").last().getByRole("button").first().click();
  await page.getByText("A feed of this name is declared already.").waitFor();
});

test("a delivery that is being read says how far it is, and its file by which id it is found", async (t) => {
  const answers = stubs.answers();
  const under = { delivery: "d1", step: "taking", done: 12_000_000, of: 30_000_000, unit: "entries", since: "2026-11-22T09:30:00Z", invocations: 3, sentence: "in English" };
  answers["GET /feeds"][0].under_way = [under];
  const running = { ...stubs.HELD_FILE, status: "running", why: null, why_code: null, why_values: null, progress: under };
  // What an operator has applied waits for nobody any more.
  const applied = { ...stubs.HELD_FILE, id: "f.2", progress: { ...under, step: "counting", done: null, of: null, unit: null, invocations: 1 } };
  answers["GET /imports"] = [running, applied];
  const { page } = await open(t, "#/feeds", { answers });
  assert.match(await page.locator("[data-delivery=d1]").innerText(), /12,000,000 of 30,000,000 entries\..+3 runs so far\..+d1/s);
  const file = page.locator("[data-import='f.1']");
  assert.match(await file.innerText(), /being taken in.+12,000,000 of 30,000,000 entries\..+f\.1/s);
  assert.equal(await file.locator("progress").getAttribute("value"), "12000000");
  assert.match(await page.locator("[data-import='f.2']").innerText(), /entries are being counted.+1 run so far/s);
  assert.equal(await page.locator("[data-notice=delivery]").count(), 0);
});

test("whom nothing ties to a browser is not said to be in an audience", async (t) => {
  const answers = stubs.answers();
  answers["POST /explain"] = stubs.explained("no_match", { subject: "email", browsers: [], lists: [] });
  const { page } = await open(t, "#/explain", { answers });
  await page.getByLabel("What do you have?").first().selectOption("email");
  await page.locator("main input").first().fill("reader@example.com");
  await page.getByRole("button", { name: "Explain", exact: true }).click();
  await page.getByText("Nothing ties the person or the cookie to a browser of the audience.").waitFor();
  assert.deepEqual(await page.locator("[data-link]").evaluateAll((all) => all.map((one) => one.dataset.state)), ["unknown", "missing", "later", "later"]);
});

test("incidents are told in the language of the screen", async (t) => {
  const answers = stubs.answers();
  const incident = (kind, values) => ({ id: kind, kind, subject: "x", sentence: `in English: ${kind}`, values, since: "2026-11-22T09:30:00Z", ended_at: null, not_told_yet: [] });
  answers["GET /alerts"] = { ...answers["GET /alerts"], incidents: [
    incident("sync_stopped", { sync_id: stubs.SYNC_ID, status: "paused", why: "in English", why_code: "list_gone", why_values: {} }),
    incident("stuck", { work: "list", keys: 2 }), incident("feed_late", { feed: "default", last_at: "2026-11-22T09:30:00Z", every_hours: 24 }),
    incident("delivery_held", { feed: "default", import: "f.1" }), incident("change_held", { list_id: 1001, held: "h1", removals: 400, additions: 2, of: 900 }),
    incident("run_slow", { list_id: 1001, seconds: 3_600, usual_seconds: 60 }), incident("list_deviates", { sync_id: stubs.SYNC_ID, size: 50, median: 100, percent: 20 }),
    incident("quota_used_up", { ours_today: 1, others_today: 2, until: "2026-11-22T09:30:00Z" }), incident("dead_letters", { queue: "q", messages: 3 }),
    incident("of_tomorrow", { what: 1 })] };
  const { page } = await open(t, "#/settings", { answers, language: "fr" });
  const rows = await page.locator(".alerts table").last().locator("tbody tr").allInnerTexts();
  assert.equal(rows.length, 10);
  assert.deepEqual(rows.filter((row) => row.includes("in English")).length, 1);
  assert.match(rows[5], /1\sheure.+1\sminute/);
  assert.match(rows[1], /2 tâches \(écriture des listes\)/);
  assert.deepEqual(await stubs.bareKeys(page), []);
});

test("reasons are told in the language of the screen, and in English where the code is of tomorrow", async (t) => {
  const answers = stubs.answers();
  const english = (page) => page.locator("main [lang=en]:visible").allInnerTexts();
  answers["GET /imports"] = [stubs.HELD_FILE, { ...stubs.HELD_FILE, id: "f.2", status: "refused", why: "of tomorrow", why_code: "of_tomorrow", why_values: {} }];
  const { page } = await open(t, "#/feeds", { answers, language: "sv" });
  await page.getByText("av 12 har inget setts på dina sidor").waitFor();
  for (const all of await page.locator("details").all()) await all.evaluate((one) => { one.open = true; });
  await page.getByText("Kolumn 3 innehåller inget webbläsar-ID").first().waitFor();
  await page.getByText("Tiden kan inte läsas.").waitFor();
  assert.deepEqual(await english(page), ["of tomorrow"]);
  answers[`GET /syncs/${stubs.SYNC_ID}`] = { ...answers[`GET /syncs/${stubs.SYNC_ID}`], status: "paused", why: "in English", why_code: "audience_deleted_aam", why_values: { name: "A", audience: "aam:101" } };
  const { page: sync } = await open(t, `#/syncs/${stubs.SYNC_ID}`, { answers, language: "fr" });
  await sync.getByText("L’audience « A » a été supprimée dans Audience Manager.").waitFor();
  assert.deepEqual(await english(sync), []);
  assert.deepEqual([...(await stubs.bareKeys(page)), ...(await stubs.bareKeys(sync))], []);
});

test("a comparison that was left does not replace the one that was chosen after it", async (t) => {
  const answers = stubs.answers();
  answers["GET /lists"] = { lists: [{ id: 1002, name: "List A" }, { id: 1003, name: "List B" }], count: 2, complete: true };
  answers[`POST /syncs/${stubs.SYNC_ID}/compare`] = (body) =>
    body.start ? { status: 202, json: { id: "c1" } } : { list_id: body.list_id, list_name: body.list_id === 1002 ? "List A" : "List B", calls: 3 };
  const done = answers["GET /comparisons/c1"];
  answers["GET /comparisons/c1"] = { ...done, status: "reading" };
  const { page, asked } = await open(t, `#/syncs/${stubs.SYNC_ID}/compare`, { answers });
  const reads = () => asked.filter(({ key }) => key === "GET /comparisons/c1").length;
  await page.getByLabel("The other list").fill("list");
  await page.getByRole("button", { name: "List A" }).click();
  await page.getByRole("button", { name: "Compare", exact: true }).click();
  await until("the first look", () => reads() > 0);
  await page.getByRole("button", { name: "List B" }).click();
  await page.locator(".outcome h2", { hasText: "List B" }).waitFor();
  const before = reads();
  await page.getByText("This takes 3 Marketo calls.").waitFor();
  answers["GET /comparisons/c1"] = done;
  await assert.rejects(page.locator("[data-count=both]").waitFor({ timeout: 3_000 }));
  assert.equal(reads(), before);
});

test("the audit log as one file has every row of every page", async (t) => {
  const answers = stubs.answers();
  const json = answers["GET /audit"];
  answers["GET /audit"] = (_, url) => {
    if (url.searchParams.get("format") !== "csv") return json;
    return url.searchParams.has("after") ? { json: undefined, status: 200, contentType: "text/csv", body: '"3"\r\n' }
      : { json: undefined, status: 200, contentType: "text/csv", body: '"id"\r\n"1"\r\n"2"\r\n', headers: { link: '</audit?format=csv&after=2>; rel="next"' } };
  };
  const { page } = await open(t, "#/audit", { answers });
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Download as CSV" }).click()]);
  const chunks = [];
  for await (const chunk of await download.createReadStream()) chunks.push(chunk);
  assert.equal(Buffer.concat(chunks).toString(), '"id"\r\n"1"\r\n"2"\r\n"3"\r\n');
  assert.equal(await page.locator("main .notice").count(), 0);
});

test("an audit log that is too long for one file says where the file ends", async (t) => {
  const answers = stubs.answers();
  const json = answers["GET /audit"];
  answers["GET /audit"] = (_, url) => url.searchParams.get("format") !== "csv" ? json
    : { json: undefined, status: 200, contentType: "text/csv", body: '"1"\r\n', headers: { link: '</audit?format=csv&after=2>; rel="next"' } };
  const { page, asked } = await open(t, "#/audit", { answers });
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Download as CSV" }).click()]);
  const chunks = [];
  for await (const chunk of await download.createReadStream()) chunks.push(chunk);
  assert.equal(Buffer.concat(chunks).toString(), '"1"\r\n'.repeat(200));
  await page.getByText("The file ends after 100,000 rows").waitFor();
  assert.equal(asked.filter(({ url }) => url.includes("format=csv")).length, 200);
});

/** Answers for the steps of a new sync, up to the destination. */
const wizard = (more = {}) => ({
  ...stubs.answers(),
  "GET /folders": [{ id: "aam:1", parent_id: null, name: "Retail", origin: "Audience Manager" }],
  "GET /folders/aam%3A1/audiences": [{ audience_id: "aam:101", name: "First", description: null, delivered: true, size: 10, delivered_at: "2026-11-22T09:30:00Z" }],
  "GET /list-folders": [{ id: 12, name: "Group Lists", path: "/Group Lists" }],
  ...more,
});
async function toDestination(page) {
  await page.getByRole("treeitem", { name: "Retail" }).click();
  await page.getByRole("button", { name: "Next" }).click();
  await page.getByRole("radio", { name: "First" }).check();
  await page.getByRole("button", { name: "Next" }).click();
  await page.locator(".destination").waitFor();
}

test("the set-up is looked at anew for each new sync, and once more where it could not be", async (t) => {
  const answers = wizard();
  const row = { code: "no_such_code", area: "marketo", status: "not_ok", title: "Something is amiss", means: "it is so", values: {} };
  answers["GET /setup"] = { status: 503, json: { title: "Service Unavailable", status: 503, detail: "away" } };
  const { page, asked } = await open(t, "#/new", { answers });
  const checks = () => asked.filter(({ url }) => url.includes("/setup?for=sync")).length;
  await until("the check", () => checks() === 1);
  answers["GET /setup"] = { checked_at: "2026-11-22T09:30:00Z", rows: [row] };
  await toDestination(page);
  await page.getByText("Something is amiss").waitFor();
  assert.equal(checks(), 2);
  answers["GET /setup"] = { checked_at: "2026-11-22T09:31:00Z", rows: [] };
  await page.goto(`${stack.url}/#/new`);
  await page.getByRole("tree").waitFor();
  assert.equal(checks(), 3);
  await toDestination(page);
  assert.equal(await page.getByText("Something is amiss").count(), 0);
});

test("the folder of a new list is preset by Marketo's id, by its name, or is the first", async (t) => {
  const folder = (id, name) => ({ id, name, path: `/${name}` });
  for (const [folders, preset] of [
    [[folder(7, "Group Lists"), folder(12, "Listes")], "12"],
    [[folder(7, "Other"), folder(8, "Group Lists")], "8"],
    [[folder(7, "Other"), folder(9, "Another")], "7"],
  ]) {
    const { page } = await open(t, "#/new", { answers: wizard({ "GET /list-folders": folders }) });
    await toDestination(page);
    assert.equal(await page.getByLabel("Folder of the new list").inputValue(), preset);
  }
});

test("several lists of one name, and a folder that takes none, are said where there is room for it", async (t) => {
  const answers = wizard({ "GET /lists": { lists: [], count: 0, complete: true } });
  const refused = (pointer, code, values, more = {}) => ({ status: 422, json: { title: "Unprocessable", status: 422, detail: "in English", code, values, errors: [{ pointer, detail: "in English", code, values }], ...more } });
  for (const width of [1_280, 360]) {
    const { page } = await open(t, "#/new", { answers, width });
    // A browser takes what moves in the first 500 ms for the user's own doing.
    await page.route("**/syncs/preview", async (route) => {
      await new Promise((resolve) => setTimeout(resolve, 700));
      await route.fallback();
    });
    await toDestination(page);
    const chosen = page.locator(".chosen");
    const places = () => page.evaluate(() => [...document.querySelectorAll(".preview, details.options, .destination > .buttons")].map((one) => one.getBoundingClientRect().top + scrollY));
    const before = await places();
    const lists = [11, 12, 13, 14, 15].map((id) => ({ id, name: "Spring" }));
    answers["POST /syncs/preview"] = refused("/list/name", "list_name_taken", { name: "Spring", id: 11 }, { existing_lists: lists });
    await page.locator("main input[role=combobox]").fill("Spring");
    await chosen.getByRole("button", { name: "Take Spring (ID 15)" }).waitFor();
    assert.deepEqual(await places(), before, `${width}`);
    assert.equal(await stubs.overflows(page), false);
    assert.deepEqual(await stubs.accessibility(page), []);
    answers["POST /syncs/preview"] = refused("/list/folder_id", "folder_takes_no_list", { folder: 12, code: "711" });
    await page.locator("main input[role=combobox]").fill("Summer");
    await page.getByText("Choose another folder.").waitFor();
    assert.equal(await page.getByLabel("Folder of the new list").getAttribute("aria-invalid"), "true");
    assert.deepEqual(await places(), before, `${width}`);
    answers["POST /syncs/preview"] = { status: 503, json: { title: "Service Unavailable", status: 503, detail: "Marketo's limit is used up; please try again" } };
    await page.locator("main input[role=combobox]").fill("Autumn");
    await chosen.locator(".problem").getByText("Marketo's limit is used up").waitFor();
    assert.deepEqual(await places(), before, `${width}`);
    assert.deepEqual(await stubs.shifts(page), [], `${width}`);
  }
});

test("a library that does not answer says so in the language of the screen", async (t) => {
  const away = { id: "aep:root", parent_id: null, name: "Experience Platform", origin: "Experience Platform", unreachable: true };
  const manager = { id: "aam:1", parent_id: null, name: "Retail", origin: "Audience Manager" };
  const { page } = await open(t, "#/new", { answers: wizard({ "GET /folders": [manager, away] }), language: "fr" });
  await page.getByRole("treeitem", { name: "Experience Platform (injoignable pour l’instant)" }).waitFor();
});

test("home moves no card by itself; what would waits for a click", async (t) => {
  const answers = stubs.answers();
  const at = (to_add) => ({ audience: { size: 100, delivered_at: null }, wanted: 50, list: { to_add, to_remove: 0, handled_at: null } });
  const card = (n, more = {}) => stubs.sync({ id: `${n}`.repeat(16), audience_name: `Audience ${n}`, live: at(1), ...more });
  answers["GET /syncs"] = [card(1), card(2)];
  answers["GET /status"] = { settled: true };
  const { page } = await open(t, "", { answers });
  const cards = () => page.locator("li.sync").evaluateAll((all) => all.map((one) => one.dataset.spot[0]).join(""));
  await page.locator("li.sync").nth(1).waitFor();
  const link = page.getByRole("link", { name: "Audience 2 → VIP" });
  await link.focus();
  // New numbers fit, and the focus stays.
  answers["GET /syncs"] = [card(1, { live: at(7) }), card(2)];
  await page.getByText("7 to add, 0 to remove").waitFor({ timeout: 30_000 });
  assert.ok(await link.evaluate((one) => one === document.activeElement));
  assert.equal(await page.locator(".news button").count(), 0);
  // Another sync in front would move those that are there, though the row has room for it.
  answers["GET /syncs"] = [card(3), card(1), card(2)];
  const news = page.locator(".news button");
  await news.waitFor({ timeout: 30_000 });
  assert.equal(await cards(), "12");
  await news.click();
  assert.equal(await cards(), "312");
  assert.equal(await news.count(), 0);
  // So would a card that grows.
  answers["GET /syncs"] = [card(3, { held: stubs.HELD }), card(1), card(2)];
  await news.waitFor({ timeout: 30_000 });
  assert.equal(await page.getByText("A large change waits for your decision.").count(), 0);
  assert.deepEqual(await stubs.shifts(page), []);
  await news.click();
  await page.getByText("A large change waits for your decision.").waitFor();
});

test("the user guide is shown as a page, and brings in nothing but text", async (t) => {
  const { page } = await open(t, "#/help", { answers: stubs.answers() });
  const text = ["# A guide", "", "*[Français](guide.fr.md)*", "", "One line", "and **the *same*** paragraph with `a < b`.", "", "1. First", "", "   ![A picture](screens/a.png)", "",
    "2. Second,", "   that goes on", "", "## <b>Part</b>", "", "- [Marketo](https://example.com/a) and [the set-up](setup.md) or [what](javascript:alert(1))"].join("\n");
  await page.route("**/console/guide.en.md", (route) => route.fulfill({ contentType: "text/plain; charset=utf-8", body: text }));
  await page.getByRole("link", { name: "The whole user guide" }).click();
  await page.getByRole("heading", { level: 1, name: "A guide" }).waitFor();
  const shown = await page.locator("main").evaluate((main) => [...main.querySelectorAll("h1 ~ *")].map((one) => `${one.tagName}: ${one.textContent}`));
  assert.deepEqual(shown.slice(0, 5), ["P: Français", "P: One line and the same paragraph with a < b.", "OL: FirstSecond, that goes on", "H2: <b>Part</b>", shown[4]]);
  assert.match(shown[4], /^UL: Marketo and the set-up or what/);
  assert.equal(await page.locator("main ol li").count(), 2);
  assert.equal(await page.locator("main p strong em").innerText(), "same");
  assert.equal(await page.locator("main code").innerText(), "a < b");
  assert.deepEqual(await page.locator("main a").evaluateAll((all) => all.map((one) => one.getAttribute("href"))), ["#/help", "https://example.com/a"]);
  assert.equal(await page.locator("main :is(b, img)").count(), 0);
  // The real one, in each language.
  await page.unroute("**/console/guide.en.md");
  for (const [code, title] of [["fr", "Guide de l'utilisateur"], ["sv", "Användarhandbok"], ["en", "User guide"]]) {
    await page.locator("header select").selectOption(code);
    await page.getByRole("heading", { level: 1, name: title }).waitFor();
    assert.ok((await page.locator("main h2").count()) >= 5);
    assert.ok((await page.locator("main ol > li").count()) >= 6);
    assert.doesNotMatch(await page.locator("main").innerText(), /\*\*|!\[|\]\(|^#/m);
    assert.deepEqual(await stubs.accessibility(page), []);
    assert.equal(await stubs.overflows(page), false);
  }
});

test("absence means leaving only after a look at who would have left", async (t) => {
  const answers = stubs.answers();
  answers["PUT /feeds/default"] = {};
  const { page, asked } = await open(t, "#/feeds", { answers });
  const feed = page.locator("[data-feed=default]");
  await feed.locator("details.drawer summary").click();
  await feed.getByLabel("Whoever is absent from a full delivery has left").check();
  await feed.getByRole("button", { name: "Save" }).click();
  assert.match(await page.locator("dialog").innerText(), /would have been so.+90\s+10/s);
  await yes(page).click();
  await until("the order", () => asked.some(({ key }) => key === "PUT /feeds/default"));
  assert.deepEqual(asked.find(({ key }) => key === "PUT /feeds/default").body,
    { kind: "aam-files", snapshots: true, completeness: "single-file", quiet_minutes: 30, lag_minutes: 0, every_hours: 24 });
});

test("on real data: what was done stands in the audit log, and comes as a file", async (t) => {
  const { page } = await open(t, "#/audit");
  const text = await page.locator("tbody").innerText();
  for (const what of ["sync stopped", "sync resumed", "sync paused"]) assert.match(text, new RegExp(what));
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Download as CSV" }).click()]);
  const chunks = [];
  for await (const chunk of await download.createReadStream()) chunks.push(chunk);
  const lines = Buffer.concat(chunks).toString().trim().split("\n");
  assert.equal(lines.filter((line) => line.includes("sync.stop")).length, 1);
});

test("on real data: every page comes up", async (t) => {
  for (const hash of [`#/syncs/${id}`, `#/syncs/${id}/runs`, `#/syncs/${id}/compare`, "#/explain", "#/setup", "#/settings", "#/feeds", "#/audit", "#/help"]) {
    const { page } = await open(t, hash);
    assert.equal(await page.locator("main .problem").count(), 0, `${hash}: ${await page.locator("main").innerText()}`);
    assert.deepEqual(await stubs.bareKeys(page), [], hash);
  }
});

test("a viewer sees everything, and learns why nothing can be changed", async (t) => {
  const answers = stubs.answers();
  answers["GET /console/config"] = { auth: { authority: "https://login.example.com", client_id: "console", scope: "openid" }, version: "0" };
  answers["GET /me"] = { name: "Vera", role: "viewer" };
  const session = { token: "a.b.c", until: Date.now() + 3_600_000, name: "Vera" };
  answers[`GET /syncs/${stubs.SYNC_ID}`] = stubs.sync({ held: stubs.HELD });
  for (const [hash, free] of [
    [`#/syncs/${stubs.SYNC_ID}`, /^(Make the file|[−+]?\d.*)$/s],
    ["#/settings", /^(Copy|Export)$/],
    ["#/feeds", /^$/],
  ]) {
    const { page, asked } = await open(t, hash, { answers, session });
    await page.getByText("You may look, but not change anything").first().waitFor();
    const buttons = await page.locator("main button").evaluateAll((all) =>
      all.map((one) => ({ text: one.textContent.trim(), disabled: one.getAttribute("aria-disabled") === "true", title: one.title })));
    for (const { text, disabled, title } of buttons) {
      if (free.test(text)) continue;
      assert.ok(disabled && /You may look/.test(title), `${hash}: ${text}`);
    }
    for (const button of await page.locator("main button[aria-disabled=true]").all()) await button.evaluate((one) => one.click());
    assert.equal(await page.locator("dialog").count(), 0);
    assert.deepEqual(asked.filter(({ key }) => !key.startsWith("GET ")), []);
  }
});

const PAGES = [`#/syncs/${stubs.SYNC_ID}`, `#/syncs/${stubs.SYNC_ID}/runs`, `#/syncs/${stubs.SYNC_ID}/compare`, "#/explain", "#/setup", "#/settings", "#/feeds", "#/audit", "#/help", "#/help?guide"];

for (const [width, scheme, language] of [[1_280, "light", "en"], [1_280, "dark", "sv"], [360, "light", "fr"], [360, "dark", "en"]])
  test(`every page at ${width} px, ${scheme}, in ${language}: nothing moves, overflows or is hard to read`, async (t) => {
    for (const hash of PAGES) {
      const answers = stubs.answers();
      answers[`GET /syncs/${stubs.SYNC_ID}`] = stubs.sync({ held: stubs.HELD, not_delivered: stubs.NOT_DELIVERED });
      const { page } = await open(t, hash, { answers, width, scheme, language });
      if (hash === PAGES[0]) await page.locator(".chart .plot").nth(1).waitFor();
      assert.deepEqual(await stubs.shifts(page), [], hash);
      assert.equal(await page.evaluate(() => document.documentElement.lang), language);
      // With everything open that can be opened.
      for (const summary of await page.locator("main details:not([open]) > summary").all()) if (await summary.isVisible()) await summary.click();
      for (const chip of await page.locator("main .chip").all()) await chip.click();
      await until("what was opened", async () => (await page.locator("main [aria-busy]").count()) === 0);
      assert.equal(await stubs.overflows(page), false, hash);
      // The guide names a file.
      assert.deepEqual((await stubs.bareKeys(page)).filter((key) => key !== "munchkin.js"), [], hash);
      assert.deepEqual(await stubs.accessibility(page), [], hash);
    }
  });
