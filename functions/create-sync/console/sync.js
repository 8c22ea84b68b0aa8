// One sync: how it stands, why its list has the size it has, and what one can do.

import { get, getPage, post } from "./api.js";
import { confirm, date, duration, h, number, poll, problem, say, when } from "./dom.js";
import { funnelPicture, funnelTable, linePicture, lineTable, said } from "./figures.js";
import { funnel } from "./funnel.js";
import { action, asked, more, part, places, reasonIs, soft, table, tag, viewerNotice, whyIs } from "./parts.js";
import { has, t } from "./words.js";

/** While something is under way, and while nothing is. */
const BUSY_MS = 5_000;
const CALM_MS = 20_000;
/** Every so many times it is looked whether a delivery waits. */
const FILES_EVERY = 6;
/** Pages of the files that are looked through for it, and rows of each. Records are kept 90 days: 100 files a day fit. */
const FILES_PAGES = 20;
const FILES_ROWS = 500;
/** Pages of the history that are read: 400 days of hourly rows are 20. */
const HISTORY_PAGES = 20;
/** People who were refused that are shown one by one. */
const REFUSED_SHOWN = 500;
const STOPPED = ["stopped_keeping", "stopped_leaving"];
const CALM = ["in_step", "news_waiting", "paused", "stopped", "held"];

export async function page({ id }, { signal }) {
  const path = `/syncs/${encodeURIComponent(id)}`;
  // There is none before the first pass has ended.
  const report = () => get(`${path}/report`, { signal }).catch((error) => {
    if (error.status === 404) return null;
    throw error;
  });
  let [seen, counts] = await Promise.all([get(path, { signal }), report()]);
  // The page does not wait for more than the newest ones; the first look after that goes on to the others.
  let held = await heldFiles(seen, signal, 1);
  const { place, band, settle } = places();
  const box = Object.fromEntries(["state", "notices", "progress", "buttons", "funnel", "freshness"].map((name) => [name, place()]));
  const out = h("div");
  const open = new Set();

  /** What somebody did may move the page; what comes by itself may not. */
  const show = (now = false) => {
    const reportOnly = seen.start === "report_only";
    const minute = Math.floor(Date.now() / 60_000);
    box.state.put([seen.status, seen.why, seen.list, seen.audience_name], () => state(seen), now);
    box.notices.put([seen.held, seen.not_delivered, overdue(seen), held.map((one) => one.id)], () => notices(seen, held, tools), now);
    box.progress.put([seen.progress, seen.status], () => progress(seen), now);
    box.buttons.put([seen.status, seen.list?.id, seen.start, counts?.kept_out, counts?.dropped], () => buttons(seen, counts, tools), now);
    box.funnel.put([counts, reportOnly], () => sizes(counts, reportOnly, { open, ...tools }), now);
    box.freshness.put([seen.freshness, seen.sources, minute], () => freshness(seen), now);
    if (now) settle();
  };
  let looked = FILES_EVERY - 1;
  let [turn, newest] = [0, 0];
  const refresh = async (now) => {
    const mine = (turn += 1);
    const found = await Promise.all([get(path, { signal }), report()]);
    // Files come seldom, and their list is long.
    const files = now || ++looked % FILES_EVERY === 0 ? await heldFiles(found[0], signal) : null;
    // What was asked for later may have been answered sooner.
    if (mine > newest) {
      newest = mine;
      [seen, counts] = found;
      held = files ?? held;
    }
    show(now);
  };
  const tools = {
    path,
    out,
    /** Does something, says so, and shows what has become of the sync. */
    do: async (what, body, done) => {
      await post(`${path}/${what}`, body, { signal });
      say(done);
      await refresh(true);
    },
    refresh,
  };
  show(true);

  let last = Date.now();
  poll(async () => {
    if (Date.now() - last < (CALM.includes(seen.progress?.step) ? CALM_MS : BUSY_MS)) return;
    last = Date.now();
    await refresh(false);
  }, 1_000, signal).catch((error) => out.replaceChildren(problem(error)));

  return h("div", { class: "sync" },
    h("h1", null, t("sync.title", { audience: seen.audience_name, list: seen.list.name })),
    viewerNotice(),
    box.state, box.notices,
    h("section", { class: "card" }, h("h2", null, t("sync.now")), box.progress),
    box.buttons, out,
    h("ul", { class: "links" },
      h("li", null, h("a", { href: `#/syncs/${id}/runs` }, t("runs.title"))),
      h("li", null, h("a", { href: `#/syncs/${id}/compare` }, t("compare.title"))),
      h("li", null, h("a", { href: "#/explain" }, t("sync.explain")))),
    h("section", { class: "card" }, h("h2", null, t("funnel.title")), box.funnel),
    h("section", { class: "card" }, h("h2", null, t("history.title")), history(path, signal)),
    h("section", { class: "card" }, h("h2", null, t("fresh.title")), box.freshness),
    failures(path, signal),
    rejects(path, signal),
    guard(seen, tools),
    download(path, signal),
    band);
}

/** What the sync is called, and how it stands. */
function state(sync) {
  const kind = { active: "good", creating: "soft", paused: "warn" }[sync.status] ?? "soft";
  const word = sync.start === "report_only" && sync.status === "active" ? "report_only" : sync.status;
  return h("div", { class: "head" },
    h("p", null, tag(kind, t(`status.${word}`)), " ",
      h("span", { class: "soft" }, sync.list.id === null ? t("sync.no_list") : t("sync.list", { id: String(sync.list.id) }), " · ", sync.audience_id)),
    sync.why && h("p", null, whyIs(sync)));
}

const overdue = (sync) => (sync.sources ?? []).filter((source) => source.overdue).map(({ feed, last_at }) => ({ feed, last_at }));

/** Deliveries that wait for an operator, of feeds that name the audience. */
async function heldFiles(sync, signal, pages = FILES_PAGES) {
  const waits = [];
  for (let [next, n] = [`/imports?limit=${FILES_ROWS}`, 0]; next && n < pages; n++) {
    const { value } = await soft(getPage(next, { signal }));
    waits.push(...(value?.rows ?? []).filter(({ status, progress: under }) => status === "held" && !under));
    next = value?.next;
  }
  const feeds = new Set((sync.sources ?? []).map(({ feed }) => feed));
  const concerns = (one) =>
    feeds.has(one.feed) || !one.feed || sync.audience_id in (one.taken ?? {}) || (one.not_named ?? []).includes(sync.audience_id);
  // The parts of one delivery are decided together.
  return [...new Map(waits.filter(concerns).map((one) => [one.delivery ?? one.id, one])).values()];
}

/** What needs somebody. */
function notices(sync, held, tools) {
  return h("div", null,
    sync.held && massChange(sync.held, tools),
    sync.not_delivered && notDelivered(sync, tools),
    overdue(sync).map(({ feed, last_at }) => h("div", { class: "notice warn" }, h("p", null, t("sync.overdue", { feed }), " ", when(last_at)))),
    held.map((one) => heldDelivery(one, tools)));
}

function massChange(held, tools) {
  const { id, since, removals, additions, of } = held;
  const numbers = { removals, additions, of };
  const decide = (decision) => asked(t(`held.${decision}`), {
    title: t(`held.${decision}`),
    body: t(`held.${decision}.will`, numbers),
    yes: t(`held.${decision}`),
  }, () => tools.do("held", { held: id, decision }, t("held.decided")), { out: tools.out, focus: `held-${decision}`, kind: decision === "apply" ? "danger" : null });
  return h("div", { class: "notice bad", "data-notice": "held" },
    h("h2", null, t("held.title")),
    h("p", null, t("held.what", numbers), " ", t("held.since", { time: date(since) })),
    held.why && h("p", null, whyIs(held)),
    h("div", { class: "buttons" }, decide("apply"), decide("drop")));
}

function notDelivered({ not_delivered: { feed, sentence }, audience_id }, tools) {
  const [source, name] = audience_id.split(":");
  const why = [feed ? t("absent.left_out", { feed }) : t("absent.never"), " "];
  const help = has(`absent.ask.${source}`) ? t(`absent.ask.${source}`, { name }) : h("span", { lang: "en" }, sentence);
  return h("div", { class: "notice warn", "data-notice": "not-delivered" },
    h("h2", null, t("absent.title")),
    h("p", null, why, help),
    feed && h("div", { class: "buttons" }, asked(t("absent.empty"), {
      title: t("absent.empty"), body: t("absent.empty.will"), yes: t("absent.empty"),
    }, () => tools.do("not-delivered", { decision: "empty" }, t("absent.noted")), { out: tools.out, kind: "danger" })));
}

/** A delivery that is held, with its two answers. The feeds' page shows the same. */
export function heldDelivery(one, { out, refresh }) {
  const decide = (decision) => asked(t(`delivery.${decision}`), {
    title: t(`delivery.${decision}`), body: t(`delivery.${decision}.will`, { file: one.key }), yes: t(`delivery.${decision}`),
  }, async () => {
    await post("/imports/decide", { import: one.id, decision });
    say(t("delivery.decided"));
    await refresh(true);
  }, { out, kind: decision === "apply" ? "danger" : null });
  return h("div", { class: "notice bad", "data-notice": "delivery" },
    h("h2", null, t("delivery.title")),
    h("p", null, t("delivery.what", { file: one.key, feed: one.feed || "default" })),
    one.why && h("p", null, whyIs(one)),
    h("div", { class: "buttons" }, decide("apply"), decide("drop")));
}

/** The step that runs, how far it is, and how long it takes; of one height, whatever the step. */
function progress(sync) {
  const { step, done = null, of = null, unit = null, estimate_seconds: seconds = null, sentence } = sync.progress ?? {};
  const known = step && has(`progress.${step}`);
  const counts = typeof done === "number" && typeof of === "number" && of > 0;
  const calm = !step || CALM.includes(step);
  return h("div", { class: "progress" },
    h("p", { class: "step" }, known ? t(`progress.${step}`) : h("span", { lang: "en" }, sentence ?? t("progress.unknown"))),
    h("progress", { max: counts ? of : 1, value: counts ? done : calm ? 1 : 0, class: counts ? null : "none", "aria-label": t("progress.label") }),
    h("p", { class: "soft more" },
      counts && [has(`progress.of.${unit}`, { count: of }) ? t(`progress.of.${unit}`, { done, count: of }) : t("progress.of", { done, of }), " · "],
      calm ? " " : typeof seconds === "number" ? t("progress.left", { time: duration(seconds) }) : t("progress.not_known")));
}

/** What one can do. Each button keeps its place and says why, where it cannot be used. */
function buttons(sync, counts, tools) {
  const { status, start } = sync;
  const { out } = tools;
  const over = STOPPED.includes(status) ? t("button.not.stopped") : null;
  const making = status === "creating" ? t("button.not.creating") : null;
  const writes = start === "report_only" ? t("button.not.report_only") : sync.list.id === null ? t("button.not.creating") : null;
  const paused = status === "paused";
  const ask = (name, what, body, { not, kind, body: text } = {}) =>
    asked(t(`button.${name}`), { title: t(`button.${name}.ask`), body: text ?? t(`button.${name}.will`), yes: t(`button.${name}`) },
      () => tools.do(what, body, t(`button.${name}.done`)), { not, out, kind, focus: name });
  const outOfIt = (counts?.kept_out ?? 0) + (counts?.dropped ?? 0);
  return h("div", { class: "buttons" },
    ask("run", "run", {}, { not: over ?? making ?? (paused ? t("button.not.paused") : null) }),
    paused ? ask("resume", "resume", {}) : ask("pause", "pause", {}, { not: over ?? making }),
    ask("verify", "verify", {}, { not: over ?? writes }),
    ask("put_back", "put-back", {}, { not: over ?? writes ?? (outOfIt === 0 ? t("button.not.nobody") : null) }),
    action(t("button.stop"), () => stop(sync, tools), { not: over, out, kind: "danger", focus: "stop" }));
}

/** Stops for good, after the question what becomes of the people. */
async function stop(sync, tools) {
  const choice = (value, checked) => h("label", { class: "choice" },
    h("input", { type: "radio", name: "people", value, checked }), t(`stop.${value}`), h("span", { class: "hint" }, t(`stop.${value}.will`)));
  const choices = h("fieldset", null, h("legend", null, t("stop.people")), choice("keep", true), choice("take_out", false));
  const writes = sync.start !== "report_only";
  const yes = await confirm({ title: t("stop.ask"), body: [t("stop.will"), ...(writes ? [choices] : [t("stop.report_only")])], yes: t("button.stop") });
  if (!yes) return;
  const people = writes ? choices.querySelector("input:checked").value : "keep";
  await tools.do("stop", { people }, t("button.stop.done"));
}

/** Why the list has the size it has. */
function sizes(counts, reportOnly, { open, out, do: act }) {
  const stages = funnel(counts, reportOnly);
  const putBack = (key) => ["kept_out", "dropped"].includes(key) && counts?.[key] > 0 &&
    asked(t("button.put_back"), { title: t("button.put_back.ask"), body: t("button.put_back.will"), yes: t("button.put_back") },
      () => act("put-back", {}, t("button.put_back.done")), { out, focus: `put-back-${key}` });
  const asOf = !counts ? t("funnel.no_report") : counts.delivered === false ? t("funnel.not_delivered") : [t("funnel.as_of"), " ", when(counts.as_of)];
  return h("div", null,
    h("p", { class: "soft" }, asOf),
    funnelPicture(stages, { open, reasons: counts?.reasons, extra: putBack }),
    h("details", null, h("summary", null, t("funnel.as_table")), funnelTable(stages)));
}

const PEOPLE = ["people", "in_list", "members"];
const BROWSERS = ["browsers", "addressable", "known"];

/** The size over time. It comes later than the page, into a box of its own height. */
function history(path, signal) {
  const box = h("div", { class: "history" });
  const read = async () => {
    let [rows, next] = [[], `${path}/history?limit=500`];
    for (let n = 0; next && n < HISTORY_PAGES; n++) {
      const found = await getPage(next, { signal });
      rows = rows.concat(found.rows);
      next = found.next;
    }
    return rows;
  };
  const show = (rows) => h("div", { class: "charts" }, [["people", PEOPLE], ["browsers", BROWSERS]].map(([name, series]) =>
    h("div", null, h("h3", null, t(`history.${name}`)), linePicture(rows, series, t(`history.${name}`)),
      h("details", null, h("summary", null, t("funnel.as_table")), lineTable(rows, series, t(`history.${name}`))))));
  part(read(), show).then((node) => box.replaceChildren(node));
  return box;
}

const FRESH = ["last_file_at", "last_event_at", "last_match_at", "last_look_up_at"];

/** When we last heard of what, and from whom. */
function freshness(sync) {
  const facts = h("dl", { class: "facts" }, FRESH.map((key) => [
    h("dt", null, t(`fresh.${key}`)), h("dd", null, sync.freshness?.[key] ? when(sync.freshness[key]) : t("fresh.never"))]));
  const sources = sync.sources ?? [];
  const late = ({ kind, behind_hours: behind, every_hours: every }) => {
    if (kind?.endsWith("stream")) return t("fresh.stream");
    return typeof behind === "number" ? t("fresh.late", { every, behind }) : t("fresh.corrects");
  };
  return h("div", null, facts, sources.length
    ? table(t("fresh.sources"), [
      { label: t("fresh.feed"), head: true, cell: ({ feed }) => feed },
      { label: t("fresh.kind"), cell: ({ kind }) => t(`feed.kind.${kind}`) },
      { label: t("fresh.last"), cell: ({ last_at }) => when(last_at) },
      { label: t("fresh.how_late"), cell: late },
    ], sources)
    : h("p", { class: "soft" }, t("fresh.no_source")));
}

/** A part that is read when it is opened. */
function drawer(label, read) {
  const box = h("div");
  let asked = false;
  const all = h("details", { class: "card drawer", ontoggle: async () => {
    if (!all.open || asked) return;
    asked = true;
    box.setAttribute("aria-busy", "true");
    box.replaceChildren(h("p", { class: "soft" }, t("base.loading")));
    box.replaceChildren(await read());
    box.removeAttribute("aria-busy");
  } }, h("summary", null, label), box);
  return all;
}

/** People whom Marketo refused, by its code, and the last of them with its request id. */
function failures(path, signal) {
  return drawer(t("failures.title"), () => part(get(`${path}/report`, { signal }), (report) => {
    const codes = report.reasons ?? Object.entries(report.failed ?? {}).map(([code, count]) => ({ code, count }));
    const some = codes.filter(({ count }) => count > 0);
    if (!some.length) return h("p", null, t("failures.none"));
    const [each, sum] = [(report.refused ?? []).slice(0, REFUSED_SHOWN), some.reduce((all, { count }) => all + count, 0)];
    const reasons = new Map(codes.map(({ code, sentence }) => [code, sentence]));
    return h("div", null,
      table(t("failures.by_code"), [
        { label: t("failures.code"), head: true, cell: ({ code }) => code },
        { label: t("failures.people"), n: true, cell: ({ count }) => number(count) },
        { label: t("failures.meaning"), cell: ({ code, sentence }) => said(code, sentence) },
      ], some),
      table(t("failures.each"), [
        { label: t("failures.lead"), head: true, cell: ({ lead_id }) => String(lead_id) },
        { label: t("failures.code"), cell: ({ code }) => code },
        { label: t("failures.meaning"), cell: ({ code, sentence }) => said(code, sentence ?? reasons.get(code)) },
        { label: t("failures.when"), cell: ({ at }) => when(at) },
        { label: t("failures.request_id"), cell: ({ request_id }) => h("code", null, request_id) },
      ], each),
      each.length < sum && h("p", { class: "soft" }, t("failures.part", { shown: each.length, count: sum })));
  }));
}

/** Lines of feeds that could not be taken. */
function rejects(path, signal) {
  return drawer(t("rejects.title"), () => part(getPage(`${path}/rejects`, { signal }), ({ rows, next }) => {
    if (!rows.length && !next) return h("p", null, t("rejects.none"));
    const all = table(t("rejects.title"), [
      { label: t("rejects.file"), head: true, cell: ({ file, feed }) => file ?? feed },
      { label: t("rejects.line"), n: true, cell: ({ line }) => number(line) },
      { label: t("rejects.reason"), cell: reasonIs },
      { label: t("rejects.at"), cell: ({ at }) => when(at) },
    ], rows, { unseen: true });
    return h("div", null, all, more(next, async (path) => {
      const found = await getPage(path, { signal });
      all.add(found.rows);
      return found.next;
    }));
  }));
}

const GUARD = ["removals_percent", "removals_at_least", "additions_at_least"];

/** When a change is a mass change. */
function guard(sync, tools) {
  const inputs = GUARD.map((key) => {
    const input = h("input", { type: "number", min: key === "removals_percent" ? 0 : 1, max: key === "removals_percent" ? 100 : null, required: true, value: sync.guard?.[key] ?? "" });
    return [key, input, h("label", { class: "choice" }, h("span", null, t(`guard.${key}`)), " ", input)];
  });
  const out = h("div");
  const stopped = STOPPED.includes(sync.status) ? t("button.not.stopped") : null;
  return h("details", { class: "card drawer" }, h("summary", null, t("guard.title")),
    h("p", null, t("guard.what")), inputs.map(([, , label]) => label),
    h("div", { class: "buttons" }, action(t("guard.save"), async () => {
      const wrong = inputs.find(([, input]) => !input.reportValidity());
      if (wrong) return;
      await tools.do("guard", Object.fromEntries(inputs.map(([key, input]) => [key, Number(input.value)])), t("guard.saved"));
      out.replaceChildren(h("p", { class: "good" }, t("guard.saved")));
    }, { out, not: stopped })), out);
}

/** The people one by one, as a file: a job, and then an address. */
function download(path, signal) {
  const out = h("div", { class: "outcome" });
  return h("details", { class: "card drawer" }, h("summary", null, t("download.title")),
    h("p", null, t("download.what")),
    h("div", { class: "buttons" }, action(t("download.make"), async () => {
      const job = await post(`${path}/download`, {}, { signal });
      out.replaceChildren(h("p", { class: "soft", role: "status" }, t("download.working")));
      await poll(async () => {
        const found = await get(`/downloads/${encodeURIComponent(job.id)}`, { signal });
        if (found.status === "working") return false;
        out.replaceChildren(found.status === "done" ? fileLink(found) : h("p", { class: "bad" }, t("download.failed"), " ", whyIs(found)));
        return true;
      }, 2_000, signal);
    }, { out, changes: false })), out);
}

/** An address that is good for a while. */
export const fileLink = ({ url, url_until, rows }) =>
  h("p", { role: "status" }, h("a", { href: url, class: "button", download: "" }, typeof rows === "number" ? t("download.link", { count: rows }) : t("download.file")), " ",
    url_until && t("download.until", { time: date(url_until) }));
