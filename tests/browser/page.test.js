// The tag in a real browser, against the running local stack. Each page's network log is compared as a whole, and at
// the end Marketo's list must hold exactly the people whose pages have sent a match.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";

import { startEdge, startSite } from "./servers.js";
import { startStack, until } from "./stack.js";
import { DAY, kndctr, kndctrName, MINUTE, mktoTrk, MUNCHKIN, ORG, SECOND } from "./world.js";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const START = new Date("2026-11-22T12:00:00Z");

const people = [];
/** A person whom Marketo knows by a token, and whose ECID is in the audience. */
function person() {
  const n = people.length + 1;
  const one = {
    lead: 100_000 + n,
    email: `person-${n}@example.com`,
    ecid: String(10n ** 37n + 7_919n * BigInt(n) ** 9n).padStart(38, "0"),
    token: `_mch-example.test-1700000000000-${10_000 + n}`,
    sent: false,
  };
  people.push(one);
  return one;
}
// They are in the stack's world from the beginning.
const crowd = Array.from({ length: 32 }, person);
const next = (sent) => Object.assign(crowd.shift(), { sent });

let browser, stack, site, edge, other;

before(async () => {
  browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: [
      "--no-sandbox",
      "--disable-quic",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      "--no-first-run",
      "--host-resolver-rules=MAP *.test 127.0.0.1",
    ],
  });
  stack = await startStack({ org: ORG, munchkin: MUNCHKIN, people });
  site = await startSite();
  edge = await startEdge(stack.url);
  other = await startEdge(stack.url);
  await stack.allow([`http://*.example.test:${site.port}`]);
});

after(async () => {
  await browser?.close();
  await Promise.all([site, edge, other].map((server) => server?.close()));
  await stack?.stop();
});

const www = (path) => `http://www.example.test:${site.port}${path}`;
const shop = (path) => `http://shop.example.test:${site.port}${path}`;
const tag = (attributes = "", host = `http://collect.example.test:${edge.port}`) =>
  `<script async src="${host}/tag.js" data-org="${ORG}" data-munchkin="${MUNCHKIN}" ${attributes}></script>`;
const named = (cookie) => {
  const at = cookie.indexOf("=");
  return { name: cookie.slice(0, at), value: cookie.slice(at + 1), domain: ".example.test", path: "/" };
};
/** What visitor.js writes. */
const amcv = (ecid, optOut = "NONE") => {
  const value = `1176715910|MCIDTS|20779|MCMID|${ecid}|MCAAMLH-1790000000|6|MCOPTOUT-1790000000s|${optOut}|vVersion|5.5.0`;
  return `AMCV_${encodeURIComponent(ORG)}=${encodeURIComponent(value)}`;
};

/** A browser of its own, whose pages' clocks stand still until they are told to go on. */
async function visitor(t, { cookies = [], script } = {}) {
  const context = await browser.newContext();
  t.after(() => context.close());
  await context.clock.install({ time: START });
  await context.clock.pauseAt(START.getTime() + SECOND);
  if (script) await context.addInitScript(script);
  const setCookies = (list) => context.addCookies(list.map(named));
  await setCookies(cookies);
  let log = [];
  const wrong = [];
  const servers = [edge, other];
  const already = servers.map(({ requests }) => requests.length);
  const short = (url) => {
    const { hostname, port, pathname } = new URL(url);
    return [site, edge, other].some((server) => `${server.port}` === port) ? `${hostname}${pathname}` : url;
  };
  context.on("request", (request) => {
    log.push(`${request.method()} ${short(request.url())} ${request.resourceType()}`);
  });
  context.on("weberror", (error) => wrong.push(`${error.error()}`));
  context.on("console", (message) => wrong.push(`${message.type()}: ${message.text()}`));
  /** All beacons of this browser so far, as the servers saw them. */
  const beacons = () =>
    servers.flatMap(({ requests }, n) => requests.slice(already[n])).filter(({ path }) => path === "/beacon");
  return {
    context,
    setCookies,
    beacons,
    /** Opens a page; the tag has run once when it is there. */
    async open(url, page) {
      page ??= await context.newPage();
      await page.goto(url);
      return page;
    },
    /** Lets the pages' time go by. */
    pass: (ms) => context.clock.runFor(ms),
    /** What the pages have requested since the last time. Nothing may have gone wrong in them. */
    async requests() {
      // A page's answer comes after what it has requested before.
      for (const page of context.pages()) await page.evaluate(() => document.title);
      const seen = log;
      log = [];
      assert.deepEqual(wrong, []);
      return seen;
    },
    async requested(expected) {
      assert.deepEqual(await this.requests(), expected);
    },
    /** Asserts that the servers have had exactly these beacons, and have answered each with an empty 204. */
    async told(expected) {
      await until("the beacons", () => beacons().length >= expected.length && beacons().every((one) => one.status));
      for (const [n, { method, status, answer, headers, body }] of beacons().entries()) {
        assert.deepEqual([method, status, answer["content-length"] ?? "0"], ["POST", 204, "0"]);
        assert.match(headers["content-type"], /^text\/plain(;|$)/);
        const { ecid, token } = expected[n] ?? assert.fail("one too many");
        assert.deepEqual(JSON.parse(body), { org_id: ORG, ecid, munchkin_id: MUNCHKIN, token });
      }
      // No preflight, and nothing else but the tag.
      const rest = servers.flatMap(({ requests }, n) => requests.slice(already[n]));
      for (const { method, path } of rest) assert.ok(path === "/beacon" || (method === "GET" && path.startsWith("/tag")));
    },
  };
}

const document = (host, path) => `GET ${host}.example.test${path} document`;
const TAG = "GET collect.example.test/tag.js script";
const BEACON = "POST collect.example.test/beacon ping";

test("the Web SDK's cookie", async (t) => {
  const who = next(true);
  site.pages.set("/web-sdk", { head: tag() });
  const v = await visitor(t, { cookies: [kndctr(who.ecid), mktoTrk(who.token)] });
  await v.open(www("/web-sdk"));
  await v.pass(2 * MINUTE);
  await v.requested([document("www", "/web-sdk"), TAG, BEACON]);
  await v.told([who]);
  // On a first-party host the server sees the cookies themselves.
  const [{ headers }] = v.beacons();
  assert.equal(headers.origin, www(""));
  assert.ok(headers.cookie.includes(kndctrName()) && headers.cookie.includes(who.token));
});

test("visitor.js's cookie", async (t) => {
  const who = next(true);
  site.pages.set("/visitor-js", { head: tag() });
  const v = await visitor(t, { cookies: [amcv(who.ecid), mktoTrk(who.token)] });
  await v.open(www("/visitor-js"));
  await v.pass(2 * MINUTE);
  await v.requested([document("www", "/visitor-js"), TAG, BEACON]);
  await v.told([who]);
});

test("no cookies at first, then one, then the other", async (t) => {
  const who = next(true);
  site.pages.set("/later", { head: tag() });
  const v = await visitor(t);
  const page = await v.open(www("/later"));
  const set = (cookie) => page.evaluate((text) => (document.cookie = text), `${cookie}; domain=.example.test; path=/`);
  await v.pass(5 * SECOND);
  await set(mktoTrk(who.token));
  await v.pass(90 * SECOND);
  await v.requested([document("www", "/later"), TAG]);
  await set(kndctr(who.ecid));
  await v.pass(5 * SECOND);
  await v.requested([BEACON]);
  await v.pass(5 * MINUTE);
  await v.requested([]);
  await v.told([who]);
});

test("an ECID that only the Web SDK itself tells, after a while", async (t) => {
  const who = next(true);
  site.pages.set("/alloy", { head: `<script src="/alloy.js"></script>${tag()}` });
  site.scripts.set(
    "/alloy.js",
    `window.alloy = (name) => name === "getLibraryInfo"
      ? Promise.resolve({ libraryInfo: { configs: { orgId: "${ORG}" } } })
      : new Promise((resolve) => setTimeout(() => resolve({ identity: { ECID: "${who.ecid}" } }), 2000));`,
  );
  const v = await visitor(t, { cookies: [mktoTrk(who.token)] });
  await v.open(www("/alloy"));
  await v.requested([document("www", "/alloy"), "GET www.example.test/alloy.js script", TAG]);
  // Second by second, so that promises have their turn between the timers.
  for (let second = 0; second < 8; second++) await v.pass(SECOND);
  await v.requested([BEACON]);
  await v.told([who]);
});

test("an ECID that only visitor.js itself tells", async (t) => {
  const who = next(true);
  site.pages.set("/visitor", { head: `<script src="/visitor.js"></script>${tag()}` });
  site.scripts.set(
    "/visitor.js",
    `window.s_c_il = [{ _c: "Visitor", marketingCloudOrgID: "${ORG}", getMarketingCloudVisitorID: () => "${who.ecid}" }];`,
  );
  const v = await visitor(t, { cookies: [mktoTrk(who.token)] });
  await v.open(www("/visitor"));
  await v.pass(MINUTE);
  await v.requested([document("www", "/visitor"), "GET www.example.test/visitor.js script", TAG, BEACON]);
  await v.told([who]);
});

for (const [name, cookie] of [
  ["Marketo's", () => "mkto_opt_out=true"],
  ["Audience Manager's", () => "demdex=NOTARGET"],
  ["visitor.js's", (ecid) => amcv(ecid, "global")],
])
  test(`${name} opt-out`, async (t) => {
    const who = next(false);
    site.pages.set("/opt-out", { head: tag() });
    const v = await visitor(t, { cookies: [kndctr(who.ecid), mktoTrk(who.token), cookie(who.ecid)] });
    const page = await v.open(www("/opt-out"));
    await v.pass(20 * MINUTE);
    await v.requested([document("www", "/opt-out"), TAG]);
    assert.equal(await page.evaluate(() => localStorage.length), 0);
    await v.told([]);
  });

test("Global Privacy Control, by setting", async (t) => {
  const who = next(false);
  const script = () => Object.defineProperty(navigator, "globalPrivacyControl", { value: true });
  site.pages.set("/gpc", { head: tag('data-gpc="honour"') });
  const v = await visitor(t, { cookies: [kndctr(who.ecid), mktoTrk(who.token)], script });
  await v.open(www("/gpc"));
  await v.pass(20 * MINUTE);
  await v.requested([document("www", "/gpc"), TAG]);
  await v.told([]);
});

test("consent that is given late, and never", async (t) => {
  const who = next(true);
  site.pages.set("/consent", { head: tag('data-consent="whenAllowed"') });
  // Counts who reads cookies and storage.
  const script = () => {
    window.reads = 0;
    const { get, set } = Object.getOwnPropertyDescriptor(Document.prototype, "cookie");
    Object.defineProperty(document, "cookie", { get: () => (window.reads++, get.call(document)), set });
    const storage = Object.getOwnPropertyDescriptor(window, "localStorage");
    Object.defineProperty(window, "localStorage", { get: () => (window.reads++, storage.get.call(window)) });
  };
  const v = await visitor(t, { cookies: [kndctr(who.ecid), mktoTrk(who.token)], script });
  const page = await v.open(www("/consent"));
  await v.pass(2 * MINUTE);
  await page.evaluate(() => (window.whenAllowed = (answer) => (window.answer = answer)));
  await v.pass(2 * MINUTE);
  await page.evaluate(() => window.answer(false));
  await v.pass(2 * MINUTE);
  await v.requested([document("www", "/consent"), TAG]);
  assert.equal(await page.evaluate(() => window.reads), 0);
  await page.evaluate(() => window.answer(true));
  await v.requested([BEACON]);
  await v.told([who]);

  const never = next(false);
  const w = await visitor(t, { cookies: [kndctr(never.ecid), mktoTrk(never.token)], script });
  await w.open(www("/consent"));
  await w.pass(20 * MINUTE);
  await w.requested([document("www", "/consent"), TAG]);
  await w.told([]);
});

test("a repeat visit is silent for seven days, on another host it is not", async (t) => {
  const who = next(true);
  site.pages.set("/repeat", { head: tag() });
  const v = await visitor(t, { cookies: [kndctr(who.ecid), mktoTrk(who.token)] });
  const page = await v.open(www("/repeat"));
  await v.requested([document("www", "/repeat"), TAG, BEACON]);
  for (let day = 0; day < 6; day++) {
    await v.open(www("/repeat"), page);
    await v.pass(MINUTE);
    await v.requested([document("www", "/repeat"), TAG]);
    await v.context.clock.fastForward(DAY);
  }
  await v.open(shop("/repeat"), page);
  await v.requested([document("shop", "/repeat"), TAG, BEACON]);
  await v.context.clock.fastForward(DAY);
  await v.open(www("/repeat"), page);
  await v.requested([document("www", "/repeat"), TAG, BEACON]);
  await v.told([who, who, who]);
});

test("a new ECID and a new token in the same page", async (t) => {
  const [who, whose] = [next(true), next(true)];
  site.pages.set("/change", { head: tag() });
  const v = await visitor(t, { cookies: [kndctr(who.ecid), mktoTrk(who.token)] });
  await v.open(www("/change"));
  await v.pass(MINUTE);
  await v.setCookies([kndctr(whose.ecid), mktoTrk(whose.token)]);
  await v.pass(MINUTE);
  await v.requested([document("www", "/change"), TAG, BEACON, BEACON]);
  await v.told([who, whose]);
});

test("two tabs send at most one more, and a third one nothing", async (t) => {
  const who = next(true);
  site.pages.set("/tabs", { head: tag() });
  const v = await visitor(t);
  await v.open(www("/tabs"));
  await v.open(www("/tabs"));
  const view = [document("www", "/tabs"), TAG];
  await v.requested([...view, ...view]);
  // Both see the cookies in the same second.
  await v.setCookies([kndctr(who.ecid), mktoTrk(who.token)]);
  await v.pass(2 * MINUTE);
  const sent = await v.requests();
  assert.ok(sent.length === 1 || sent.length === 2, `${sent}`);
  assert.ok(sent.every((one) => one === BEACON), `${sent}`);
  await v.open(www("/tabs"));
  await v.pass(2 * MINUTE);
  await v.requested(view);
  await v.told(sent.map(() => who));
});

test("blocked storage: once a page view", async (t) => {
  const who = next(true);
  site.pages.set("/blocked", { head: tag() + tag() });
  const script = () =>
    Object.defineProperty(window, "localStorage", {
      get() {
        throw new DOMException("Access is denied for this document.", "SecurityError");
      },
    });
  const v = await visitor(t, { cookies: [kndctr(who.ecid), mktoTrk(who.token)], script });
  const page = await v.open(www("/blocked"));
  await v.pass(20 * MINUTE);
  await v.open(www("/blocked"), page);
  await v.pass(20 * MINUTE);
  const view = [document("www", "/blocked"), TAG, BEACON];
  await v.requested([...view, ...view]);
  await v.told([who, who]);
});

test("a strict Content-Security-Policy", async (t) => {
  const who = next(true);
  const api = `http://collect.example.test:${edge.port}`;
  site.pages.set("/strict", {
    head: tag(),
    headers: {
      "content-security-policy":
        `default-src 'none'; script-src ${api}; connect-src ${api}; img-src data:; base-uri 'none'; form-action 'none'; ` +
        "require-trusted-types-for 'script'; trusted-types 'none'",
    },
  });
  const v = await visitor(t, { cookies: [kndctr(who.ecid), mktoTrk(who.token)] });
  await v.open(www("/strict"));
  await v.pass(2 * MINUTE);
  await v.requested([document("www", "/strict"), TAG, BEACON]);
  await v.told([who]);
});

for (const [name, script] of [
  ["is missing", () => delete Navigator.prototype.sendBeacon],
  ["refuses", () => (Navigator.prototype.sendBeacon = () => false)],
])
  test(`fetch where sendBeacon ${name}`, async (t) => {
    const who = next(true);
    site.pages.set("/fetch", { head: tag() });
    const v = await visitor(t, { cookies: [kndctr(who.ecid), mktoTrk(who.token)], script });
    await v.open(www("/fetch"));
    await v.pass(2 * MINUTE);
    await v.requested([document("www", "/fetch"), TAG, "POST collect.example.test/beacon fetch"]);
    await v.told([who]);
    assert.ok(v.beacons()[0].headers.cookie.includes(who.token));
  });

test("an endpoint on another site, which sees no cookies", async (t) => {
  const who = next(true);
  site.pages.set("/cross-site", { head: tag("", `http://other.test:${other.port}`) });
  const v = await visitor(t, { cookies: [kndctr(who.ecid), mktoTrk(who.token)] });
  await v.open(www("/cross-site"));
  await v.pass(2 * MINUTE);
  await v.requested([
    document("www", "/cross-site"),
    "GET other.test/tag.js script",
    "POST other.test/beacon ping",
  ]);
  await v.told([who]);
  assert.equal(v.beacons()[0].headers.cookie, undefined);
});

test("an endpoint that is named", async (t) => {
  const who = next(true);
  site.pages.set("/named", { head: tag(`data-endpoint="http://other.test:${other.port}/beacon"`) });
  const v = await visitor(t, { cookies: [amcv(who.ecid), mktoTrk(who.token)] });
  await v.open(www("/named"));
  await v.requested([document("www", "/named"), TAG, "POST other.test/beacon ping"]);
  await v.told([who]);
});

test("the line that the API gives for a page", async (t) => {
  const who = next(true);
  const { file, snippet } = await stack.call("GET", "/tag");
  // The API takes the host from the request, and here nobody calls it by the host that pages use.
  const host = `http://collect.example.test:${edge.port}`;
  site.pages.set("/snippet", { head: snippet.replace(stack.url, host) });
  const v = await visitor(t, { cookies: [kndctr(who.ecid), mktoTrk(who.token)] });
  const page = await v.open(www("/snippet"));
  const script = `GET collect.example.test/${file} script`;
  await v.requested([document("www", "/snippet"), script, BEACON]);
  await v.open(www("/snippet"), page);
  await v.requested([document("www", "/snippet"), script]);
  await v.told([who]);
  // The second time it came from the browser's own cache.
  assert.equal(edge.requests.filter(({ path }) => path === `/${file}`).length, 1);
});

test("a page that sends no referrer", async (t) => {
  const who = next(true);
  site.pages.set("/no-referrer", { head: tag(), headers: { "referrer-policy": "no-referrer" } });
  const v = await visitor(t, { cookies: [kndctr(who.ecid), mktoTrk(who.token)] });
  await v.open(www("/no-referrer"));
  await v.requested([document("www", "/no-referrer"), TAG, BEACON]);
  await v.told([who]);
});

test("a page that is left at once", async (t) => {
  const who = next(true);
  site.pages.set("/left", { head: tag() });
  site.pages.set("/after", { head: "" });
  const v = await visitor(t);
  const page = await v.open(www("/left"));
  await v.setCookies([kndctr(who.ecid), mktoTrk(who.token)]);
  await v.open(www("/after"), page);
  // A browser reports no more requests of a page that it has left; the server has had the beacon.
  await v.requested([document("www", "/left"), TAG, document("www", "/after")]);
  await v.told([who]);
});

test("a page of somebody else is answered alike, and matches nobody", async (t) => {
  const who = next(false);
  site.pages.set("/foreign", { head: tag() });
  const v = await visitor(t);
  await v.context.addCookies(
    [kndctr(who.ecid), mktoTrk(who.token)].map((cookie) => ({ ...named(cookie), domain: ".foreign.test" })),
  );
  await v.open(`http://www.foreign.test:${site.port}/foreign`);
  await v.requested(["GET www.foreign.test/foreign document", TAG, BEACON]);
  await v.told([who]);
});

test("in the end the list holds those who were matched, and nobody else", async () => {
  const expected = people.filter(({ sent }) => sent).map(({ lead }) => lead);
  assert.ok(expected.length >= 10);
  await until("the list", async () => (await stack.members()).length >= expected.length, 120_000);
  assert.deepEqual(await stack.members(), expected);
});
