// A page that is only what the tag touches, with a clock that stands still until it is told to go on.

import { readFileSync } from "node:fs";
import vm from "node:vm";

const TAG = new URL("../../functions/cookie-ingest/tag/tag.js", import.meta.url);
export const source = readFileSync(TAG, "utf8");

export const ORG = "0123456789ABCDEF01234567@AdobeOrg";
export const OTHER_ORG = "76543210FEDCBA9876543210@AdobeOrg";
export const MUNCHKIN = "123-ABC-456";
export const TOKEN = "_mch-example.com-1700000000000-12345";
export const ECID = "72523635356235877200189499512793502995";
export const OTHER_ECID = "09931076965856026570390653077113735069";
export const ENDPOINT = "https://collect.example.com/beacon";

export const SECOND = 1_000;
export const MINUTE = 60 * SECOND;
export const DAY = 1_440 * MINUTE;

export const mktoTrk = (token = TOKEN, munchkin = MUNCHKIN) => `_mkto_trk=id:${munchkin}&token:${token}`;
export const amcv = (ecid = ECID, org = ORG) =>
  `AMCV_${encodeURIComponent(org)}=${encodeURIComponent(`1176715910|MCIDTS|19824|MCMID|${ecid}|vVersion|5.4.0`)}`;
export const sEcid = (ecid = ECID) => `s_ecid=${encodeURIComponent(`MCMID|${ecid}`)}`;

/** A kndctr cookie as the Web SDK writes it: field 1 and a field 10 with times and a region. */
export function kndctr(ecid = ECID, org = ORG) {
  const inner = [0x08, 0x87, 0xa5, 0x85, 0xff, 0xce, 0x31, 0x10, 0x01, 0x2a, 0x03, 0x4f, 0x52, 0x32];
  const message = Buffer.from([0x0a, ecid.length, ...Buffer.from(ecid), 0x52, inner.length, ...inner, 0xa0, 0x01, 0x00]);
  return `${kndctrName(org)}=${encodeURIComponent(message.toString("base64url"))}`;
}
export const kndctrName = (org = ORG) => `kndctr_${org.replace("@", "_")}_identity`;

/** One page view. What is left out is as in an ordinary page without any cookie. */
export class World {
  constructor({
    cookies = [],
    settings = {},
    storage = {},
    now = 1_790_000_000_000,
    host = "www.example.com",
    hidden = false,
    beacon = () => true,
    fetch = () => Promise.resolve(),
    window = {},
    navigator = {},
    blocked = false,
    script = {},
  } = {}) {
    this.cookies = cookies;
    this.storage = storage;
    this.now = now;
    this.sent = [];
    /** How often the page's cookies were read. */
    this.looks = 0;
    this.storageUsed = 0;
    this.timers = new Map();
    this.lastTimer = 0;
    this.listeners = [];
    const world = this;
    const current = {
      src: "https://collect.example.com/tag.js",
      dataset: { org: ORG, munchkin: MUNCHKIN, ...settings },
      ...script,
    };
    for (const [name, value] of Object.entries(current.dataset)) if (value === undefined) delete current.dataset[name];
    this.document = {
      currentScript: script === null ? null : current,
      hidden,
      get cookie() {
        world.looks++;
        return world.cookies.join("; ");
      },
      addEventListener: (kind, listener) => this.listeners.push([kind, listener]),
    };
    const local = new Proxy(storage, {
      get: (target, name) => (this.storageUsed++, target[name]),
      set: (target, name, value) => (this.storageUsed++, (target[name] = value), true),
    });
    const parts = {
      document: this.document,
      location: { hostname: host, href: `https://${host}/` },
      navigator: {
        sendBeacon:
          beacon &&
          ((url, body) => {
            const queued = beacon();
            if (queued) this.sent.push({ how: "beacon", url, body: JSON.parse(body) });
            return queued;
          }),
        ...navigator,
      },
      fetch:
        fetch &&
        ((url, options) => {
          this.sent.push({ how: "fetch", url, body: JSON.parse(options.body), options });
          return fetch();
        }),
      setTimeout: (call, after) => {
        this.timers.set(++this.lastTimer, { call, at: this.now + after });
        return this.lastTimer;
      },
      clearTimeout: (id) => this.timers.delete(id),
      URL,
      atob,
      ...window,
    };
    this.context = vm.createContext(parts);
    this.context.window = this.context;
    Object.defineProperty(this.context, "localStorage", {
      get() {
        if (blocked) throw new Error("access is denied");
        return local;
      },
    });
    vm.runInContext("Date", this.context).now = () => this.now;
    this.before = new Set(Object.keys(this.context));
    this.load();
  }

  /** Loads the tag; a second time, as a page does that names it twice. */
  load() {
    vm.runInContext(source, this.context);
  }

  /** Lets time go by, timer by timer, with everything that waits for a promise. */
  async run(ms = 0) {
    const end = this.now + ms;
    for (;;) {
      await new Promise(setImmediate);
      const [next] = [...this.timers].sort((a, b) => a[1].at - b[1].at);
      if (!next || next[1].at > end) break;
      this.timers.delete(next[0]);
      this.now = Math.max(this.now, next[1].at);
      next[1].call();
    }
    this.now = end;
  }

  /** The tab is hidden or shown again. */
  show(shown) {
    this.document.hidden = !shown;
    for (const [kind, listener] of this.listeners) if (kind === "visibilitychange") listener();
  }

  /** Pairs of ECID and token that were sent, in order. */
  get pairs() {
    return this.sent.map(({ body }) => [body.ecid, body.token]);
  }

  /** Names of globals that were not there before. */
  get globals() {
    return Object.keys(this.context).filter((name) => !this.before.has(name));
  }

  /** Whether a timer runs. */
  get watching() {
    return this.timers.size > 0;
  }
}

/** The folders of a small library. */
export const FOLDERS = [
  { folderId: 1, parentFolderId: 0, name: "Retail" },
  { folderId: 2, parentFolderId: 1, name: "Shoes" },
  { folderId: 3, parentFolderId: 0, name: "Services" },
];
