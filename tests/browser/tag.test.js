// The tag in a faked page: every cookie it reads, everything that keeps it silent, and what it remembers.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import vm from "node:vm";
import { gzipSync } from "node:zlib";
import ts from "typescript";

import {
  amcv, DAY, ECID, ENDPOINT, kndctr, kndctrName, MINUTE, mktoTrk, MUNCHKIN, ORG, OTHER_ECID, OTHER_ORG, SECOND, sEcid,
  source, TOKEN, World,
} from "./world.js";

/** What a page with these cookies has sent after a while. */
async function pairs(cookies, more = {}) {
  const world = new World({ cookies, ...more });
  await world.run(MINUTE);
  return world.pairs;
}
/** The ECID that the tag reads from these cookies, beside a token. */
const ecid = async (...cookies) => (await pairs([...cookies, mktoTrk()]))[0]?.[0];
/** The token that it reads, beside an ECID. */
const token = async (...cookies) => (await pairs([kndctr(), ...cookies]))[0]?.[1];

const field1 = (text) => [0x0a, text.length, ...Buffer.from(text)];
const message = (...bytes) => `${kndctrName()}=${Buffer.from(bytes.flat()).toString("base64url")}`;

test("is at most 3,072 bytes gzipped", () => {
  assert.ok(gzipSync(source, { level: 9 }).length <= 3_072);
});

test("passes the strict type check", () => {
  const tsc = createRequire(import.meta.url).resolve("typescript/bin/tsc");
  execFileSync(process.execPath, [tsc, "--project", fileURLToPath(new URL(".", import.meta.url))]);
});

test("has no syntax that came after 2017", () => {
  const emit = (target) =>
    ts.transpileModule(source, { compilerOptions: { target, module: ts.ModuleKind.ESNext, moduleDetection: "legacy" } })
      .outputText;
  assert.equal(emit(ts.ScriptTarget.ES2017), emit(ts.ScriptTarget.ESNext));
});

test("uses nothing that a strict Content-Security-Policy forbids, and does not write to the console", () => {
  assert.doesNotMatch(source, /eval|new Function|innerHTML|document\.write|createElement|console/);
});

test("sends one beacon with the pair, and leaves one global", async () => {
  const world = new World({ cookies: [kndctr(), mktoTrk()] });
  await world.run(DAY);
  const body = { org_id: ORG, ecid: ECID, munchkin_id: MUNCHKIN, token: TOKEN };
  assert.deepEqual(world.sent, [{ how: "beacon", url: ENDPOINT, body }]);
  assert.deepEqual(world.globals, ["audience_sync"]);
});

test("says nothing as long as one half is missing", async () => {
  assert.deepEqual(await pairs([]), []);
  assert.deepEqual(await pairs([kndctr(), amcv(), sEcid()]), []);
  assert.deepEqual(await pairs([mktoTrk()]), []);
});

test("does nothing without a right organisation and Munchkin id, or outside a script element", async () => {
  const cookies = [kndctr(), mktoTrk()];
  for (const settings of [
    { org: undefined },
    { org: ORG.slice(1) },
    { org: ORG.replace("@AdobeOrg", "") },
    { munchkin: undefined },
    { munchkin: "123-abc-456" },
    { munchkin: "123-ABC-4567" },
    { endpoint: "http://[" },
  ]) {
    const world = new World({ cookies, settings });
    await world.run(DAY);
    assert.deepEqual([world.sent, world.looks, world.watching, world.globals], [[], 0, false, []], JSON.stringify(settings));
  }
  const world = new World({ cookies, script: null });
  await world.run(DAY);
  assert.deepEqual([world.sent, world.looks, world.globals], [[], 0, []]);
});

test("sends to /beacon of the script's own host, or where it is told to", async () => {
  for (const [more, expected] of [
    [{}, ENDPOINT],
    [{ script: { src: "http://collect.example.test:8787/tag/0f3a.js" } }, "http://collect.example.test:8787/beacon"],
    [{ settings: { endpoint: "https://edge.example.com/a/b" } }, "https://edge.example.com/a/b"],
    [{ script: { src: "" } }, "https://www.example.com/beacon"],
  ]) {
    const world = new World({ cookies: [kndctr(), mktoTrk()], ...more });
    assert.deepEqual(world.sent.map(({ url }) => url), [expected]);
  }
});

test("reads Adobe's own kndctr cookies", async () => {
  for (const [value, expected] of [
    [
      "CiYxNDAxNTI0NjEzODM4MjI2ODk1MTgwNTkyMTYxNjkxNTc0MzEyOFISCIelhf%5FOMRABGAEqA09SMjAA8AHX%5F4DZlzI%3D",
      "14015246138382268951805921616915743128",
    ],
    [
      "CiY4MDA2MDcwMjc3Nzk4MDc1NjMxMzI5Mjg1NTQ1NDE0OTUxMzIxN1IQCJS1kPGzMRgBKgNPUjIwAaAB0NOe3o0ysAG8swHwAcjTnt6NMg",
      "80060702777980756313292855454149513217",
    ],
    [
      "CiY0NDQ0MjAwMTI2MDA4NzQwNTQ5MTUxNDc5MzAzNTA2NTIxNDI4OFISCMjEz4O5MRABGAEqA09SMjAA8AHj2ouV1DE",
      "44442001260087405491514793035065214288",
    ],
  ])
    assert.equal(await ecid(`${kndctrName()}=${value}`), expected);
});

test("reads kndctr in both alphabets, padded or not, encoded or not", async () => {
  // Field 2 holds bytes that the two alphabets write differently.
  const bytes = Buffer.from([...field1(ECID), 0x12, 6, 0xfb, 0xef, 0xbe, 0xff, 0xff, 0xff]);
  const forms = [bytes.toString("base64"), bytes.toString("base64").replace(/=/g, ""), bytes.toString("base64url")];
  for (const form of forms) {
    assert.equal(await ecid(`${kndctrName()}=${form}`), ECID);
    assert.equal(await ecid(`${kndctrName()}=${encodeURIComponent(form)}`), ECID);
  }
});

test("walks over every kind of field of kndctr, and takes the last field 1", async () => {
  const others = [
    [0xf0, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    [0x11, 1, 2, 3, 4, 5, 6, 7, 8],
    // An ECID inside another field is none.
    [0x52, 40, ...field1(OTHER_ECID)],
    [0x2d, 1, 2, 3, 4],
  ].flat();
  assert.equal(await ecid(message(others, field1("1".repeat(38)), others, field1(ECID), others)), ECID);
  assert.equal(await ecid(message(others)), undefined);
});

test("takes no ECID from a kndctr cookie that is cut or wrong", async () => {
  const good = field1(ECID);
  for (let length = 0; length < good.length; length++) {
    assert.equal(await ecid(message(good.slice(0, length))), undefined, `${length}`);
  }
  for (const after of [
    [0x10],
    [0x80],
    [0x10, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
    [0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    [0x02, 0x00],
    [0x08, 0x01],
    [0x09, 1, 2, 3, 4, 5, 6, 7, 8],
    [0x0d, 1, 2, 3, 4],
    [0x13, 0x14],
    [0x16],
    field1(ECID.slice(1)),
    field1("a".repeat(38)),
    field1(`${ECID}0`),
    field1(""),
  ])
    assert.equal(await ecid(message(good, after)), undefined, `${after}`);
  for (const value of ["", "=", "!", "%", "%zz", "Ci%59", "CiY", "a", "A".repeat(10_000)]) {
    assert.equal(await ecid(`${kndctrName()}=${value}`), undefined, value.slice(0, 9));
  }
});

test("reads AMCV, raw and encoded, in its long and its short form", async () => {
  const long =
    `1176715910|MCIDTS|19824|MCMID|${ECID}|MCAAMLH-1713367306|11|MCAAMB-1713367306|a_b-c|MCCIDH|857883598|` +
    "MCOPTOUT-1712769706s|NONE|vVersion|5.4.0";
  for (const value of [long, `MCMID|${ECID}`])
    for (const name of [`AMCV_${ORG}`, `AMCV_${ORG.replace("@", "%40")}`])
      for (const form of [value, encodeURIComponent(value), value.replace(/\|/g, "%7c")]) {
        assert.equal(await ecid(`${name}=${form}`), ECID, `${name}=${form}`);
      }
  assert.equal(await ecid(`AMCV_${ORG}=MCMID|${ECID.slice(1)}|MCMID|${ECID}`), ECID);
});

test("takes no ECID from an AMCV or s_ecid cookie that holds none", async () => {
  const short = ECID.slice(1);
  for (const value of [
    "", "MCMID", "MCMID|", "1", `MCMID|${short}`, `MCMID|${ECID}0`, `MCMID|-${short}`, `mcmid|${ECID}`,
    `MCMID-1|${ECID}`, `XMCMID|${ECID}`, `MCMID=${ECID}`, `MCMID%257C${ECID}`, ECID,
  ]) {
    assert.equal(await ecid(`AMCV_${ORG}=${value}`), undefined, value);
    assert.equal(await ecid(`s_ecid=${value}`), undefined, value);
  }
  assert.equal(await ecid(`AMCVS_${ORG}=MCMID|${ECID}`), undefined);
});

test("prefers kndctr to AMCV and AMCV to s_ecid, wherever they stand", async () => {
  assert.equal(await ecid(sEcid(), amcv(), kndctr(OTHER_ECID)), OTHER_ECID);
  assert.equal(await ecid(sEcid(), amcv(OTHER_ECID)), OTHER_ECID);
  assert.equal(await ecid(sEcid(OTHER_ECID)), OTHER_ECID);
  assert.equal(await ecid(sEcid(), amcv(OTHER_ECID), `${kndctrName()}=broken`), OTHER_ECID);
});

test("reads the configured organisation's cookies and nobody else's", async () => {
  assert.equal(await ecid(kndctr(ECID, OTHER_ORG)), undefined);
  assert.equal(await ecid(amcv(ECID, OTHER_ORG)), undefined);
  assert.equal(await ecid(kndctr(ECID, OTHER_ORG), amcv(OTHER_ECID)), OTHER_ECID);
  // s_ecid does not say whose it is: not beside another organisation's cookie alone.
  assert.equal(await ecid(amcv(ECID, OTHER_ORG), sEcid()), undefined);
  assert.equal(await ecid(kndctr(ECID, OTHER_ORG), sEcid()), undefined);
  assert.equal(await ecid(amcv(ECID, OTHER_ORG), `AMCV_${ORG}=0`, sEcid(OTHER_ECID)), OTHER_ECID);
});

test("reads the Munchkin cookie, raw and encoded, with both kinds of token", async () => {
  const hex = "_mch-example.com-0123456789abcdef0123456789abcdef";
  for (const text of [TOKEN, "_mch-my-shop.example.com-1700000000000-1", hex, hex.slice(0, -1)]) {
    assert.equal(await token(mktoTrk(text)), text);
    assert.equal(await token(`_mkto_trk=id%3A${MUNCHKIN}%26token%3A${text}`), text);
  }
});

test("takes no token from anything else", async () => {
  for (const value of [
    "", "id:123-ABC-456", "id:123-ABC-456&token:", "id:123-ABC-456&token:abc", `id:123-abc-456&token:${TOKEN}`,
    "id:123-ABC-456&token:_mch-example.com-170000000000-12345",
    "id:123-ABC-456&token:_mch-example.com-1700000000000-123456",
    "id:123-ABC-456&token:_mch--1700000000000-12345", "id%3A123-ABC-456%26token%3",
    "id:123-ABC-456&token:_mch-exa,mple.com-1700000000000-12345",
  ])
    assert.equal(await token(`_mkto_trk=${value}`), undefined, value);
});

test("of several Munchkin cookies takes the one of the configured Munchkin id", async () => {
  const other = "_mch-example.com-1600000000000-1";
  assert.equal(await token(mktoTrk(other, "999-ZZZ-999")), undefined);
  assert.equal(await token(mktoTrk(other, "999-ZZZ-999"), mktoTrk(), mktoTrk(other, "888-YYY-888")), TOKEN);
});

test("is not misled by what stands inside other cookies", async () => {
  assert.equal(await token("x=%3B_mkto_trk=id:123-ABC-456&token:_mch-example.com-1600000000000-1", mktoTrk()), TOKEN);
  assert.deepEqual(await pairs(["x=mkto_opt_out=true", "y=%3B mkto_opt_out=true", kndctr(), mktoTrk()]), [[ECID, TOKEN]]);
});

test("is silent after an opt-out", async () => {
  for (const out of [
    "mkto_opt_out=true",
    "demdex=NOTARGET",
    `AMCV_${ORG}=MCOPTOUT|global`,
    `AMCV_${ORG}=${encodeURIComponent(`MCMID|${ECID}|MCOPTOUT-1712769706s|global|vVersion|5.4.0`)}`,
    `AMCV_${ORG}=MCOPTOUT-1712769706%7Cisolated`,
    `AMCV_${ORG}=MCOPTOUT|`,
    `AMCV_${ORG}=MCOPTOUT|none`,
    `AMCV_${ORG}=MCOPTOUT|NONE|MCOPTOUT|global`,
    `AMCV_${ORG}=MCAAMB%7C%zz%ff%%7CMCOPTOUT%7Cglobal%7C%`,
  ]) {
    const world = new World({ cookies: [kndctr(), mktoTrk(), out] });
    await world.run(DAY);
    assert.deepEqual([world.sent, world.storageUsed], [[], 0], out);
    // It is looked at before each send.
    world.cookies.pop();
    await world.run(MINUTE);
    assert.deepEqual(world.pairs, [[ECID, TOKEN]], out);
  }
});

test("is not silent without an opt-out", async () => {
  for (const none of [
    "mkto_opt_out=false",
    "demdex=12345678901234567890123456789012345678",
    `AMCV_${ORG}=MCOPTOUT-1712769706s|NONE`,
    `AMCV_${ORG}=MCOPTOUT|NONE|vVersion|1`,
    `AMCV_${ORG}=XMCOPTOUT|global`,
    `AMCV_${ORG}=MCOPTOUT`,
    `AMCV_${OTHER_ORG}=MCOPTOUT|global`,
  ])
    assert.deepEqual(await pairs([kndctr(), mktoTrk(), none]), [[ECID, TOKEN]], none);
});

test("honours Global Privacy Control where it is told to", async () => {
  const cookies = [kndctr(), mktoTrk()];
  const signal = { globalPrivacyControl: true };
  let asked = 0;
  const window = { consent: () => asked++ };
  for (const settings of [{ gpc: "honour" }, { gpc: "honour", consent: "consent" }]) {
    const world = new World({ cookies, navigator: signal, settings, window });
    world.show(true);
    await world.run(DAY);
    assert.deepEqual([world.sent, world.looks, world.storageUsed, asked], [[], 0, 0, 0]);
  }
  assert.deepEqual(await pairs(cookies, { navigator: signal }), [[ECID, TOKEN]]);
  assert.deepEqual(await pairs(cookies, { settings: { gpc: "honour" } }), [[ECID, TOKEN]]);
});

test("without consent reads, asks, stores and sends nothing", async () => {
  let answer;
  const window = { consent: (call) => (answer = call), alloy: () => assert.fail("asked"), s_c_il: [visitor()] };
  function visitor() {
    return { _c: "Visitor", marketingCloudOrgID: ORG, getMarketingCloudVisitorID: () => assert.fail("asked") };
  }
  const world = new World({ cookies: [mktoTrk()], settings: { consent: "consent" }, window });
  const nothing = () => assert.deepEqual([world.sent, world.looks, world.storageUsed], [[], 0, 0]);
  await world.run(DAY);
  nothing();
  // Only true is a yes.
  for (const no of [false, undefined, null, 1, "true", {}]) {
    answer(no);
    world.show(false);
    world.show(true);
    await world.run(DAY);
    nothing();
  }
  assert.equal(world.watching, false);
  world.cookies.push(kndctr());
  answer(true);
  assert.deepEqual(world.pairs, [[ECID, TOKEN]]);
  // Taken back, and given again.
  answer(false);
  const looks = world.looks;
  world.cookies = [kndctr(OTHER_ECID), mktoTrk()];
  await world.run(DAY);
  assert.deepEqual([world.sent.length, world.looks], [1, looks]);
  answer(true);
  assert.deepEqual(world.pairs, [[ECID, TOKEN], [OTHER_ECID, TOKEN]]);
});

test("waits for a consent function that is not there yet", async () => {
  const world = new World({ cookies: [kndctr(), mktoTrk()], settings: { consent: "consent" } });
  await world.run(5 * MINUTE);
  assert.deepEqual([world.sent, world.looks], [[], 0]);
  let asked = 0;
  world.context.consent = (answer) => (asked++, answer(true));
  await world.run(5 * SECOND);
  assert.deepEqual([world.pairs, asked], [[[ECID, TOKEN]], 1]);
});

test("takes an empty or a failing consent function for a no", async () => {
  const fails = () => {
    throw new Error("not today");
  };
  for (const more of [{ settings: { consent: "" } }, { settings: { consent: "f" }, window: { f: fails } }]) {
    const world = new World({ cookies: [kndctr(), mktoTrk()], ...more });
    await world.run(DAY);
    assert.deepEqual([world.sent, world.looks], [[], 0]);
  }
});

test("neither asks the Web SDK nor passes on its answer when consent was taken back meanwhile", async () => {
  for (const takenBackAt of ["getLibraryInfo", "getIdentity"]) {
    let answer;
    const asked = [];
    const window = {
      consent: (call) => (answer = call),
      alloy: (name) => {
        asked.push(name);
        if (name === takenBackAt) answer(false);
        return Promise.resolve({ libraryInfo: { configs: { orgId: ORG } }, identity: { ECID } });
      },
    };
    const world = new World({ cookies: [mktoTrk()], settings: { consent: "consent" }, window });
    answer(true);
    await world.run(MINUTE);
    assert.deepEqual(world.sent, []);
    assert.equal(asked.pop(), takenBackAt);
  }
});

test("waits for cookies: each second in the first minute, then each five, after ten minutes each thirty", async () => {
  const world = new World();
  await world.run(MINUTE - 1);
  assert.equal(world.looks, 60);
  await world.run(9 * MINUTE);
  assert.equal(world.looks, 60 + 108);
  await world.run(10 * MINUTE);
  assert.equal(world.looks, 60 + 108 + 20);
  world.cookies = [amcv(), mktoTrk()];
  await world.run(30 * SECOND);
  assert.deepEqual(world.pairs, [[ECID, TOKEN]]);
});

test("looks each five seconds once it has sent", async () => {
  const world = new World({ cookies: [kndctr(), mktoTrk()] });
  await world.run(50 * SECOND - 1);
  assert.equal(world.looks, 10);
});

test("sleeps while the tab is hidden, and looks when it is hidden and when it is shown", async () => {
  const world = new World({ hidden: true, cookies: [mktoTrk()] });
  await world.run(DAY);
  assert.equal(world.looks, 0);
  world.show(true);
  await world.run(3 * SECOND - 1);
  const looks = world.looks;
  assert.ok(looks > 0);
  // The last chance: the page may be left now.
  world.cookies.push(kndctr());
  world.show(false);
  assert.deepEqual(world.pairs, [[ECID, TOKEN]]);
  await world.run(DAY);
  assert.deepEqual([world.looks, world.watching], [looks + 1, false]);
});

test("is silent for 7 days on a pair that it has sent, and no longer", async () => {
  const storage = {};
  const view = { cookies: [kndctr(), mktoTrk()], storage };
  const now = 1_790_000_000_000;
  assert.equal((await pairs(view.cookies, { ...view, now })).length, 1);
  for (const later of [MINUTE, DAY, 7 * DAY - 2 * MINUTE]) {
    assert.deepEqual(await pairs(view.cookies, { ...view, now: now + later }), [], `${later}`);
  }
  assert.equal((await pairs(view.cookies, { ...view, now: now + 7 * DAY })).length, 1);
  // A clock that was set back does not make it silent for ever.
  assert.equal((await pairs(view.cookies, { ...view, now: now - 300 * DAY })).length, 1);
});

test("stores hashes and times and nothing else", async () => {
  const storage = {};
  await pairs([kndctr(), mktoTrk()], { storage, now: 1_790_000_000_000 });
  assert.deepEqual(Object.keys(storage), ["audience_sync"]);
  assert.match(storage.audience_sync, /^\[\["[0-9a-z]{8,11}",1790000000000\]\]$/);
});

test("sends again for a new ECID, token, host, endpoint, organisation or Munchkin id", async () => {
  const storage = {};
  const count = async (cookies, more = {}) => (await pairs(cookies, { storage, ...more })).length;
  const cookies = [kndctr(), mktoTrk()];
  assert.equal(await count(cookies), 1);
  for (const [changed, more] of [
    [[kndctr(OTHER_ECID), mktoTrk()], {}],
    [[kndctr(), mktoTrk("_mch-example.com-1700000000000-12346")], {}],
    [cookies, { host: "shop.example.com" }],
    [cookies, { settings: { endpoint: "https://edge.example.com/beacon" } }],
    [[kndctr(ECID, OTHER_ORG), mktoTrk()], { settings: { org: OTHER_ORG } }],
    [[kndctr(), mktoTrk(TOKEN, "999-ZZZ-999")], { settings: { munchkin: "999-ZZZ-999" } }],
  ]) {
    assert.equal(await count(changed, more), 1, JSON.stringify([changed, more]));
    assert.equal(await count(changed, more), 0, JSON.stringify([changed, more]));
  }
  assert.equal(await count(cookies), 0);
});

test("sees a new ECID and a new token in the same page", async () => {
  const world = new World({ cookies: [kndctr(), mktoTrk()] });
  await world.run(MINUTE);
  world.cookies = [kndctr(OTHER_ECID), mktoTrk()];
  await world.run(5 * SECOND);
  const other = "_mch-example.com-1700000000000-12346";
  world.cookies = [kndctr(OTHER_ECID), mktoTrk(other)];
  await world.run(5 * SECOND);
  world.cookies = [kndctr(), mktoTrk()];
  await world.run(MINUTE);
  assert.deepEqual(world.pairs, [[ECID, TOKEN], [OTHER_ECID, TOKEN], [OTHER_ECID, other]]);
});

test("keeps at most ten hashes", async () => {
  const storage = {};
  for (let n = 0; n < 15; n++) await pairs([kndctr(), mktoTrk(`_mch-example.com-1700000000000-${n}`)], { storage });
  assert.equal(JSON.parse(storage.audience_sync).length, 10);
  assert.deepEqual(await pairs([kndctr(), mktoTrk("_mch-example.com-1700000000000-14")], { storage }), []);
});

test("overwrites what is not its own memory", async () => {
  for (const text of ["", "{", "null", "{}", "7", '"x"', "[1]", "[null]", '[["x","y"]]', '[["x",null]]']) {
    const storage = { audience_sync: text };
    assert.equal((await pairs([kndctr(), mktoTrk()], { storage })).length, 1, text);
    assert.deepEqual(await pairs([kndctr(), mktoTrk()], { storage }), [], text);
  }
});

test("sends once a page view where storage is blocked or full", async () => {
  const full = Object.freeze({});
  for (const more of [{ blocked: true }, { storage: full }]) {
    const world = new World({ cookies: [kndctr(), mktoTrk()], ...more });
    await world.run(2 * DAY);
    assert.equal(world.sent.length, 1);
    world.load();
    await world.run(DAY);
    assert.equal(world.sent.length, 1);
  }
});

test("sends at most one more from a second tab that was opened at the same moment", async () => {
  const storage = {};
  const tabs = [1, 2, 3].map(() => new World({ cookies: [], storage }));
  for (const tab of tabs) tab.cookies = [kndctr(), mktoTrk()];
  await Promise.all(tabs.map((tab) => tab.run(MINUTE)));
  assert.ok(tabs.map((tab) => tab.sent.length).reduce((a, b) => a + b) <= 2);
});

test("runs once in a page that loads it twice", async () => {
  const world = new World();
  world.load();
  await world.run(10 * SECOND - 1);
  assert.equal(world.looks, 10);
});

test("falls back to fetch where sendBeacon is missing, says no or throws", async () => {
  const fails = () => {
    throw new Error("blocked");
  };
  for (const beacon of [null, () => false, fails]) {
    const world = new World({ cookies: [kndctr(), mktoTrk()], beacon });
    await world.run(DAY);
    assert.equal(world.sent.length, 1);
    const [{ how, url, body, options }] = world.sent;
    assert.deepEqual([how, url, body.ecid], ["fetch", ENDPOINT, ECID]);
    delete options.body;
    assert.deepEqual({ ...options, headers: { ...options.headers } }, {
      method: "POST", keepalive: true, credentials: "include", mode: "no-cors", headers: { "content-type": "text/plain" },
    });
  }
});

test("does not try a request again that the network refused", async () => {
  const fetch = () => Promise.reject(new Error("offline"));
  const world = new World({ cookies: [kndctr(), mktoTrk()], beacon: null, fetch });
  await world.run(DAY);
  assert.equal(world.sent.length, 1);
});

test("remembers nothing as long as nothing could be queued", async () => {
  const storage = {};
  const world = new World({ cookies: [kndctr(), mktoTrk()], beacon: () => false, fetch: null, storage });
  await world.run(MINUTE);
  assert.deepEqual([world.sent, storage], [[], {}]);
  world.context.navigator.sendBeacon = (url, body) => world.sent.push({ url, body: JSON.parse(body) }) > 0;
  await world.run(MINUTE);
  assert.deepEqual(world.pairs, [[ECID, TOKEN]]);
});

/** A Web SDK. `identity` answers getIdentity; it counts how often. */
function webSdk({ orgId = ORG, identity = () => Promise.resolve({ identity: { ECID } }) } = {}) {
  const alloy = (name, options) => {
    if (name === "getLibraryInfo") {
      return Promise.resolve({ libraryInfo: { version: "2.20.0", ...(orgId && { configs: { orgId } }) } });
    }
    assert.equal(name, "getIdentity");
    assert.equal(JSON.stringify(options), '{"namespaces":["ECID"]}');
    alloy.calls++;
    return identity();
  };
  alloy.calls = 0;
  return alloy;
}

test("asks the Web SDK where a token is there and no cookie shows an ECID", async () => {
  const alloy = webSdk();
  const world = new World({ cookies: [mktoTrk()], window: { alloy } });
  // The page's own first event goes before ours.
  await world.run(SECOND);
  assert.equal(alloy.calls, 0);
  await world.run(DAY);
  assert.deepEqual([world.pairs, alloy.calls], [[[ECID, TOKEN]], 1]);

  for (const cookies of [[], [kndctr(), mktoTrk()]]) {
    const unasked = webSdk();
    await pairs(cookies, { window: { alloy: unasked } });
    assert.equal(unasked.calls, 0);
  }
});

test("asks a Web SDK that comes late", async () => {
  const world = new World({ cookies: [mktoTrk()] });
  await world.run(2 * MINUTE);
  world.context.alloy = webSdk();
  await world.run(5 * SECOND);
  assert.deepEqual(world.pairs, [[ECID, TOKEN]]);
});

test("asks a Web SDK again that refused, at most twice a minute", async () => {
  let ready = false;
  const identity = () => (ready ? Promise.resolve({ identity: { ECID } }) : Promise.reject(new Error("no consent")));
  const alloy = webSdk({ identity });
  const world = new World({ cookies: [mktoTrk()], window: { alloy } });
  await world.run(5 * MINUTE);
  assert.deepEqual([world.sent, alloy.calls], [[], 10]);
  ready = true;
  await world.run(MINUTE);
  assert.deepEqual([world.pairs, alloy.calls], [[[ECID, TOKEN]], 11]);
});

test("survives a Web SDK that answers strangely", async () => {
  for (const alloy of [
    () => undefined,
    () => {
      throw new Error("broken");
    },
    webSdk({ identity: () => Promise.resolve({}) }),
    webSdk({ identity: () => Promise.resolve({ identity: { ECID: "abc" } }) }),
    "not a function",
  ]) {
    const world = new World({ cookies: [mktoTrk()], window: { alloy } });
    await world.run(2 * MINUTE);
    assert.deepEqual(world.sent, []);
    world.cookies.push(amcv());
    await world.run(5 * SECOND);
    assert.deepEqual(world.pairs, [[ECID, TOKEN]]);
  }
});

test("waits for a Web SDK that has not answered, and does not ask it twice", async () => {
  let tell;
  const alloy = webSdk({ identity: () => new Promise((resolve) => (tell = resolve)) });
  const world = new World({ cookies: [mktoTrk()], window: { alloy } });
  await world.run(DAY);
  assert.deepEqual([world.sent, alloy.calls], [[], 1]);
  tell({ identity: { ECID } });
  await world.run();
  assert.deepEqual(world.pairs, [[ECID, TOKEN]]);
});

test("does not ask a Web SDK of another organisation", async () => {
  const other = webSdk({ orgId: OTHER_ORG });
  assert.deepEqual(await pairs([mktoTrk()], { window: { alloy: other } }), []);
  assert.equal(other.calls, 0);
  // An old one does not say whose it is: another organisation's cookie alone is a no.
  const old = webSdk({ orgId: null });
  assert.deepEqual(await pairs([mktoTrk(), kndctr(OTHER_ECID, OTHER_ORG)], { window: { alloy: old } }), []);
  assert.equal(old.calls, 0);
  assert.deepEqual(await pairs([mktoTrk()], { window: { alloy: webSdk({ orgId: null }) } }), [[ECID, TOKEN]]);
});

/** An instance of visitor.js in its list. */
function visitor(more = {}) {
  const instance = {
    _c: "Visitor",
    marketingCloudOrgID: ORG,
    calls: 0,
    getMarketingCloudVisitorID(call) {
      this.calls++;
      this.call = call;
      return "";
    },
    ...more,
  };
  return instance;
}

test("asks visitor.js, and hears it when it answers at once and when it answers later", async () => {
  const atOnce = visitor({ getMarketingCloudVisitorID: () => ECID });
  assert.deepEqual(await pairs([mktoTrk()], { window: { s_c_il: [{ _c: "s_c" }, null, atOnce] } }), [[ECID, TOKEN]]);

  const calledBack = visitor({ getMarketingCloudVisitorID: (call) => (call(ECID), ECID) });
  assert.deepEqual(await pairs([mktoTrk()], { window: { s_c_il: [calledBack] } }), [[ECID, TOKEN]]);

  const slow = visitor();
  const world = new World({ cookies: [mktoTrk()], window: { s_c_il: [] } });
  await world.run(MINUTE);
  world.context.s_c_il.push(slow);
  await world.run(MINUTE);
  assert.deepEqual([world.sent, slow.calls], [[], 1]);
  slow.call(ECID);
  assert.deepEqual(world.pairs, [[ECID, TOKEN]]);
});

test("makes no instance of visitor.js and asks none of another organisation", async () => {
  const Visitor = { getInstance: () => assert.fail("it makes one where there is none") };
  const other = visitor({ marketingCloudOrgID: OTHER_ORG });
  const strange = visitor({ getMarketingCloudVisitorID: () => "abc" });
  const analytics = visitor({ _c: "s_c" });
  for (const one of [other, strange, analytics]) {
    assert.deepEqual(await pairs([mktoTrk()], { window: { Visitor, s_c_il: [one] } }), []);
  }
  assert.deepEqual([other.calls, analytics.calls], [0, 0]);
});

test("a cookie that comes later is believed before what a library said", async () => {
  const world = new World({ cookies: [mktoTrk()], window: { alloy: webSdk() } });
  await world.run(MINUTE);
  world.cookies.push(kndctr(OTHER_ECID));
  await world.run(5 * SECOND);
  assert.deepEqual(world.pairs, [[ECID, TOKEN], [OTHER_ECID, TOKEN]]);
});

test("throws nothing into a page that lets it do nothing", async () => {
  const fails = () => {
    throw new Error("denied");
  };
  const world = new World({ cookies: [kndctr(), mktoTrk()], beacon: fails, fetch: fails, blocked: true });
  Object.defineProperty(world.document, "cookie", { get: fails });
  await world.run(DAY);
  world.show(false);
  assert.deepEqual(world.sent.filter(({ how }) => how === "beacon"), []);
  new World({ window: { URL: undefined } });
  new World({ window: { audience_sync: "a string" } });
});

const readme = readFileSync(new URL("../../functions/cookie-ingest/tag/README.md", import.meta.url), "utf8");

test("its document describes each setting, and no other", () => {
  const described = [...readme.matchAll(/^\| `data-(\w+)` \|/gm)].map(([, name]) => name);
  const [, names] = /const \{ (.*) \} = script\.dataset/.exec(source);
  const read = new Set([...names.split(", "), ...[...source.matchAll(/script\.dataset\.(\w+)/g)].map(([, name]) => name)]);
  assert.deepEqual(described.sort(), [...read].sort());
});

test("the edge function in its document keeps the cookies that the server reads, and no other", () => {
  const [code] = /^function handler[^]*?^\}/m.exec(readme);
  const ours = ["_mkto_trk", "mkto_opt_out", "demdex", "s_ecid", `AMCV_${ORG.replace("@", "%40")}`, kndctrName()];
  const others = ["_ga", "x_mkto_trk", "AMCVS_x", "kndctr_x_AdobeOrg_cluster", "session"];
  const request = { cookies: Object.fromEntries([...ours, ...others].map((name) => [name, { value: "x" }])) };
  const answer = vm.runInNewContext(`${code}; handler(event)`, { event: { request } });
  assert.deepEqual(Object.keys(answer.cookies).sort(), ours.sort());
});
