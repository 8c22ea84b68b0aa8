// Signing in to the console at an issuer of the tests. The files are the console's own; the API behind them is a stub
// with an authorizer that verifies tokens as API Gateway's does.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";

import { startIssuer } from "./oidc.js";
import { listen } from "./servers.js";

const CONSOLE = new URL("../../functions/create-sync/console/", import.meta.url);
const TYPES = { html: "text/html; charset=utf-8", css: "text/css", js: "text/javascript", json: "application/json" };
const CLIENT = "console-client";
const OLGA = { sub: "11111111", name: "Olga Operator", groups: ["everybody", "operator"] };
const VERA = { sub: "22222222", name: "Vera Viewer", groups: ["viewer"] };

let browser;
before(async () => {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"],
  });
});
after(() => browser?.close());

/** The catalogue in one language, as the API gives it. */
const catalogue = async (language) => {
  const all = JSON.parse(await readFile(new URL("catalogue.json", CONSOLE), "utf8"));
  return JSON.stringify(Object.fromEntries(Object.entries(all).map(([key, words]) => [key, words[language]])));
};

/** The console's host: its files to everybody, all else to holders of a token. */
async function startHost(issuer) {
  const seen = [];
  const host = { seen, config: { authority: issuer.url, client_id: CLIENT, scope: "openid profile", audience: CLIENT } };
  const json = (response, status, body) => {
    response.writeHead(status, { "content-type": status < 400 ? TYPES.json : "application/problem+json" });
    response.end(JSON.stringify(body));
  };
  const server = await listen(async (request, response) => {
    const { pathname } = new URL(request.url, "http://host");
    const file = pathname === "/" ? "index.html" : /^\/console\/([a-z-]+(?:\.(?:en|fr|sv))?\.[a-z]+)$/.exec(pathname)?.[1];
    const words = /^catalogue\.(en|fr|sv)\.json$/.exec(file ?? "")?.[1];
    if (file) {
      const bytes = words ? await catalogue(words) : await readFile(new URL(file, CONSOLE)).catch(() => null);
      response.writeHead(bytes ? 200 : 404, {
        "content-type": TYPES[file.split(".").pop()],
        "content-security-policy":
          `default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ${issuer.url}; img-src 'self' data:; ` +
          "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
      });
      return response.end(bytes);
    }
    if (pathname === "/console/config") return json(response, 200, { auth: host.config, version: "0" });
    const claims = issuer.authorize(request.headers.authorization);
    seen.push({ path: pathname, claims });
    if (!claims) return json(response, 401, { status: 401, title: "Unauthorized", detail: "this route needs a token" });
    const groups = claims["cognito:groups"] ?? [];
    const role = groups.includes("operator") ? "operator" : groups.includes("viewer") ? "viewer" : null;
    if (!role) return json(response, 403, { status: 403, title: "Forbidden", detail: "no role", needs: "viewer" });
    if (pathname === "/me") return json(response, 200, { name: claims.sub, role });
    json(response, 200, pathname === "/syncs" ? [] : {});
  });
  host.url = `http://127.0.0.1:${server.port}`;
  host.close = server.close;
  return host;
}

/** An issuer, the console's host, and a tab. */
async function world(t, { who, flavour } = {}) {
  const issuer = await startIssuer({ clientId: CLIENT, flavour });
  const host = await startHost(issuer);
  issuer.who = who ?? null;
  const context = await browser.newContext({ locale: "en-GB" });
  t.after(async () => {
    await context.close();
    await Promise.all([host.close(), issuer.close()]);
  });
  const page = await context.newPage();
  const text = (part) => page.getByText(part).first().waitFor();
  return { issuer, host, context, page, text };
}

const stored = (page) => page.evaluate(() => JSON.stringify({ ...sessionStorage }) + JSON.stringify({ ...localStorage }));

for (const [who, role] of [[OLGA, "operator"], [VERA, "viewer"]])
  test(`${role}s sign in and come back to the page they asked for`, async (t) => {
    const { issuer, host, page, text } = await world(t, { who });
    await page.goto(`${host.url}/#/help`);
    await text(who.name);
    // Neither code nor state stays in the address or in the history.
    assert.equal(page.url(), `${host.url}/#/help`);
    const asked = issuer.requests.find(({ path }) => path === "/authorize").query;
    assert.equal(asked.get("response_type"), "code");
    assert.equal(asked.get("code_challenge_method"), "S256");
    assert.equal(asked.get("redirect_uri"), `${host.url}/`);
    assert.equal(asked.get("scope"), "openid profile");
    assert.ok(asked.get("state").length >= 43 && asked.get("nonce").length >= 43);
    const user = await page.evaluate(async () => (await import("/console/auth.js")).user());
    assert.deepEqual(user, { name: who.name, role });
    // Every request has shown a token that the authorizer takes: the access token.
    assert.ok(host.seen.length >= 1);
    for (const { path, claims } of host.seen) assert.equal(claims?.token_use, "access", path);
    // A reload does not ask the issuer again.
    const before = issuer.requests.length;
    await page.reload();
    await text(who.name);
    assert.equal(issuer.requests.length, before);
    assert.ok(!(await stored(page)).includes("auth.pending"));
  });

test("an opaque access token is not sent; the ID token is", async (t) => {
  const { host, page, text } = await world(t, { who: OLGA, flavour: "opaque" });
  await page.goto(host.url);
  await text(OLGA.name);
  for (const { path, claims } of host.seen) assert.equal(claims?.token_use, "id", path);
});

test("who has no role learns so, and may sign out", async (t) => {
  const { issuer, host, page, text } = await world(t, { who: { sub: "3", name: "Nora Nobody" } });
  await page.goto(host.url);
  await text("Nora Nobody, you are signed in but may not use this console.");
  await page.getByRole("button", { name: "Sign out" }).click();
  await text("You have signed out.");
  const logout = issuer.requests.find(({ path }) => path === "/logout").query;
  assert.equal(logout.get("client_id"), CLIENT);
  assert.equal(logout.get("post_logout_redirect_uri"), `${host.url}/`);
});

test("a sign-out lasts until somebody signs in again", async (t) => {
  const { host, page, text } = await world(t, { who: OLGA });
  await page.goto(host.url);
  await text(OLGA.name);
  await page.getByRole("button", { name: "Sign out" }).click();
  await text("You have signed out.");
  assert.ok(!(await stored(page)).includes("auth.session"));
  await page.reload();
  await text("You have signed out.");
  await page.getByRole("button", { name: "Sign in" }).click();
  await text(OLGA.name);
});

test("a token that has run out is replaced, on the same page", async (t) => {
  const { issuer, host, page, text } = await world(t, { who: OLGA });
  await page.clock.install();
  await page.goto(`${host.url}/#/help`);
  await text(OLGA.name);
  const signIns = () => issuer.requests.filter(({ path }) => path === "/authorize").length;
  assert.equal(signIns(), 1);
  await page.clock.fastForward(3_595_000);
  await page.evaluate(async () => (await import("/console/auth.js")).token());
  await page.waitForEvent("load");
  await text(OLGA.name);
  assert.equal(signIns(), 2);
  assert.equal(page.url(), `${host.url}/#/help`);
});

test("who refuses at the issuer is told, and may try again", async (t) => {
  const { issuer, host, page, text } = await world(t);
  await page.goto(host.url);
  await text("The sign-in service refused: access_denied");
  issuer.who = VERA;
  await page.getByRole("button", { name: "Sign in" }).click();
  await text(VERA.name);
});

test("a code that was not asked for here is not used", async (t) => {
  const { issuer, host, page, text } = await world(t, { who: OLGA });
  await page.goto(`${host.url}/?code=stolen&state=guessed`);
  await text("was not started in this tab");
  assert.ok(issuer.requests.every(({ path }) => path !== "/token"));
  assert.equal(page.url(), `${host.url}/`);
});

for (const [what, twist] of [
  ["another sign-in", (claims) => ({ ...claims, nonce: "other" })],
  ["another client", (claims) => ({ ...claims, aud: "other" })],
  ["another issuer", (claims) => ({ ...claims, iss: "https://other.example" })],
  ["yesterday", (claims) => ({ ...claims, exp: claims.exp - 86_400 })],
])
  test(`an ID token of ${what} is not taken`, async (t) => {
    const { issuer, host, page, text } = await world(t, { who: OLGA });
    issuer.twist = twist;
    await page.goto(host.url);
    await text("an answer that is not meant for this console");
    assert.equal(host.seen.length, 0);
    assert.ok(!(await stored(page)).includes("auth.session"));
  });

test("an issuer that is away, or calls itself otherwise, is named", async (t) => {
  const { issuer, host, page, text } = await world(t, { who: OLGA });
  host.config = { ...host.config, authority: `${issuer.url}/nothing` };
  await page.goto(host.url);
  await text(`The sign-in service at ${issuer.url}/nothing does not answer`);
  host.config = { ...host.config, authority: issuer.url };
  issuer.says = "https://other.example";
  await page.reload();
  await text("calls itself by another name");
});

test("without an authority the console is open", async (t) => {
  const { issuer, host, page, text } = await world(t);
  host.config = null;
  await page.goto(`${host.url}/#/help`);
  await page.getByRole("heading", { level: 1 }).waitFor();
  assert.equal(issuer.requests.length, 0);
  const user = await page.evaluate(async () => (await import("/console/auth.js")).user());
  assert.deepEqual(user, { name: "", role: "operator" });
});
