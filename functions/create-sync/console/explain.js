// Why somebody is in a list, or is not: the chain from the audience to the list, and its first missing link.

import { get, post } from "./api.js";
import { confirm, field, h, poll, problem, say, when } from "./dom.js";
import { said } from "./figures.js";
import { action, tag, viewerNotice } from "./parts.js";
import { has, t } from "./words.js";

const KINDS = ["ecid", "token", "lead_id", "email"];
/** The links of the chain, in order, and the codes that say that one of them is missing. */
const LINKS = {
  audience: ["not_in_audience", "not_delivered"],
  match: ["no_match", "match_expired", "set_aside_browser", "set_aside_cookie"],
  person: ["not_asked", "nobody", "anonymous", "gone"],
  list: ["kept_out", "dropped", "refused", "waiting", "held", "paused", "to_leave", "report_only"],
};

export async function page(_params, { signal }) {
  const answer = h("section", { "aria-live": "polite" });
  const { form, value } = subject(async () => {
    answer.replaceChildren(h("p", { class: "soft" }, t("explain.looking")));
    answer.replaceChildren(chain(await post("/explain", value(), { signal })));
  }, () => answer.replaceChildren());
  return h("div", null,
    h("h1", null, t("explain.title")),
    h("p", null, t("explain.what")),
    form, answer, erase(signal));
}

/** One field and what it is. What is typed stays in the page: it goes neither into an address nor into storage. */
function subject(run, clear, { button = t("explain.do"), kind = null, changes = false } = {}) {
  const choose = h("select", null, KINDS.map((kind) => h("option", { value: kind }, t(`explain.kind.${kind}`))));
  const input = h("input", { type: "text", required: true, autocomplete: "off", autocapitalize: "off", spellcheck: "false", maxlength: "512" });
  const kindField = field({ label: t("explain.kind"), control: choose });
  const valueField = field({ label: t("explain.value"), control: input, hint: t("explain.hint.ecid") });
  const out = h("div");
  choose.addEventListener("change", () => {
    valueField.querySelector(".hint").textContent = t(`explain.hint.${choose.value}`);
    valueField.fail("");
  });
  const value = () => {
    const text = input.value.trim();
    return { [choose.value]: choose.value === "lead_id" ? Number(text) : text };
  };
  const go = async () => {
    valueField.fail("");
    out.replaceChildren();
    const text = input.value.trim();
    if (!text || (choose.value === "lead_id" && !/^\d{1,15}$/.test(text))) {
      valueField.fail(t(`explain.wrong.${choose.value}`));
      input.focus();
      return;
    }
    try {
      await run();
    } catch (error) {
      clear();
      if (error.errors?.length) {
        valueField.fail(t(`explain.wrong.${choose.value}`));
        input.focus();
      } else out.replaceChildren(problem(error));
    }
  };
  const submit = action(button, go, { kind: kind ?? "main", out, changes });
  const form = h("form", { class: "narrow", onsubmit: (event) => (event.preventDefault(), submit.querySelector?.("button")?.click() ?? submit.click()) },
    kindField, valueField, h("div", { class: "buttons" }, submit), out);
  return { form, value, input };
}

/** The steps, the first missing one marked, with what would help. */
function chain(found) {
  const missing = found.missing?.code ?? null;
  const broken = Object.entries(LINKS).findIndex(([, codes]) => codes.includes(missing));
  const nothing = missing !== null && broken < 0;
  const parts = { audience: audiences(found), match: matches(found), person: people(found), list: lists(found) };
  const step = (name, n) => {
    // Where nothing ties somebody to a browser, no audience was looked into.
    const unseen = name === "audience" && n < broken && !found.browsers?.length;
    const state = nothing || unseen ? "unknown" : missing === null || n < broken ? "there" : n === broken ? "missing" : "later";
    const look = { there: "good", missing: "bad", later: "soft", unknown: "soft" }[state];
    return h("li", { "data-link": name, "data-state": state, class: "link" },
      h("h3", null, t(`explain.link.${name}`), " ", tag(look, t(`explain.state.${state}`))),
      state === "missing" && reason(found),
      h("div", null, parts[name]));
  };
  return h("div", { class: "card" },
    h("h2", null, t("explain.answer")),
    missing === null ? h("p", { class: "good" }, t("explain.complete")) : nothing && reason(found),
    h("ol", { class: "chain" }, Object.keys(LINKS).map(step)));
}

/** What is missing, and what would make it appear. */
function reason({ subject: asked, missing: { code, sentence, what_helps: helps } }) {
  const english = (text) => h("span", { lang: "en" }, text);
  const ours = has(`missing.${code}`);
  const word = code === "no_match" && asked !== "ecid" ? "no_match_person" : code;
  return h("div", { class: "notice bad", "data-missing": code },
    h("p", null, h("strong", null, ours ? t(`missing.${word}`) : english(sentence))),
    h("p", null, t("explain.helps"), " ", ours ? t(`missing.${code}.helps`) : english(helps)));
}

const browserName = ({ n, ecid_ends: ends }) => t("explain.browser", { n, ends: String(ends ?? "") });

function audiences({ browsers, browsers_not_shown: others }) {
  if (!browsers?.length) return h("p", { class: "soft" }, t("explain.no_browser"));
  return h("ul", null, others > 0 && h("li", null, t("explain.others", { count: others })), browsers.map((browser) => h("li", null, browserName(browser), ": ",
    browser.audiences?.length
      ? h("ul", null, browser.audiences.map(({ name, audience_id, delivered, inside, said_at }) => h("li", null,
        t(`explain.${inside ? "inside" : delivered === false ? "undelivered" : "outside"}`, { audience: name || audience_id }), said_at && [" · ", when(said_at)])))
      : t("explain.no_audience"))));
}

function matches({ browsers }) {
  const some = (browsers ?? []).filter(({ matches: all, from_marketo: told }) => all?.length || told?.length);
  if (!some.length) return h("p", { class: "soft" }, t("explain.no_match"));
  return h("ul", null, some.map((browser) => h("li", null, browserName(browser), ":", h("ul", null,
    (browser.matches ?? []).map(({ n, seen_at, state, lead_id }) => h("li", null,
      t("explain.cookie", { n }), " · ", t(`explain.match.${state}`),
      typeof lead_id === "number" && [" · ", t("explain.lead", { id: String(lead_id) })], seen_at && [" · ", t("explain.seen"), " ", when(seen_at)])),
    (browser.from_marketo ?? []).map((lead) => h("li", null, t("explain.from_marketo", { id: String(lead) })))))));
}

function people({ people: all }) {
  if (!all?.length) return h("p", { class: "soft" }, t("explain.no_person"));
  return h("ul", null, all.map(({ lead_id, known, gone, merged_into: into, as_of }) => h("li", null,
    t("explain.lead", { id: String(lead_id) }), " · ", typeof into === "number" ? t("explain.merged", { id: String(into) }) : t(gone ? "explain.gone" : known === null ? "explain.not_asked" : known ? "explain.known" : "explain.anonymous"),
    as_of && [" · ", when(as_of)])));
}

function lists({ lists: all }) {
  if (!all?.length) return h("p", { class: "soft" }, t("explain.no_list"));
  return h("ul", null, all.map(({ sync_id, audience_name, list_name, state, code, sentence, lead_id }) => h("li", null,
    h("a", { href: `#/syncs/${sync_id}` }, t("sync.title", { audience: audience_name, list: list_name })), ": ", t(`explain.list.${state}`),
    typeof lead_id === "number" && [" · ", t("explain.lead", { id: String(lead_id) })],
    ["held", "adopted"].includes(code) ? [" · ", t(`explain.list.${code}`)] : code && [" · ", t("explain.code", { code }), " ", said(code, sentence)])));
}

/** Forgets a person, after a question that says what that means. */
function erase(signal) {
  const outcome = h("div", { class: "outcome" });
  const { form, value, input } = subject(async () => {
    const yes = await confirm({ title: t("erase.title"), body: [t("erase.will"), t("erase.final"), t("erase.not_reached")], yes: t("erase.do") });
    if (!yes) return;
    const job = await post("/people/erase", value(), { signal });
    input.value = "";
    say(t("erase.begun"));
    outcome.replaceChildren(erased(job));
    poll(async () => {
      const found = await get(`/people/erase/${encodeURIComponent(job.id)}`, { signal });
      outcome.replaceChildren(erased(found));
      return found.status === "done";
    }, 3_000, signal).catch((error) => outcome.append(problem(error)));
  }, () => outcome.replaceChildren(), { button: t("erase.do"), kind: "danger", changes: true });
  return h("details", { class: "card drawer" }, h("summary", null, t("erase.title")),
    h("p", null, t("erase.what")), viewerNotice(), form, outcome);
}

/** How far an erasure is. */
function erased(job) {
  const fact = (key, value) => [h("dt", null, t(`erase.${key}`)), h("dd", null, value)];
  const out = (job.lists ?? []).reduce((sum, { taken_out }) => sum + taken_out, 0);
  return h("div", { role: "status" },
    h("p", null, tag(job.status === "done" ? "good" : "warn", t(`erase.status.${job.status}`))),
    h("dl", { class: "facts" },
      fact("cookies", t("unit.cookies", { count: job.cookies_forgotten ?? 0 })),
      fact("browsers", t("unit.browsers", { count: job.browsers_forgotten ?? 0 })),
      fact("out", t("unit.people", { count: job.people_out_of_audiences ?? 0 })),
      fact("stay", t("unit.people", { count: job.people_who_stay ?? 0 })),
      fact("taken_out", t("unit.people", { count: out })),
      fact("waiting", t("unit.lists", { count: (job.lists_waiting ?? []).length }))),
    h("p", { class: "soft" }, t("erase.not_reached")));
}
