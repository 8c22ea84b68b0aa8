// Makes the pictures of the six steps and of the main pages for the README and the guide, in the three languages:
// node screenshots.js [folder]. It runs the local stack as the tests do (cargo build -p local first).

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

import { startStack, until } from "./stack.js";
import { FOLDERS, MUNCHKIN, ORG } from "./world.js";

const FOLDER = process.argv[2] ?? fileURLToPath(new URL("../../infra/docs/screens/", import.meta.url));
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const LANGUAGES = { en: "en-GB", fr: "fr-FR", sv: "sv-SE" };
const SIZE = { width: 1_120, height: 760 };
const BROWSERS = 240;
const MATCHED = 150;

const people = Array.from({ length: BROWSERS }, (_, n) => ({
  lead: 400_000 + n,
  email: n % 10 === 0 ? undefined : `visitor-${n}@example.com`,
  ecid: String(10n ** 37n + 32_452_843n * BigInt(n + 1) ** 9n).padStart(38, "0"),
  token: `_mch-example.test-1700000000000-${40_000 + n}`,
}));
const world = {
  library: {
    folders: FOLDERS,
    segments: [
      { sid: 101, folderId: 2, name: "Cart abandoners" },
      { sid: 102, folderId: 2, name: "Returning visitors" },
    ],
  },
  lists: [{ id: 1001, name: "Webinar guests", members: people.slice(0, 12).map(({ lead }) => lead) }],
  syncs: [{ audience_id: "aam:102", list: { name: "Returning visitors" } }],
  delivered: "101,102",
  at: Date.now() - 3 * 3_600_000,
};

const stack = await startStack({ org: ORG, munchkin: MUNCHKIN, people, world });
const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-background-networking"] });
try {
  for (const { ecid, token } of people.slice(0, MATCHED)) {
    await stack.call("POST", "/matches", { org_id: ORG, ecid, munchkin_id: MUNCHKIN, token });
  }
  const members = MATCHED - people.slice(0, MATCHED).filter(({ email }) => !email).length;
  await until("the first sync", async () => {
    const lists = await stack.lists();
    return lists.find(({ name }) => name === "Returning visitors")?.members.length >= members;
  }, 300_000);
  for (const [language, locale] of Object.entries(LANGUAGES)) {
    await mkdir(join(FOLDER, language), { recursive: true });
    const context = await browser.newContext({ viewport: SIZE, locale, reducedMotion: "reduce" });
    const page = await context.newPage();
    const shot = (name, more) => page.screenshot({ path: join(FOLDER, language, `${name}.png`), ...more });
    const whole = { fullPage: true };
    await page.goto(`${stack.url}/`);
    await page.locator("li.sync").first().waitFor();
    await shot("step-1");
    await page.locator(".make button").click();
    await shot("step-2");
    await page.locator("#new-items a").click();
    await page.locator("[data-folder='aam:2']").click();
    await shot("step-3");
    await page.locator("main button.main").click();
    await page.locator(".result").first().click();
    await shot("step-4");
    await page.locator("main button.main").click();
    await page.locator("main input[role=combobox]").fill(`Carts ${language}`);
    await page.locator("li[role=option]").last().click();
    await until("the preview", async () => /^\d/.test(await page.locator(".preview td").nth(6).innerText()));
    await shot("step-5", whole);
    await page.locator("main button.main").click();
    await page.locator("main a.main").waitFor();
    await shot("step-6");
    await page.locator("main a.main").click();
    await page.locator("[data-stage=members]").waitFor();
    // Its page once the first result is there.
    const id = page.url().split("/").pop();
    await until("the first report", async () => {
      const report = await fetch(`${stack.url}/syncs/${id}/report`).then((answer) => answer.json());
      if (report.waiting === 0 && report.people > 0 && report.in_list.ours === report.people) return true;
      await stack.call("POST", `/syncs/${id}/run`).catch(() => {});
      return false;
    }, 180_000);
    await page.reload();
    await page.locator("[data-stage=members]").waitFor();
    await until("a sync in step", async () => (await stack.call("GET", `/syncs/${id}`)).progress.step === "in_step", 180_000);
    await page.reload();
    await page.locator("[data-stage=members]").waitFor();
    await until("the page", () => page.evaluate(() => !document.querySelector("[aria-busy=true]")));
    await shot("sync", whole);
    const open = async (hash) => {
      await page.goto(`${stack.url}/#/${hash}`);
      await until("the page", () => page.evaluate(() => document.querySelector("main h1") && !document.querySelector("[aria-busy=true]")));
    };
    await open(`syncs/${id}/runs`);
    await page.locator("main tbody tr").first().waitFor();
    await shot("runs");
    await open(`syncs/${id}/compare`);
    await page.locator("main input[type=search]").fill(world.lists[0].name);
    await page.locator(".picks button").first().click();
    await page.locator(".outcome button.main").click();
    await page.locator("[data-count=both]").waitFor({ timeout: 120_000 });
    await shot("compare");
    for (const name of ["explain", "setup", "settings", "feeds", "audit"]) {
      await open(name);
      await shot(name);
    }
    await context.close();
  }
} finally {
  await browser.close();
  await stack.stop();
}
