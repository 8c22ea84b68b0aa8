// audience-sync: tells our endpoint which ECID sits beside which Munchkin token. See README.md.
(function () {
  "use strict";

  const KEY = "audience_sync";
  const WEEK = 6048e5;

  /** @type {any} */
  const page = window;
  /** @type {any} */
  const script = document.currentScript || { dataset: {} };
  const { org, munchkin, consent, gpc } = script.dataset;
  let endpoint = "";

  // With the attribute, even an empty one, nothing is done before the answer.
  let asked = consent === undefined;
  let allowed = asked;
  // The page's libraries are asked where the cookies show no ECID.
  let told = "";
  let missing = 0;
  let alloyFrom = 0;
  let visitorAsked = false;
  let began = Date.now();
  let timer = 0;

  /** Field 1 of a protobuf message; the others are walked over. @param {string} value */
  function kndctr(value) {
    const bytes = atob(value.replace(/-/g, "+").replace(/_/g, "/"));
    let at = 0;
    let ecid = "";
    const varint = () => {
      for (let sum = 0, factor = 1; factor < 1e20; factor *= 128) {
        const byte = bytes.charCodeAt(at++);
        sum += (byte % 128) * factor;
        if (byte < 128) return sum;
      }
      throw 0;
    };
    while (at < bytes.length) {
      const key = varint();
      const wire = key % 8;
      const size = wire === 1 ? 8 : wire === 5 ? 4 : wire === 2 || !wire ? varint() : NaN;
      const end = wire ? at + size : at;
      // Cut, field 0, or field 1 of another type.
      if (!(end <= bytes.length && key > 9 && key !== 13)) throw 0;
      if (key === 10) ecid = bytes.slice(at, end);
      at = end;
    }
    return ecid;
  }

  /** 53 bits: they tell pairs apart, and lead nobody back to one. @param {string} text */
  function hash(text) {
    let a = 0;
    let b = 1;
    for (let i = 0; i < text.length; i++) {
      a = Math.imul(a ^ text.charCodeAt(i), 0x01000193);
      b = Math.imul(b ^ text.charCodeAt(i), 0x85ebca77);
      a ^= b >>> 13;
      b ^= a >>> 15;
    }
    return ((a >>> 0) * 0x200000 + (b >>> 11)).toString(36);
  }

  /** @param {string} ecid @param {string} token */
  function send(ecid, token) {
    const now = Date.now();
    // From here on we look less often.
    began = Math.min(began, now - 6e4);
    const pair = hash([org, ecid, munchkin, token, location.hostname, endpoint].join());
    /** @type {[string, number][]} */
    let sent = [];
    try {
      /** @type {typeof sent} */
      const all = JSON.parse(localStorage[KEY]);
      sent = all.filter((one) => one[1] <= now && now - one[1] < WEEK);
    } catch (_) {}
    if (page[KEY][pair] || sent.some((one) => one[0] === pair)) return;
    // A string goes as text/plain, without a preflight.
    const body = JSON.stringify({ org_id: org, ecid, munchkin_id: munchkin, token });
    let queued = false;
    try {
      queued = navigator.sendBeacon(endpoint, body);
    } catch (_) {}
    if (!queued)
      fetch(endpoint, {
        method: "POST",
        body,
        keepalive: true,
        credentials: "include",
        mode: "no-cors",
        headers: { "content-type": "text/plain" },
      }).catch(() => {});
    // The page remembers where storage is blocked.
    page[KEY][pair] = 1;
    try {
      localStorage[KEY] = JSON.stringify(sent.slice(-9).concat([[pair, now]]));
    } catch (_) {}
  }

  /** @param {any} id */
  function hear(id) {
    if (/^\d{38}$/.test(id)) {
      told = id;
      look();
    }
  }

  /** @param {boolean} foreign */
  async function askAlloy(foreign) {
    try {
      // Before 2.12 it does not say; then the cookies decide.
      const of = ((await page.alloy("getLibraryInfo")).libraryInfo.configs || {}).orgId;
      if (!allowed || (of ? of !== org : foreign)) throw 0;
      hear((await page.alloy("getIdentity", { namespaces: ["ECID"] })).identity.ECID);
    } catch (_) {
      // Not configured yet, or it waits for consent too.
      alloyFrom = Date.now() + 3e4;
    }
  }

  function askVisitor() {
    // Visitor.getInstance would create what is missing, so we look where it looks.
    for (const one of page.s_c_il || [])
      if (one && one._c === "Visitor" && one.marketingCloudOrgID === org) {
        visitorAsked = true;
        hear(one.getMarketingCloudVisitorID(hear));
      }
  }

  function match() {
    // Ours are ASCII. decodeURIComponent gives up where there is a stray %.
    const cookies = document.cookie
      .split(/; */)
      .map((one) => one.replace(/%([\da-f]{2})/gi, (_, hex) => String.fromCharCode(parseInt(hex, 16))));
    const amcv = "AMCV_" + org + "=";
    const identity = "kndctr_" + org.replace("@", "_") + "_identity=";
    const mcmid = /(?:^|\|)MCMID\|(\d{38})(?:$|\|)/;
    /** @param {string} name @param {RegExp} pattern @param {(value: string) => string} [unpack] */
    const first = (name, pattern, unpack) => {
      for (const one of cookies)
        if (one.startsWith(name))
          try {
            const value = one.slice(name.length);
            const found = pattern.exec(unpack ? unpack(value) : value);
            if (found) return found[1];
          } catch (_) {}
      return "";
    };

    if (
      cookies.some((one) => /^(mkto_opt_out=true|demdex=NOTARGET)$/.test(one)) ||
      first(amcv, /(?:^|\|)MCOPTOUT(?:-[^|]*)?(\|)(?!NONE($|\|))/)
    )
      return;

    const token = first(
      "_mkto_trk=",
      RegExp("^id:" + munchkin + "&token:(_mch-[\\w.-]+-(\\d{13}-\\d{1,5}|[\\da-f]{30,32}))$"),
    );
    if (!token) return;

    // s_ecid does not say whose it is.
    const foreign =
      !cookies.some((one) => one.startsWith(amcv) || one.startsWith(identity)) &&
      cookies.some((one) => /^(AMCV|kndctr)_[^=]+(@AdobeOrg|_identity)=/.test(one));
    const shown =
      first(identity, /^(\d{38})$/, kndctr) || first(amcv, mcmid) || (!foreign && first("s_ecid=", mcmid));
    // The libraries' own first request goes before ours.
    if (!shown && !told && ++missing > 2) {
      if (typeof page.alloy === "function" && Date.now() >= alloyFrom) {
        alloyFrom = Infinity;
        askAlloy(foreign);
      }
      if (!visitorAsked) askVisitor();
    }
    if (shown || told) send(shown || told, token);
  }

  function look() {
    try {
      if (gpc === "honour" && /** @type {any} */ (navigator).globalPrivacyControl) return;
      if (!asked && typeof page[consent] === "function") {
        asked = true;
        page[consent](answer);
      }
      if (allowed) match();
    } catch (_) {}
    clearTimeout(timer);
    if (document.hidden || (asked && !allowed)) return;
    const age = Date.now() - began;
    timer = setTimeout(look, age < 6e4 ? 1e3 : age < 6e5 ? 5e3 : 3e4);
  }

  /** @param {unknown} yes */
  function answer(yes) {
    allowed = yes === true;
    look();
  }

  try {
    endpoint = new URL(script.dataset.endpoint || "/beacon", script.src || location.href).href;
    const me = [org, munchkin, endpoint].join();
    if (!/^\w{24}@AdobeOrg,\d{3}-[A-Z]{3}-\d{3},/.test(me)) return;
    // Twice in one page is once.
    const running = (page[KEY] = page[KEY] || {});
    if (running[me]) return;
    running[me] = 1;
    document.addEventListener("visibilitychange", look);
    if (!document.hidden) look();
  } catch (_) {}
})();
