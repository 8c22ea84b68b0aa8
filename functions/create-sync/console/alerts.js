// Whom to tell that something is wrong, and what is wrong at present: a part of the settings.

import { get, put } from "./api.js";
import { date, duration, field, h, refusal, say } from "./dom.js";
import { action, asked, part, table, tag, whyIs } from "./parts.js";
import { has, t } from "./words.js";

const FORMS = ["json", "slack", "teams"];

/** Loads and shows; comes later than the page, and says so itself where it fails. */
export function alerting(signal) {
  const box = h("div", { class: "alerts" });
  const refresh = async () => box.replaceChildren(await part(get("/alerts", { signal }), (found) => shown(found, refresh)));
  return refresh().then(() => box);
}

function shown({ webhooks, deviation_percent: percent, incidents }, refresh) {
  const out = h("div");
  // What is not sent of a webhook stays as it is.
  const kept = Object.fromEntries(Object.entries(webhooks ?? {}).map(([name, { form }]) => [name, { form }]));
  const save = async (hooks, deviation) => {
    await put("/alerts", { webhooks: hooks, deviation_percent: deviation });
    say(t("alerts.saved"));
    await refresh();
  };
  const without = (gone) => Object.fromEntries(Object.entries(kept).filter(([name]) => name !== gone));
  const rows = Object.entries(webhooks ?? {});
  return h("div", null,
    h("p", null, t("alerts.what")),
    rows.length > 0 && table(t("alerts.webhooks"), [
      { label: t("alerts.name"), head: true, cell: ([name]) => name },
      { label: t("alerts.form"), cell: ([, { form }]) => t(`alerts.form.${form}`) },
      { label: t("alerts.host"), cell: ([, { host }]) => host },
      { label: t("alerts.headers"), cell: ([, { headers }]) => (headers ?? []).join(", ") },
      { label: t("alerts.change"), cell: ([name]) => asked(t("alerts.remove"), {
        title: t("alerts.remove"), body: t("alerts.remove.will", { name }), yes: t("alerts.remove"),
      }, () => save(without(name), percent), { out, kind: "danger" }) },
    ], rows),
    adding(kept, percent, save),
    deviation(kept, percent, save),
    out,
    h("h3", null, t("alerts.incidents")),
    incidents?.length ? table(t("alerts.incidents"), [
      { label: t("alerts.kind"), head: true, cell: ({ kind }) => (has(`alerts.kind.${kind}`) ? t(`alerts.kind.${kind}`) : kind) },
      { label: t("alerts.state"), cell: ({ ended_at }) => tag(ended_at ? "good" : "bad", t(ended_at ? "alerts.over" : "alerts.lasts")) },
      { label: t("alerts.since"), cell: ({ since }) => date(since) },
      { label: t("alerts.until"), cell: ({ ended_at }) => (ended_at ? date(ended_at) : "–") },
      { label: t("alerts.sentence"), cell: told },
    ], incidents, { unseen: true }) : h("p", { class: "soft" }, t("alerts.none")));
}

/** What our sentence of an incident says, from its values. */
const SAID = {
  stuck: ({ work, keys }) => ({ work: has(`alerts.work.${work}`) ? t(`alerts.work.${work}`) : work, count: keys }),
  feed_late: ({ feed, last_at, every_hours }) => ({ feed, time: date(last_at), every_hours }),
  delivery_held: ({ feed }) => ({ feed: feed || "default" }),
  change_held: ({ list_id, removals, additions, of }) => ({ list: String(list_id), removals, additions, of }),
  run_slow: ({ list_id, seconds, usual_seconds }) => ({ list: String(list_id), time: duration(seconds), usual: duration(usual_seconds) }),
  list_deviates: ({ size, median }) => ({ size, median }),
  quota_used_up: ({ until }) => until && { time: date(until) },
  dead_letters: ({ queue, messages }) => ({ queue, messages }),
};

/** An incident in our words where its values are there, else in the API's; and the way to its sync. */
function told({ kind, sentence, values }) {
  const known = Object.keys(values ?? {}).length > 0;
  const ours = known && SAID[kind]?.(values);
  const text = known && kind === "sync_stopped" && values.why ? whyIs(values)
    : ours && has(`alerts.said.${kind}`, ours) ? t(`alerts.said.${kind}`, ours) : h("span", { lang: "en" }, sentence);
  const sync = values?.sync_id;
  return [text, sync && [" ", h("a", { href: `#/syncs/${encodeURIComponent(sync)}` }, t("refused.see_sync"))]];
}

/** A header a line: "Authorization: Bearer …". */
const headersOf = (text) => Object.fromEntries(text.split("\n").map((line) => line.trim()).filter(Boolean).map((line) => {
  const at = line.indexOf(":");
  return at < 0 ? [line, ""] : [line.slice(0, at).trim(), line.slice(at + 1).trim()];
}));

function adding(kept, percent, save) {
  const name = h("input", { type: "text", autocomplete: "off", maxlength: "64" });
  const url = h("input", { type: "url", autocomplete: "off", maxlength: "2000" });
  const form = h("select", null, FORMS.map((one) => h("option", { value: one }, t(`alerts.form.${one}`))));
  const headers = h("textarea", { rows: "2" });
  const fields = {
    name: field({ label: t("alerts.name"), control: name, hint: t("alerts.name.hint") }),
    url: field({ label: t("alerts.url"), control: url, hint: t("alerts.url.hint") }),
    form: field({ label: t("alerts.form"), control: form }),
    headers: field({ label: t("alerts.headers"), control: headers, hint: t("alerts.headers.hint") }),
  };
  const out = h("div");
  return h("details", null, h("summary", null, t("alerts.add")), h("div", { class: "narrow" }, Object.values(fields),
    h("div", { class: "buttons" }, action(t("alerts.add"), async () => {
      for (const one of Object.values(fields)) one.fail("");
      if (Object.hasOwn(kept, name.value.trim())) {
        fields.name.fail(t("alerts.name.taken"));
        return name.focus();
      }
      try {
        await save({ ...kept, [name.value.trim()]: { url: url.value.trim(), form: form.value, headers: headersOf(headers.value) } }, percent);
      } catch (error) {
        const at = (error.errors ?? []).map((wrong) => [fields[wrong.pointer.split("/")[3] ?? "name"], wrong]).filter(([one]) => one);
        if (!at.length) throw error;
        for (const [one, wrong] of at) one.fail(refusal(wrong));
        at[0][0].querySelector("input, select, textarea").focus();
      }
    }, { out })), out));
}

function deviation(kept, percent, save) {
  const input = h("input", { type: "number", min: "1", max: "1000", value: percent });
  const out = h("div");
  return h("details", null, h("summary", null, t("alerts.deviation")), h("div", { class: "narrow" },
    field({ label: t("alerts.deviation.percent"), control: input, hint: t("alerts.deviation.hint") }),
    h("div", { class: "buttons" }, action(t("settings.save"), async () => {
      if (input.reportValidity()) await save(kept, Number(input.value));
    }, { out })), out));
}
