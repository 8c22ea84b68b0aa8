// Where members come from: feeds with their settings and what came, and the files that arrived.

import { getAll, getPage, put } from "./api.js";
import { confirm, date, duration, empty, field, h, number, problem, refusal, say, when } from "./dom.js";
import { action, more, reasonIs, soft, table, tag, viewerNotice, whyIs } from "./parts.js";
import { heldDelivery } from "./sync.js";
import { t } from "./words.js";

const KINDS = ["aam-files", "aep-files", "aam-stream", "aep-stream"];
const FILES = ["snapshots", "completeness", "quiet_minutes", "lag_minutes", "every_hours"];
/** The settings of each kind, as PUT /feeds/{id} takes them. */
const SETTINGS = {
  "aam-files": FILES,
  "aep-files": [...FILES, "full", "audiences", "ecid_column", "status_column", "status_inside", "status_outside"],
  "aam-stream": ["ecid_field", "signature_header", "signature"],
  "aep-stream": ["audiences"],
};
const FLAGS = ["snapshots", "full"];
const NUMBERS = { quiet_minutes: [1, 1_440], lag_minutes: [0, 10_080], every_hours: [1, 744] };
const LISTS = ["audiences", "status_inside", "status_outside"];
const CHOICES = {
  completeness: (kind) => ["single-file", kind === "aam-files" ? "info" : "manifest", "quiet-period"],
  ecid_field: () => ["AAM_UUID", "DataPartner_UUID"],
  signature: () => ["sha256", "sha1", "md5"],
};
const DEFAULTS = { snapshots: false, quiet_minutes: 30, lag_minutes: 0, every_hours: 24, signature_header: "x-signature",
  status_inside: ["realized", "existing", "active"], status_outside: ["exited", "expired"] };

export async function page(_params, { signal }) {
  const feedBox = h("div");
  const fileBox = h("div");
  const out = h("div");
  let feeds = [];
  const declared = (id) => feeds.some((feed) => feed.id === id && feed.declared);
  const refresh = async () => {
    const [found, imports] = await Promise.all([getAll("/feeds", { signal }), soft(getPage("/imports", { signal }))]);
    feeds = found;
    feedBox.replaceChildren(feeds.length ? h("div", null, feeds.map((feed) => oneFeed(feed, refresh))) : empty(t("feeds.none")));
    fileBox.replaceChildren(imports.error ? problem(imports.error) : files(imports.value, { out, refresh }, signal));
  };
  await refresh();
  return h("div", null,
    h("h1", null, t("feeds.title")),
    h("p", null, t("feeds.what")),
    viewerNotice(), out, feedBox, newFeed(refresh, declared),
    h("h2", null, t("files.title")), h("p", null, t("files.what")), fileBox);
}

const isStream = (kind) => kind.endsWith("stream");

function oneFeed(feed, refresh) {
  return h("section", { class: "card", "data-feed": feed.id },
    h("div", { class: "head" }, h("h2", null, feed.id), tag(feed.declared ? "good" : "warn", t(feed.declared ? "feeds.declared" : "feeds.undeclared"))),
    h("p", null, t(`feed.kind.${feed.kind}`), feed.every_hours && [" · ", t("feeds.every", { count: feed.every_hours })]),
    came(feed),
    (feed.under_way ?? []).map((one) => h("div", { "data-delivery": one.delivery }, reading(one), h("p", { class: "soft" }, one.delivery))),
    !isStream(feed.kind) && wouldHaveLeft(feed),
    h("details", { class: "drawer" }, h("summary", null, t("feeds.settings")), form(feed, refresh)));
}

/** How far a delivery is that is being taken in. */
const reading = ({ step, done, of, since, invocations }) => [
  h("p", null, step === "taking" ? t("files.reading.taking", { done, count: of }) : t("files.reading.counting")),
  step === "taking" && h("progress", { max: of, value: done, "aria-label": t("progress.label") }),
  h("p", { class: "soft" }, t("files.reading.since", { time: date(since), count: invocations })),
];

/** What a feed has brought. */
function came({ kind, came: brought = {} }) {
  const fact = (key, value) => [h("dt", null, t(`feeds.came.${key}`)), h("dd", null, value)];
  const met = fact("met_at", brought.met_at ? when(brought.met_at) : t("feeds.came.met_nobody"));
  if (isStream(kind)) {
    return h("div", null,
      h("dl", { class: "facts" }, fact("heard_at", brought.heard_at ? when(brought.heard_at) : t("fresh.never")), fact("taken", number(brought.taken ?? 0)),
        fact("ignored", number(brought.ignored ?? 0)), fact("rejected", number(brought.rejected ?? 0)), met),
      brought.hint && h("p", { class: "notice warn" }, t("feeds.came.hint")),
      rejected(brought.rejects, brought.rejected));
  }
  const named = Object.entries(brought.named ?? {}).sort(([, a], [, b]) => (a < b ? 1 : -1));
  return h("div", null,
    h("dl", { class: "facts" }, fact("audiences", number(named.length)), met),
    named.length > 0 && h("details", null, h("summary", null, t("feeds.came.named")),
      table(t("feeds.came.named"), [
        { label: t("feeds.came.audience"), head: true, cell: ([id]) => id },
        { label: t("fresh.last"), cell: ([, at]) => when(at) },
      ], named, { unseen: true })));
}

/** Who was absent from the last full deliveries: to be looked at before absence means leaving. */
function wouldHaveLeft({ snapshots, would_have_left: would }) {
  const rows = would?.deliveries ?? [];
  if (!rows.length) return h("p", { class: "soft" }, t("feeds.left.nothing"));
  return h("div", { class: "left" },
    h("p", null, t(snapshots ? "feeds.left.on" : "feeds.left.off")),
    table(t("feeds.left.table"), [
      { label: t("feeds.left.time"), head: true, cell: ({ time }) => date(time) },
      { label: t("feeds.left.held"), n: true, cell: ({ held_total: n }) => number(n) },
      { label: t("feeds.left.absent"), n: true, cell: ({ absent_total: n }) => number(n) },
      { label: t("feeds.left.by"), cell: ({ absent }) => Object.entries(absent ?? {}).filter(([, n]) => n > 0).map(([id, n]) => `${id}: ${number(n)}`).join(", ") },
    ], rows));
}

const rejected = (rows, count) =>
  rows?.length > 0 && h("details", null, h("summary", null, t("files.rejects", { count: count ?? rows.length })),
    table(t("rejects.title"), [
      { label: t("rejects.line"), n: true, head: true, cell: ({ line }) => number(line) },
      { label: t("rejects.reason"), cell: reasonIs },
    ], rows, { unseen: true }),
    count > rows.length && h("p", null, t("files.more", { count: count - rows.length })));

/** The control of one setting, and how its value is read. */
function setting(name, kind, value) {
  if (FLAGS.includes(name)) {
    const input = h("input", { type: "checkbox", checked: value === true });
    const all = h("div", { class: "field" }, h("label", { class: "choice" }, input, t(`feed.${name}`)), h("p", { class: "hint" }, t(`feed.${name}.hint`)));
    all.fail = () => {};
    return { name, all, input, read: () => input.checked };
  }
  let control = h("input", { type: "text", autocomplete: "off", value: value ?? "" });
  let read = () => control.value.trim() || null;
  if (name in NUMBERS) {
    const [min, max] = NUMBERS[name];
    control = h("input", { type: "number", min, max, value: value ?? "" });
    read = () => (control.value === "" ? null : Number(control.value));
  } else if (LISTS.includes(name)) {
    control = h("textarea", { rows: "3", value: (value ?? []).join("\n") });
    read = () => control.value.split("\n").map((line) => line.trim()).filter(Boolean);
  } else if (name in CHOICES) {
    control = h("select", null, CHOICES[name](kind).map((one) => h("option", { value: one, selected: one === value }, t(`feed.${name}.${one}`))));
    read = () => control.value;
  }
  const all = field({ label: t(`feed.${name}`), control, hint: t(`feed.${name}.hint`) });
  return { name, all, input: control, read };
}

/** The settings of a feed. Whoever lets absence mean leaving sees first who would have left. */
function form(feed, refresh) {
  const parts = SETTINGS[feed.kind].map((name) => setting(name, feed.kind, feed[name] ?? DEFAULTS[name]));
  const out = h("div");
  const save = action(t("feeds.save"), async () => {
    const body = { kind: feed.kind };
    for (const { name, read } of parts) {
      const value = read();
      // An empty list of words is left to its default.
      if (value !== null && !(Array.isArray(value) && !value.length)) body[name] = value;
    }
    if (body.snapshots && !feed.snapshots && !(await confirm({
      title: t("feeds.snapshots.ask"), body: [t("feeds.snapshots.will"), wouldHaveLeft({ ...feed, snapshots: false })], yes: t("feeds.save"),
    }))) return;
    for (const { all } of parts) all.fail("");
    try {
      await put(`/feeds/${encodeURIComponent(feed.id)}`, body);
    } catch (error) {
      const at = (error.errors ?? []).map((wrong) => [parts.find(({ name }) => `/${name}` === wrong.pointer), wrong]).filter(([one]) => one);
      if (!at.length || at.some(([one]) => FLAGS.includes(one.name))) throw error;
      for (const [one, wrong] of at) one.all.fail(refusal(wrong));
      return at[0][0].input.focus();
    }
    say(t("feeds.saved"));
    await refresh();
  }, { kind: "main", out });
  return h("form", { class: "narrow", onsubmit: (event) => (event.preventDefault(), (save.querySelector("button") ?? save).click()) },
    parts.map(({ all }) => all), h("div", { class: "buttons" }, save), out);
}

/** Declares another feed: its name and its kind, then its settings. */
function newFeed(refresh, declared) {
  const id = h("input", { type: "text", autocomplete: "off", maxlength: "64", pattern: "[A-Za-z0-9._\\-]+", value: "" });
  const kind = h("select", null, KINDS.map((one) => h("option", { value: one }, t(`feed.kind.${one}`))));
  const idField = field({ label: t("feeds.id"), control: id, hint: t("feeds.id.hint") });
  const box = h("div");
  const show = () => {
    idField.fail("");
    const wrong = !id.value.trim() || !id.checkValidity();
    if (wrong || declared(id.value.trim())) {
      idField.fail(t(wrong ? "feeds.id.wrong" : "feeds.id.taken"));
      box.replaceChildren();
      return id.focus();
    }
    box.replaceChildren(form({ id: id.value.trim(), kind: kind.value }, async () => {
      box.replaceChildren();
      id.value = "";
      await refresh();
    }));
  };
  return h("details", { class: "card drawer" }, h("summary", null, t("feeds.new")),
    h("div", { class: "narrow" }, idField, field({ label: t("feeds.kind"), control: kind }),
      h("div", { class: "buttons" }, action(t("feeds.next"), show))), box);
}

const LOOK = { waiting: "soft", held: "bad", running: "warn", done: "good", refused: "bad" };

/** The latest files, the newest first, and under them the way to older ones. */
function files({ rows, next }, tools, signal) {
  if (!rows.length && !next) return empty(t("files.none"));
  const sum = (counts) => Object.values(counts ?? {}).reduce((total, n) => total + n, 0);
  const card = (one) => h("section", { class: "card file", "data-import": one.id },
    h("div", { class: "head" }, h("h3", null, one.key), tag(LOOK[one.status] ?? "soft", t(`files.status.${one.status}`))),
    one.progress ? [reading(one.progress), h("p", { class: "soft" }, one.id)] : one.status === "held" && one.delivery ? heldDelivery(one, tools) : one.why && h("p", null, whyIs(one)),
    h("p", { class: "soft" }, when(one.started_at), " · ", t("files.rows", { count: one.rows }), " · ", t("files.taken", { count: sum(one.taken) }),
      typeof one.duration_ms === "number" && [" · ", duration(Math.max(1, Math.round(one.duration_ms / 1_000)))]),
    rejected(one.rejects, one.rejected));
  const all = h("div", null, rows.map(card));
  return h("div", null, all, more(next, async (path) => {
    const found = await getPage(path, { signal });
    all.append(...found.rows.map(card));
    return found.next;
  }));
}
