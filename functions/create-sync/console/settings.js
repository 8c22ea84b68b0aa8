// The subscription, the tag's snippet, secrets of hints, and all settings as one file.

import { alerting } from "./alerts.js";
import { get, post, put } from "./api.js";
import { confirm, date, field, h, refusal, say } from "./dom.js";
import { action, asked, saveFile, soft, table, viewerNotice, whyIs } from "./parts.js";
import { has, t } from "./words.js";

export async function page(_params, { signal }) {
  const [{ value: known, error }, tag, alerts] = await Promise.all([
    soft(get("/subscription", { signal })), soft(get("/tag", { signal })), alerting(signal)]);
  // A new installation has none yet: the form makes it.
  if (error && error.status !== 404) throw error;
  const open = known ?? {};
  const tagBox = h("div", null, snippet(tag));
  const again = async () => tagBox.replaceChildren(snippet(await soft(get("/tag", { signal }))));
  return h("div", null,
    h("h1", null, t("settings.title")),
    viewerNotice(),
    h("section", { class: "card" }, h("h2", null, t("settings.subscription")), subscription(open, again)),
    h("section", { class: "card" }, h("h2", null, t("settings.tag")), tagBox),
    h("section", { class: "card" }, h("h2", null, t("settings.secrets")), secrets()),
    known && h("section", { class: "card" }, h("h2", null, t("alerts.title")), alerts),
    h("section", { class: "card" }, h("h2", null, t("settings.move")), exporting(), importing(open)));
}

const lines = (text) => text.split(/\s+/).filter(Boolean);
/** Numbers that may be left empty. */
const numberOrNull = (input) => (input.value.trim() === "" ? null : Number(input.value));

function subscription(known, saved) {
  const input = (name, value, more = {}) => h("input", { type: "text", name, autocomplete: "off", value: value ?? "", ...more });
  const box = (name, checked) => h("input", { type: "checkbox", name, checked });
  const controls = {
    munchkin_id: input("munchkin_id", known.munchkin_id, { readonly: Boolean(known.munchkin_id), required: true }),
    org_id: input("org_id", known.org_id),
    hipaa_ready: box("hipaa_ready", known.hipaa_ready === true),
    cookie_sync: box("cookie_sync", known.cookie_sync !== false),
    origins: h("textarea", { name: "origins", rows: "4", value: (known.origins ?? []).join("\n") }),
    quota_share_percent: input("quota_share_percent", known.quota_share_percent, { type: "number", min: "1", max: "100", inputmode: "numeric" }),
    new_pairs_per_day: input("new_pairs_per_day", known.new_pairs_per_day, { type: "number", min: "0", inputmode: "numeric" }),
    bulk_import_above: input("bulk_import_above", known.bulk_import_above, { type: "number", min: "300", inputmode: "numeric" }),
  };
  const fields = Object.fromEntries(["munchkin_id", "org_id", "quota_share_percent", "origins", "new_pairs_per_day", "bulk_import_above"].map((name) =>
    [name, field({ label: t(`settings.${name}`), control: controls[name], hint: t(`settings.${name}.hint`) })]));
  const check = (name) => h("div", { class: "field" }, h("label", { class: "choice" }, controls[name], t(`settings.${name}`)),
    h("p", { class: "hint" }, t(`settings.${name}.hint`)));
  const out = h("div");
  const save = async () => {
    const wanted = {
      ...known,
      munchkin_id: controls.munchkin_id.value.trim(),
      org_id: controls.org_id.value.trim() || null,
      hipaa_ready: controls.hipaa_ready.checked,
      cookie_sync: controls.cookie_sync.checked,
      quota_share_percent: numberOrNull(controls.quota_share_percent),
      origins: lines(controls.origins.value),
      new_pairs_per_day: numberOrNull(controls.new_pairs_per_day),
      bulk_import_above: numberOrNull(controls.bulk_import_above),
    };
    const warnings = effects(known, wanted);
    if (warnings.length && !(await confirm({ title: t("settings.ask"), body: warnings, yes: t("settings.save") }))) return;
    for (const one of Object.values(fields)) one.fail("");
    try {
      const answer = await put("/subscription", wanted);
      const paused = answer.paused_syncs?.length ?? 0;
      Object.assign(known, answer);
      delete known.paused_syncs;
      controls.munchkin_id.readOnly = true;
      say(t("settings.saved"));
      out.replaceChildren(h("p", { class: "good" }, t("settings.saved")), ...(paused > 0 ? [h("p", null, t("settings.paused", { count: paused }))] : []));
      await saved();
    } catch (error) {
      const at = (error.errors ?? []).map((wrong) => [fields[wrong.pointer?.split("/")[1]], wrong]).filter(([one]) => one);
      if (!at.length) throw error;
      for (const [one, wrong] of at) one.fail(refusal(wrong));
      at[0][0].querySelector("input, textarea").focus();
    }
  };
  const submit = action(t("settings.save"), save, { kind: "main", out });
  return h("form", { class: "narrow", onsubmit: (event) => (event.preventDefault(), (submit.querySelector("button") ?? submit).click()) },
    fields.munchkin_id, fields.org_id, check("hipaa_ready"), check("cookie_sync"), fields.quota_share_percent, fields.origins,
    fields.new_pairs_per_day, fields.bulk_import_above,
    h("div", { class: "buttons" }, submit), out);
}

/** What a change does to the syncs that run. */
function effects(before, after) {
  const found = [];
  if (after.hipaa_ready && !before.hipaa_ready) found.push(t("settings.will.hipaa_ready"));
  if (before.org_id && !after.org_id) found.push(t("settings.will.org_id"));
  if (before.munchkin_id && before.cookie_sync !== false && !after.cookie_sync) found.push(t("settings.will.cookie_sync"));
  const gone = (before.origins ?? []).filter((origin) => !after.origins.includes(origin));
  if (gone.length) found.push(t("settings.will.origins", { origins: gone.join(", ") }));
  return found;
}

/** The line for the pages, to copy. */
function snippet({ value, error }) {
  if (error) return h("p", { class: "soft" }, t("settings.tag.none"));
  const code = h("pre", { tabindex: "0", "aria-label": t("settings.tag.snippet") }, h("code", null, value.snippet));
  const copy = action(t("settings.tag.copy"), async () => {
    try {
      await navigator.clipboard.writeText(value.snippet);
      say(t("settings.tag.copied"));
    } catch {
      // Where the browser does not let us: it is at least selected.
      getSelection().selectAllChildren(code);
      say(t("settings.tag.selected"));
    }
  }, { changes: false });
  return h("div", null, h("p", null, t("settings.tag.what")), code, h("div", { class: "buttons" }, copy));
}

/** Makes a secret, which is shown this once. */
function secrets() {
  const out = h("div");
  return h("div", null,
    h("p", null, t("settings.secrets.what")),
    h("div", { class: "buttons" }, asked(t("settings.secrets.make"), {
      title: t("settings.secrets.make"), body: t("settings.secrets.will"), yes: t("settings.secrets.make"),
    }, async () => {
      const { secret, header, valid } = await post("/subscription/hint-secrets");
      out.replaceChildren(
        h("p", null, h("strong", null, t("settings.secrets.once"))),
        h("pre", { tabindex: "0", "aria-label": t("settings.secrets.secret") }, h("code", null, `${header}: ${secret}`)),
        h("p", null, t("settings.secrets.valid", { count: valid.length }), " ", valid.map(({ made_at }) => date(made_at)).join(" · ")));
    }, { out })), out);
}

function exporting() {
  const out = h("div");
  return h("div", null,
    h("p", null, t("settings.export.what")),
    h("div", { class: "buttons" }, action(t("settings.export"), async () => {
      const all = await get("/export");
      saveFile(`audience-sync-${all.subscription?.munchkin_id ?? "export"}.json`, `${JSON.stringify(all, null, 2)}\n`, "application/json");
      say(t("settings.export.done"));
    }, { out, changes: false })), out);
}

/** What a setting of an import is called on its own page; by its name in the API where it stands on none. */
const settingIs = (what, name) => {
  const ofSync = { leaving: t("options.leaving"), members_before: t("options.before"), start: t("options.report_only"), guard: t("guard.title"), paused: t("status.paused") };
  if (what === "sync") return ofSync[name] ?? name;
  if (what === "feed") return has(`feed.${name}`) ? t(`feed.${name}`) : name;
  return has(`settings.${name}`) ? t(`settings.${name}`) : name;
};

/** Reads a file, shows what would change here, and changes it when somebody says so. `open`: the subscription, if there is one. */
function importing(open) {
  const out = h("div");
  const changes = h("div");
  const input = h("input", { type: "file", accept: ".json,application/json" });
  const shown = (rows) => table(t("settings.import.changes"), [
    { label: t("settings.import.subject"), head: true, cell: (row) => `${t(`settings.import.${row.what}`)} ${row.name ?? row.id ?? ""}` },
    { label: t("settings.import.change"), cell: (row) => [t(`settings.import.change.${row.change}`), row.fields?.length > 0 && `: ${row.fields.map((name) => settingIs(row.what, name)).join("; ")}`] },
    { label: t("settings.import.why"), cell: (row) => row.why && whyIs(row) },
    { label: t("settings.import.done"), cell: ({ done }) => (done === undefined ? "" : t(done ? "settings.import.yes" : "settings.import.no")) },
  ], rows);
  const look = async () => {
    changes.replaceChildren();
    const [file] = input.files;
    if (!file) return out.replaceChildren(h("p", { class: "wrong", role: "alert" }, t("settings.import.no_file")));
    let all;
    try {
      all = JSON.parse(await file.text());
    } catch {
      return out.replaceChildren(h("p", { class: "wrong", role: "alert" }, t("settings.import.no_json")));
    }
    const { changes: rows } = await post("/import", { export: all, munchkin_id: open.munchkin_id });
    const some = rows.filter(({ change }) => ["add", "change"].includes(change)).length;
    changes.replaceChildren(shown(rows), h("div", { class: "buttons" }, asked(t("settings.import.apply"), {
      title: t("settings.import.apply"), body: t("settings.import.will", { count: some }), yes: t("settings.import.apply"),
    }, async () => {
      const { changes: done } = await post("/import", { export: all, munchkin_id: open.munchkin_id, apply: true });
      const left = done.filter((row) => row.done === false).length;
      changes.replaceChildren(shown(done), left > 0
        ? h("p", { class: "bad", role: "alert" }, t("settings.import.not_done", { count: left }))
        : h("p", { class: "good" }, t("settings.import.finished")));
      if (!left) say(t("settings.import.finished"));
    }, { out, kind: "main", not: some === 0 ? t("settings.import.nothing") : null })));
  };
  return h("div", null,
    h("div", { class: "narrow" }, field({ label: t("settings.import.file"), control: input, hint: t("settings.import.what") })),
    h("div", { class: "buttons" }, action(t("settings.import.look"), look, { out })), out, changes);
}
