// Makes the pictures of the README and of the user guide: `node tests/browser/screenshots.js`. They show the running local
// stack on a small world of its own, in three languages.

import { mkdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

import catalogue from "../../functions/create-sync/console/catalogue.json" with { type: "json" };
import { startStack, until } from "./stack.js";
import { MUNCHKIN, ORG } from "./world.js";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const OUT = fileURLToPath(new URL("../../infra/docs/screens/", import.meta.url));
const LANGUAGES = { en: "en-GB", fr: "fr-FR", sv: "sv-SE" };
const BROWSERS = 60;
const MATCHED = 41;

const people = Array.from({ length: BROWSERS }, (_, n) => ({
  lead: 400_000 + n,
  email: `shopper-${n}@example.com`,
  ecid: String(10n ** 37n + 32_452_843n * BigInt(n + 1) ** 9n).padStart(38, "0"),
  token: `_mch-example.test-1700000000000-${40_000 + n}`,
}));
const world = {
  library: {
    folders: [
      { folderId: 1, parentFolderId: 0, name: "Retail" },
      { folderId: 2, parentFolderId: 1, name: "Shoes" },
      { folderId: 3, parentFolderId: 0, name: "Services" },
    ],
    segments: [
      { sid: 101, folderId: 2, name: "Cart abandoners" },
      { sid: 102, folderId: 2, name: "Seen twice this week" },
      { sid: 103, folderId: 1, name: "Returning visitors" },
    ],
  },
  lists: [{ id: 1001, name: "Webinar guests", members: people.slice(36, 48).map(({ lead }) => lead) }],
  syncs: [{ audience_id: "aam:101", list: { id: 1001 } }],
};

const stack = await startStack({ org: ORG, munchkin: MUNCHKIN, people, world });
const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-background-networking"] });
try {
  for (const { ecid, token } of people.slice(0, MATCHED)) {
    await stack.call("POST", "/matches", { org_id: ORG, ecid, munchkin_id: MUNCHKIN, token });
  }
  const [sync] = await stack.call("GET", "/syncs");
  await until("a list that is in step", async () => (await stack.call("GET", "/status")).settled, 300_000);
  await stack.call("POST", `/syncs/${sync.id}/run`);
  await until("its report", async () => {
    const report = await stack.call("GET", `/syncs/${sync.id}/report`).catch(() => null);
    return report?.people === MATCHED && report.waiting === 0 && (await stack.call("GET", "/status")).settled;
  }, 300_000);

  for (const [language, locale] of Object.entries(LANGUAGES)) {
    const word = (key) => catalogue[key][language];
    const context = await browser.newContext({ viewport: { width: 960, height: 640 }, locale, colorScheme: "light", reducedMotion: "reduce" });
    const page = await context.newPage();
    await mkdir(OUT + language, { recursive: true });
    const shoot = (name, options = {}) => page.screenshot({ path: `${OUT}${language}/${name}.png`, ...options });
    const heading = (key) => page.getByRole("heading", { level: 1, name: word(key), exact: true }).waitFor();

    await page.goto(`${stack.url}/`);
    await heading("home.title");
    await page.locator("li.sync").waitFor();
    await shoot("step-1");
    await page.getByRole("button", { name: word("home.new"), exact: true }).click();
    await shoot("step-2");
    await page.getByRole("link", { name: word("home.sync_from") }).first().click();
    await heading("step.folder");
    const shoes = page.getByRole("treeitem", { name: "Shoes" });
    if (!(await shoes.isVisible())) await page.getByRole("treeitem", { name: "Retail" }).locator(".caret").first().click();
    await shoes.click();
    await shoot("step-3");
    await page.getByRole("button", { name: word("create.next") }).click();
    await heading("step.audience");
    await page.getByRole("radio", { name: "Cart abandoners" }).check();
    await shoot("step-4");
    await page.getByRole("button", { name: word("create.next") }).click();
    await heading("step.list");
    await page.locator("[role=combobox]").fill(`Carts ${language}`);
    await page.getByRole("option").last().click();
    await page.locator(".preview table").waitFor({ timeout: 120_000 });
    const nothing = word("preview.as_of").split("{time}.")[1].trim();
    await page.getByText(nothing).waitFor({ timeout: 120_000 });
    await shoot("step-5", { fullPage: true });
    await page.getByRole("button", { name: word("create.sync"), exact: true }).click();
    await heading("done.title");
    await shoot("step-6");
    await page.goto(`${stack.url}/#/syncs/${sync.id}`);
    await page.locator("svg").first().waitFor();
    await page.waitForLoadState("networkidle");
    await shoot("sync", { fullPage: true });
    await context.close();
  }
} finally {
  await browser.close();
  await stack.stop();
}
