// The console's home and the six steps of a new sync, in a real browser against the running local stack. What is rare is
// answered by the tests.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";

import { startStack, until } from "./stack.js";
import { accessibility, bareKeys, overflows, shifts, watchShifts } from "./stubs.js";
import { FOLDERS, MUNCHKIN, ORG } from "./world.js";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
/** Largest first view, compressed, in bytes. */
const FIRST_VIEW = 100 * 1024;
/** Answers come so late that a browser does not take what moves for the user's own doing (500 ms). */
const LATE_MS = 700;
const BROWSERS = 12;
const MATCHED = 8;

const people = Array.from({ length: BROWSERS }, (_, n) => ({
  lead: 300_000 + n,
  email: `shopper-${n}@example.com`,
  ecid: String(10n ** 37n + 15_485_863n * BigInt(n + 1) ** 9n).padStart(38, "0"),
  token: `_mch-example.test-1700000000000-${30_000 + n}`,
}));
const known = people.slice(0, MATCHED).map(({ lead }) => lead);
const world = {
  library: {
    folders: FOLDERS,
    segments: [
      { sid: 101, folderId: 2, name: "Cart abandoners" },
      { sid: 102, folderId: 2, name: "Never delivered" },
      { sid: 103, folderId: 2, name: "Returning visitors" },
    ],
  },
  lists: [
    { id: 1001, name: "Webinar guests", members: known.slice(0, 3) },
    { id: 1002, name: "Old customers", members: [] },
  ],
  syncs: [],
  delivered: "101,103",
};

let browser, stack;

before(async () => {
  browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-background-networking"] });
  stack = await startStack({ org: ORG, munchkin: MUNCHKIN, people, world });
  for (const { ecid, token } of people.slice(0, MATCHED)) {
    await stack.call("POST", "/matches", { org_id: ORG, ecid, munchkin_id: MUNCHKIN, token });
  }
});

after(async () => {
  await browser?.close();
  await stack?.stop();
});

/** A browser of its own with the console open. `answers`: path → what is answered instead. Nothing may go wrong in it. */
async function open(t, { hash = "", width = 1_280, scheme = "light", language = "en-GB", answers = {}, late = 0, session } = {}) {
  const context = await browser.newContext({ viewport: { width, height: 800 }, colorScheme: scheme, locale: language });
  t.after(() => context.close());
  const wrong = [];
  const asked = [];
  context.on("weberror", (error) => wrong.push(`${error.error()}`));
  context.on("console", (message) => {
    // A browser logs each answer of 400 and above; pages show them.
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) wrong.push(message.text());
  });
  context.on("request", (request) => asked.push({ method: request.method(), url: request.url(), body: request.postData() }));
  await context.route(`${stack.url}/**`, async (route) => {
    const request = route.request();
    const { pathname } = new URL(request.url());
    const answer = answers[`${request.method()} ${pathname}`];
    const page = pathname === "/" || pathname.startsWith("/console/");
    if (late > 0 && !page) await new Promise((resolve) => setTimeout(resolve, late));
    if (!answer) return route.continue();
    const { status = 200, body } = typeof answer === "function" ? answer(request) : answer;
    const contentType = status < 400 ? "application/json" : "application/problem+json";
    return route.fulfill({ status, contentType, body: JSON.stringify(body) });
  });
  await watchShifts(context);
  if (session) await context.addInitScript((value) => location.protocol === "about:" || sessionStorage.setItem("auth.session", JSON.stringify(value)), session);
  const page = await context.newPage();
  await page.goto(`${stack.url}/${hash}`);
  await page.locator("main h1").waitFor();
  t.after(() => assert.deepEqual(wrong, []));
  /** Requests that may change something. */
  const writes = () => asked.filter(({ method }) => method !== "GET").map(({ method, url }) => `${method} ${new URL(url).pathname}`);
  return { page, asked, writes };
}

const heading = (page, name) => page.getByRole("heading", { level: 1, name, exact: true }).waitFor();
const listField = (page) => page.getByRole("combobox", { name: "Static list" });
const chosen = (page) => page.locator(".chosen");
const press = async (page, ...keys) => {
  for (const key of keys) await page.keyboard.press(key);
};

/** From the home page to the destination of an audience. */
async function toList(page, { audience = "Cart abandoners" } = {}) {
  await page.getByRole("button", { name: "New", exact: true }).click();
  await page.getByRole("link", { name: "Sync from Experience Cloud Audience" }).first().click();
  await heading(page, "Audience Library Folder");
  const shoes = page.getByRole("treeitem", { name: "Shoes" });
  if (!(await shoes.isVisible())) await page.getByRole("treeitem", { name: "Retail" }).locator(".caret").first().click();
  await shoes.click();
  await page.getByRole("button", { name: "Next" }).click();
  await heading(page, "Audience Name");
  await page.getByRole("radio", { name: audience }).check();
  await page.getByRole("button", { name: "Next" }).click();
  await heading(page, "Static list");
}

/** The preview as it stands on the screen, when it is complete. */
async function previewOf(page) {
  await page.getByText("Nothing has been written.").waitFor({ timeout: 60_000 });
  const rows = await page.locator(".preview tr").all();
  const cells = await Promise.all(rows.map(async (row) => [await row.locator("th").innerText(), await row.locator("td").innerText()]));
  return Object.fromEntries(cells);
}

const problem = (status, detail, more = {}) => ({ status, body: { type: "about:blank", title: "refused", status, detail, ...more } });
const at = (pointer, detail) => ({ errors: [{ pointer, detail }] });

/** What the stack has: its syncs, and Marketo's lists. */
/** What somebody has chosen, and who is in the lists; not how far the functions are, who look at all lists again by themselves. */
const everything = async () => {
  const syncs = (await stack.call("GET", "/syncs")).map(({ live, progress, freshness, sources, ...chosen }) => chosen);
  return JSON.stringify([syncs, await stack.lists()]);
};

test("before there is a sync, home says how to begin, and the first view is small and of one origin", async (t) => {
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  const network = await context.newCDPSession(page);
  await network.send("Network.enable");
  let bytes = 0;
  const origins = new Set();
  network.on("Network.loadingFinished", ({ encodedDataLength }) => (bytes += encodedDataLength));
  network.on("Network.requestWillBeSent", ({ request }) => request.url.startsWith("data:") || origins.add(new URL(request.url).origin));
  await page.goto(`${stack.url}/`, { waitUntil: "networkidle" });
  await heading(page, "Database");
  await page.getByText("No syncs yet").waitFor();
  await page.getByRole("link", { name: "Sync from Experience Cloud Audience" }).waitFor();
  assert.deepEqual([...origins], [stack.url]);
  assert.ok(bytes > 10_000 && bytes < FIRST_VIEW, `${bytes} bytes`);
});

test("six steps to a new list; nothing is written before Sync, and what was previewed comes about", async (t) => {
  const { page, writes } = await open(t);
  const before = await everything();
  await toList(page);
  await page.getByText("Audience: Cart abandoners").waitFor();
  await listField(page).fill("  Carts of autumn ");
  await page.getByRole("option", { name: "Create new list “Carts of autumn”" }).click();
  await chosen(page).getByText("New list “Carts of autumn”").waitFor();
  const preview = await previewOf(page);
  assert.equal(preview["Browsers in the audience"], `${BROWSERS}`);
  assert.match(preview["Browsers seen with a Marketo cookie"], new RegExp(`^${MATCHED} \\(66\\.7\\s?%\\)$`));
  assert.equal(preview["People already in the list"], "0");
  const unasked = Number(/of (\d+) browser/.exec(await page.locator(".preview").innerText())?.[1] ?? 0);
  const folder = page.getByLabel("Folder of the new list");
  assert.ok(await folder.isEnabled());
  assert.match(await folder.locator("option:checked").innerText(), /Group Lists/);
  await page.getByText("Each person added or removed fires every campaign that listens to this list.").waitFor();
  assert.deepEqual([...new Set(writes())], ["POST /syncs/preview"]);
  assert.equal(await everything(), before, "nothing is written before Sync");

  await page.getByRole("button", { name: "Sync", exact: true }).click();
  await heading(page, "The sync has been started");
  assert.deepEqual(writes().filter((one) => one !== "POST /syncs/preview"), ["POST /syncs"]);
  const [sync] = await stack.call("GET", "/syncs");
  const facts = await page.locator("main dl").innerText();
  for (const words of ["Cart abandoners", "Carts of autumn", "leaves the list", "First result"]) assert.ok(facts.includes(words), facts);
  await page.getByRole("link", { name: "OK" }).click();
  await until("the sync's page", () => page.url().endsWith(`#/syncs/${sync.id}`));
  assert.deepEqual([sync.audience_id, sync.leaving, sync.members_before, sync.start], ["aam:101", "remove", "keep", "now"]);

  const list = () => stack.lists().then((lists) => lists.find(({ name }) => name === "Carts of autumn"));
  await until("the people in the list", async () => (await list())?.members.length === MATCHED, 180_000);
  // Before the first sync nobody has asked Marketo about these cookies, and the preview said so.
  assert.equal(Number(preview.People) + unasked, MATCHED);
  assert.equal(preview["People to add"], preview.People);
});

test("an existing list by the keyboard alone: its pasted address, who is there already, options, Sync", async (t) => {
  const { page, writes } = await open(t);
  const focused = () => page.evaluate(() => document.activeElement.textContent.trim());
  await press(page, "Tab");
  assert.equal(await focused(), "Skip to content");
  await press(page, "Enter", "Tab");
  assert.equal(await focused(), "New");
  await press(page, "Enter");
  assert.equal(await focused(), "Sync from Experience Cloud Audience");
  await press(page, "Escape");
  assert.equal(await focused(), "New");
  await press(page, "Enter", "Enter");
  await heading(page, "Audience Library Folder");
  assert.equal(await focused(), "Audience Library Folder", "the focus goes to the heading");

  // Next, with nothing chosen, says what is missing.
  await press(page, "Tab", "Tab");
  assert.equal(await focused(), "Next");
  await press(page, "Enter");
  await page.getByText("Choose a folder first.").waitFor();
  await press(page, "Shift+Tab");
  // To the last of the tops and back, then down into the tree by letters.
  await press(page, "End", "Home");
  const item = () => page.evaluate(() => document.activeElement.textContent.replace("▸", ""));
  assert.equal(await item(), "Retail");
  const retail = page.getByRole("treeitem", { name: "Retail" });
  if ((await retail.getAttribute("aria-expanded")) === "true") await press(page, "ArrowLeft");
  assert.equal(await retail.getAttribute("aria-expanded"), "false");
  await press(page, "ArrowRight", "ArrowRight");
  assert.equal(await item(), "Shoes");
  await press(page, "ArrowLeft");
  assert.equal(await item(), "Retail");
  await press(page, "s");
  assert.equal(await item(), "Shoes");
  await press(page, "Enter");
  assert.equal(await page.getByRole("treeitem", { name: "Shoes" }).getAttribute("aria-selected"), "true");
  await press(page, "Tab", "Enter");

  await heading(page, "Audience Name");
  await press(page, "Tab");
  await page.keyboard.type("return");
  await page.getByText("1 audience", { exact: true }).waitFor();
  await press(page, "Tab", "Space");
  assert.ok(await page.getByRole("radio", { name: "Returning visitors" }).isChecked());
  await press(page, "Tab", "Enter");

  await heading(page, "Static list");
  for (let n = 0; n < 9 && !(await listField(page).evaluate((input) => input === document.activeElement)); n += 1) await press(page, "Tab");
  await page.keyboard.insertText("https://app-ab12.marketo.com/#ST1001A1");
  await page.getByRole("option", { name: "The list with ID 1001" }).waitFor();
  await press(page, "ArrowDown", "Enter");
  const preview = await previewOf(page);
  await chosen(page).getByText("Webinar guests (ID 1001)").waitFor();
  assert.ok(await page.getByLabel("Folder of the new list").isDisabled());
  assert.deepEqual([preview.People, preview["People already in the list"], preview["People to add"]], [`${MATCHED}`, "3", `${MATCHED - 3}`]);
  await page.getByText("People who are in the list already stay, whatever the audience says.").waitFor();

  // The options, with their defaults.
  await press(page, "Tab");
  assert.equal(await focused(), "Options");
  await press(page, "Enter");
  const radio = (group, name) => page.getByRole("group", { name: group }).getByRole("radio", { name });
  assert.ok(await radio("Whoever leaves the audience", "leaves the list").isChecked());
  assert.ok(await radio("Whoever was in the list before", "stays in any case").isChecked());
  assert.ok(!(await page.getByRole("checkbox", { name: "Report only" }).isChecked()));
  await press(page, "Tab", "ArrowDown");
  assert.ok(await radio("Whoever leaves the audience", "stays in the list").isChecked());
  await page.getByText("Whoever leaves the audience stays in the list.").waitFor();
  await previewOf(page);
  await press(page, "Tab", "Tab", "Tab");
  assert.equal(await focused(), "Sync");
  assert.deepEqual([...new Set(writes())], ["POST /syncs/preview"]);
  await press(page, "Enter");
  await heading(page, "The sync has been started");
  const made = (await stack.call("GET", "/syncs")).find(({ list }) => list.id === 1001);
  assert.equal(made.leaving, "keep");
  await until("the people in the list", async () => (await stack.lists()).find(({ id }) => id === 1001).members.length === MATCHED, 180_000);
  for (let n = 0; n < 9 && (await focused()) !== "OK"; n += 1) await press(page, "Tab");
  await press(page, "Enter");
  await until("the sync's page", () => page.url().endsWith(`#/syncs/${made.id}`));
});

test("a name, an id and an address are told apart, and what is no static list is said at once", async (t) => {
  const { page, writes } = await open(t);
  await toList(page);
  const field = listField(page);
  await field.fill("webinar GUESTS");
  await chosen(page).getByText("Webinar guests (ID 1001)").waitFor();
  await field.fill("1002");
  await chosen(page).getByText("The list with ID 1002").or(chosen(page).getByText("Old customers (ID 1002)")).waitFor();
  await field.fill("https://experience.adobe.com/#/@org/so:123-ABC-456/marketo-engage/classic/ST1002A1");
  await chosen(page).getByText("(ID 1002)").waitFor();
  await field.fill("https://app-ab12.marketo.com/#SL77A1");
  await chosen(page).getByText("This is the address of a smart list.").waitFor();
  assert.equal(await field.getAttribute("aria-invalid"), "true");
  await field.fill("https://app-ab12.marketo.com/#PG12A1");
  await chosen(page).getByText("This address is not one of a static list.").waitFor();
  const before = writes().length;
  await page.getByRole("button", { name: "Sync", exact: true }).click();
  await until("the focus", () => field.evaluate((input) => input === document.activeElement));
  assert.deepEqual(writes().slice(before), []);
  await field.fill("");
  await chosen(page).getByText("Choose a list, or type the name of a new one.").waitFor();
});

test("an audience that nobody delivers has no preview, and can be synced", async (t) => {
  const { page } = await open(t);
  await toList(page, { audience: "Never delivered" });
  await page.getByText("No delivery has named this audience yet").waitFor();
  await listField(page).fill("Later");
  await page.getByText("There is nothing to count yet.").waitFor({ timeout: 60_000 });
  await page.locator("summary", { hasText: "Options" }).click();
  await page.getByRole("checkbox", { name: "Report only" }).check();
  await page.getByText("Nothing is written to the list: the sync counts and reports only.").waitFor();
  await page.getByRole("button", { name: "Sync", exact: true }).click();
  await heading(page, "The sync has been started");
  await page.getByText("when a delivery names this audience").waitFor();
  await page.getByText("It writes nothing to the list.").waitFor();
  const made = (await stack.call("GET", "/syncs")).find(({ audience_id }) => audience_id === "aam:102");
  assert.equal(made.start, "report_only");
});

test("a list that does not exist, and one that is fed already, are refused at the field with Marketo's and our reason", async (t) => {
  const { page } = await open(t);
  await toList(page, { audience: "Returning visitors" });
  const field = listField(page);
  await field.fill("99999");
  await chosen(page).getByText("Marketo has no static list with ID 99999.").waitFor({ timeout: 30_000 });
  assert.equal(await field.getAttribute("aria-invalid"), "true");
  const described = await field.evaluate((input) => input.getAttribute("aria-describedby").split(" ").map((id) => document.getElementById(id).textContent).join(" "));
  assert.match(described, /no static list with ID 99999/);
  await field.fill("Webinar guests");
  const fed = chosen(page).getByText('A sync fills the list "Webinar guests" from this audience already.');
  await fed.waitFor({ timeout: 30_000 });
  assert.match(await chosen(page).getByRole("link").getAttribute("href"), /^#\/syncs\/[0-9a-f]+$/);
  // Whoever insists is told the same, and nothing is made.
  const before = await everything();
  await page.getByRole("button", { name: "Sync", exact: true }).click();
  await until("the focus", () => field.evaluate((input) => input === document.activeElement));
  await fed.waitFor();
  assert.equal(await everything(), before);
});

test("a name that was taken meanwhile offers the list that has it", async (t) => {
  // The search does not find it.
  const { page } = await open(t, { answers: { "GET /lists": { body: { lists: [], count: 0, as_of: null, complete: false, note: null } } } });
  await toList(page);
  await listField(page).fill("Old customers");
  await chosen(page).getByText("Marketo has a list of this name already, with ID 1002.").waitFor({ timeout: 30_000 });
  await chosen(page).getByRole("button", { name: "Take Old customers (ID 1002)" }).click();
  await chosen(page).getByText("Old customers (ID 1002)").waitFor();
  const preview = await previewOf(page);
  assert.equal(preview["People to add"], `${MATCHED}`);
});

test("what the API refuses is said in the language of the screen", async (t) => {
  const english = (page) => page.locator("main [lang=en]").count();
  // The search does not find the list that has the name.
  const { page } = await open(t, { answers: { "GET /lists": { body: { lists: [], count: 0, as_of: null, complete: false, note: null } } } });
  await toList(page);
  await page.getByLabel("Language").selectOption("fr");
  await page.getByRole("combobox", { name: "Liste statique" }).fill("Old customers");
  await chosen(page).getByText("Marketo contient déjà une liste de ce nom, avec l’ID 1002.").waitFor({ timeout: 30_000 });
  assert.equal(await english(page), 0);

  const { page: settings } = await open(t, { hash: "#/settings", language: "sv-SE" });
  await settings.getByLabel("IMS-organisation").fill("nobody");
  await settings.getByLabel("Vår andel av Marketos gränser, i procent").fill("40");
  await settings.getByRole("button", { name: "Spara", exact: true }).first().click();
  await settings.getByText("Det är ingen IMS-organisation").waitFor();
  assert.equal(await settings.getByLabel("IMS-organisation").getAttribute("aria-invalid"), "true");
  assert.equal(await english(settings), 0);
  await settings.goto(`${stack.url}/#/syncs/0000000000000000`);
  await settings.getByRole("alert").getByText("Synkroniseringen finns inte eller inte längre.").waitFor();
  assert.equal(await english(settings), 0);
});

test("what rarely happens is refused where it belongs, and moves nothing", async (t) => {
  const answers = {};
  const { page } = await open(t, { answers, late: LATE_MS });
  await toList(page);
  const above = page.locator("main .problem");
  const preview = "POST /syncs/preview";
  answers[preview] = problem(422, "Audience Manager has no segment for aam:101", at("/audience_id", "Audience Manager has no segment for aam:101"));
  await listField(page).fill("One");
  await above.getByText("Audience Manager has no segment for aam:101").waitFor();
  await page.getByRole("link", { name: "Choose another audience" }).waitFor();
  answers[preview] = problem(422, "this folder does not take lists", at("/list/folder_id", "this folder does not take lists"));
  await listField(page).fill("Two");
  await page.getByText("this folder does not take lists").waitFor();
  assert.equal(await page.getByLabel("Folder of the new list").getAttribute("aria-invalid"), "true");
  answers[preview] = problem(503, "Marketo's limit is used up; please try again");
  await listField(page).fill("Three");
  await above.getByText("Marketo's limit is used up").waitFor();
  answers[preview] = { status: 202, body: { id: "p1", status: "counting" } };
  answers["GET /previews/p1"] = { body: { id: "p1", status: "failed", code: "membership_refused", why: "in English", values: { code: "603", request_id: "e42b#1" } } };
  await listField(page).fill("Four");
  await page.locator(".preview").getByText("code 603").waitFor();
  assert.deepEqual(await shifts(page), []);
});

test("a subscription that must not be used opens no step", async (t) => {
  const whole = await stack.call("GET", "/subscription");
  t.after(() => stack.call("PUT", "/subscription", whole));
  const { page } = await open(t);
  await toList(page);
  for (const [change, words] of [
    [{ hipaa_ready: true }, "this integration must not be used with it"],
    [{ org_id: null }, "No IMS organisation is mapped"],
    [{ cookie_sync: false }, "cookie sync is switched off"],
  ]) {
    await stack.call("PUT", "/subscription", { ...whole, ...change });
    // Whoever is in the midst of it sees it at once…
    await listField(page).fill(`List ${words}`);
    const refused = page.locator("main .problem");
    await refused.getByText(words).first().waitFor({ timeout: 30_000 });
    // …and whoever begins comes no further.
    const { page: other } = await open(t, { hash: "#/new" });
    await other.getByRole("alert").getByText(words).first().waitFor();
    assert.equal(await other.getByRole("tree").count(), 0);
    await stack.call("PUT", "/subscription", whole);
  }
});

test("what will hurt the sync stands above the destination, and makes room for what its list needs", async (t) => {
  const bad = (code, title, more = {}) => ({ code, area: "marketo", status: "not_ok", title, means: "it is so", values: {}, ...more });
  const rows = [
    bad("no_such_code", "The field ecids cannot be read"),
    bad("marketo_read_write_asset", "Lists cannot be made"),
    bad("experience_platform_library", "The other source"),
    bad("fine", "All is well here", { status: "ok" }),
  ];
  const { page } = await open(t, { answers: { "GET /setup": { body: { checked_at: "2026-11-22T09:30:00Z", rows } } } });
  await toList(page);
  const shown = () => page.locator(".notice.warn li:visible").allInnerTexts();
  await page.getByText("The field ecids cannot be read").waitFor();
  assert.equal((await shown()).length, 2);
  await listField(page).fill("Webinar guests");
  await chosen(page).getByText("Webinar guests (ID 1001)").waitFor();
  assert.deepEqual((await shown()).map((text) => text.split(" — ")[0]), ["The field ecids cannot be read"]);
  await listField(page).fill("Something new");
  await chosen(page).getByText("New list “Something new”").waitFor();
  assert.equal((await shown()).length, 2);
  assert.deepEqual(await shifts(page), []);
});

test("the preview stands under the field, on every screen", async (t) => {
  for (const width of [1_280, 360]) {
    const { page } = await open(t, { width });
    await toList(page);
    const box = async (selector) => page.locator(selector).boundingBox();
    const [field, preview, options] = [await box("main input[role=combobox]"), await box(".preview"), await box("details.options")];
    assert.ok(preview.y >= field.y + field.height && options.y >= preview.y + preview.height, `${width}`);
    assert.equal(preview.x, field.x, `${width}`);
  }
});

test("a viewer sees the preview, and not more", async (t) => {
  const answers = {
    "GET /console/config": { body: { auth: { authority: "https://login.example.com", client_id: "console", scope: "openid" }, version: "0" } },
    "GET /me": { body: { name: "Vera", role: "viewer" } },
  };
  const session = { token: "a.b.c", until: Date.now() + 3_600_000, name: "Vera" };
  const { page, writes } = await open(t, { answers, session });
  await toList(page);
  await listField(page).fill("Seen by a viewer");
  await previewOf(page);
  const button = page.getByRole("button", { name: "Sync", exact: true });
  assert.equal(await button.getAttribute("aria-disabled"), "true");
  await page.getByText("You may look, but not change anything").waitFor();
  await button.evaluate((one) => one.click());
  assert.deepEqual([...new Set(writes())], ["POST /syncs/preview"]);
});

test("an answer that was lost makes no second sync", async (t) => {
  const keys = [];
  const answers = {
    "POST /syncs": (request) => {
      keys.push(request.headers()["idempotency-key"]);
      return keys.length === 1 ? problem(503, "please try again") : problem(409, "taken", at("/list/name", "taken"));
    },
  };
  const { page } = await open(t, { answers });
  await toList(page);
  await listField(page).fill("Once only");
  await previewOf(page);
  const button = page.getByRole("button", { name: "Sync", exact: true });
  for (let n = 1; n <= 3; n += 1) {
    await button.click();
    await until("the request", () => keys.length === n);
    await until("the answer", async () => (await button.getAttribute("aria-busy")) === null);
  }
  assert.ok(keys[0].length >= 16);
  assert.equal(keys[1], keys[0], "the same request");
  assert.notEqual(keys[2], keys[1], "after an answer it is another one");
});

test("going back, and another language, lose nothing", async (t) => {
  const { page } = await open(t);
  await toList(page);
  await listField(page).fill("Kept");
  await chosen(page).getByText("New list “Kept”").waitFor();
  await page.getByLabel("Language").selectOption("sv");
  await heading(page, "Statisk lista");
  assert.equal(await page.locator("html").getAttribute("lang"), "sv");
  await page.getByText("Ny lista ”Kept”").waitFor();
  await page.goBack();
  await heading(page, "Målgruppsnamn");
  assert.ok(await page.getByRole("radio", { name: "Cart abandoners" }).isChecked());
  await page.reload();
  await heading(page, "Målgruppsbiblioteksmapp");
  assert.match(await page.title(), /^Målgruppsbiblioteksmapp · /);
});

const WORDS = {
  "en-GB": ["Database", "New", "Sync from Experience Cloud Audience", "Audience Library Folder", "Audience Name", "Next", "Sync"],
  "fr-FR": ["Base de données", "Nouveau", "Synchronisation à partir de l'audience Experience Cloud", "Dossier de bibliothèque d'audiences", "Nom de l'audience", "Suivant", "Synchronisation"],
  "sv-SE": ["Databas", "Nytt", "Synkronisera från Experience Cloud-målgrupp", "Målgruppsbiblioteksmapp", "Målgruppsnamn", "Nästa", "Synkronisera"],
};

for (const [width, scheme, language] of [[1_280, "light", "en-GB"], [1_280, "dark", "fr-FR"], [360, "light", "sv-SE"], [360, "dark", "fr-FR"], [360, "light", "en-GB"]])
  test(`the six steps at ${width} px, ${scheme}, in ${language}: nothing moves, overflows or is hard to read`, async (t) => {
    const { page } = await open(t, { width, scheme, language, late: LATE_MS });
    const [database, make, from, folder, audience, next, sync] = WORDS[language];
    const look = async (step) => {
      assert.deepEqual(await accessibility(page), [], step);
      assert.equal(await overflows(page), false, step);
      assert.deepEqual(await bareKeys(page), [], step);
      assert.deepEqual(await shifts(page), [], step);
    };
    await heading(page, database);
    await look("home");
    await page.getByRole("button", { name: make, exact: true }).click();
    await look("new");
    await page.locator("#new-items").getByRole("link", { name: from }).click();
    await heading(page, folder);
    const shoes = page.getByRole("treeitem", { name: "Shoes" });
    if (!(await shoes.isVisible())) await page.getByRole("treeitem", { name: "Retail" }).locator(".caret").first().click();
    await shoes.click();
    await look("folder");
    await page.getByRole("button", { name: next }).click();
    await heading(page, audience);
    await page.getByRole("radio", { name: "Cart abandoners" }).check();
    await look("audience");
    await page.getByRole("button", { name: next }).click();
    await page.locator("main input[role=combobox]").fill(`A list of ${width}`);
    await page.locator("li[role=option]").waitFor();
    await look("suggestions");
    await until("the preview", async () => /^\d/.test(await page.locator(".preview td").nth(6).innerText()));
    await look("preview");
    await page.locator("details.options summary").click();
    await look("options");
    await page.getByRole("button", { name: sync, exact: true }).waitFor();
  });

test("the summary and the list of syncs move and hide nothing either", async (t) => {
  for (const [width, scheme] of [[1_280, "dark"], [360, "light"]]) {
    const { page } = await open(t, { width, scheme, late: LATE_MS });
    await page.locator("li.sync").first().waitFor();
    assert.deepEqual(await accessibility(page), []);
    assert.equal(await overflows(page), false);
    await toList(page, { audience: "Never delivered" });
    await listField(page).fill(`Summary ${width}`);
    await page.getByText("There is nothing to count yet.").waitFor({ timeout: 60_000 });
    await page.locator("summary", { hasText: "Options" }).click();
    await page.getByRole("checkbox", { name: "Report only" }).check();
    await page.getByRole("button", { name: "Sync", exact: true }).click();
    await heading(page, "The sync has been started");
    assert.deepEqual(await accessibility(page), []);
    assert.equal(await overflows(page), false);
    assert.deepEqual(await shifts(page), []);
  }
});

test("a page that cannot be shown says why, and can be asked for again", async (t) => {
  const answers = { "GET /folders": problem(503, "Audience Manager does not answer") };
  const { page } = await open(t, { hash: "#/new", answers });
  await heading(page, "This page cannot be shown");
  await page.getByRole("alert").getByText("Audience Manager does not answer").waitFor();
  delete answers["GET /folders"];
  await page.getByRole("button", { name: "Try again" }).click();
  await heading(page, "Audience Library Folder");
  for (const place of ["no-such-page", "syncs/%E0%A4%A"]) {
    await page.goto(`${stack.url}/#/${place}`);
    await page.getByText("There is no such page.").waitFor();
  }
});

test("a console whose words cannot be loaded says so in three languages", async (t) => {
  const context = await browser.newContext({ locale: "sv-SE" });
  t.after(() => context.close());
  const page = await context.newPage();
  await page.route("**/console/catalogue.*.json", (route) => route.fulfill({ status: 503, body: "" }));
  await page.goto(`${stack.url}/`);
  await page.getByText("Konsolen kan inte laddas just nu.").waitFor();
  assert.equal(await page.locator("body p:visible").count(), 3);
  await page.unroute("**/console/catalogue.*.json");
  await page.reload();
  await heading(page, "Databas");
  assert.equal(await page.locator("#away").count(), 0);
});

test("where there are several subscriptions, one is chosen first", async (t) => {
  const ids = ["111-AAA-111", MUNCHKIN];
  const several = problem(400, "there are several subscriptions: say which with ?munchkin_id=", { munchkin_ids: ids });
  const home = ["GET /syncs", "GET /status"];
  const named = (request) => new URL(request.url()).searchParams.get("munchkin_id") === MUNCHKIN;
  const answers = {
    "GET /syncs": (request) => (named(request) ? { body: [] } : several),
    "GET /status": (request) => (named(request) ? { body: { settled: true } } : several),
  };
  const { page, asked } = await open(t, { answers });
  await heading(page, "Which Marketo subscription?");
  await page.getByLabel("Munchkin ID").selectOption(MUNCHKIN);
  await page.getByRole("button", { name: "Choose" }).click();
  await heading(page, "Database");
  const last = asked.filter(({ url }) => home.some((one) => new URL(url).pathname === one.slice(4))).slice(-2);
  assert.ok(last.every(({ url }) => new URL(url).searchParams.get("munchkin_id") === MUNCHKIN));
  // The place that is left may name something of the one before.
  await page.goto(`${stack.url}/#/help`);
  await page.getByRole("button", { name: `${MUNCHKIN}: choose another subscription` }).click();
  await heading(page, "Which Marketo subscription?");
  assert.equal(new URL(page.url()).hash, "#/");
});
