// A sync's list beside any other list of Marketo's: who is in both, only there and only here, and why.

import { get, post } from "./api.js";
import { read } from "./destination.js";
import { date, field, h, number, poll, problem, say } from "./dom.js";
import { action, table, viewerNotice, whyIs } from "./parts.js";
import { fileLink } from "./sync.js";
import { has, t } from "./words.js";

/** What is typed is searched for once it rests. */
const REST_MS = 300;

export async function page({ id }, { signal }) {
  const path = `/syncs/${encodeURIComponent(id)}`;
  const sync = await get(path, { signal });
  const found = h("div", { class: "found" });
  const outcome = h("section", { class: "outcome", "aria-live": "polite" });
  const out = h("div");

  let chosen;
  signal.addEventListener("abort", () => chosen?.abort(), { once: true });
  const choose = async (list) => {
    // What is still read of the list before is not shown any more.
    chosen?.abort();
    const mine = (chosen = new AbortController()).signal;
    outcome.replaceChildren();
    let cost;
    try {
      cost = await post(`${path}/compare`, { list_id: list.id }, { signal: mine });
    } catch (error) {
      if (mine.aborted) return;
      throw error;
    }
    const calls = typeof cost.calls === "number" ? t("compare.calls", { count: cost.calls }) : t("compare.calls_at_least", { count: cost.calls_at_least ?? 1 });
    const failed = h("div");
    outcome.replaceChildren(h("div", { class: "card" },
      h("h2", null, t("compare.with", { list: cost.list_name ?? list.name ?? String(list.id) })),
      h("p", null, calls, " ", t("compare.reads_only")),
      h("div", { class: "buttons" }, action(t("compare.start"), async () => {
        const job = await post(`${path}/compare`, { list_id: list.id, start: true }, { signal });
        if (!mine.aborted) await follow(job.id, outcome, mine);
      }, { kind: "main", out: failed })), failed));
  };

  const input = h("input", { type: "search", autocomplete: "off", maxlength: "2000" });
  const inputField = field({ label: t("compare.search"), control: input, hint: t("compare.hint") });
  const offer = (lists) => found.replaceChildren(lists.length
    ? h("ul", { class: "picks" }, lists.map((list) => h("li", null,
      action(list.name ?? t("list.by_id", { id: String(list.id) }), () => choose(list), { out, kind: "link" }), " ",
      list.name && h("span", { class: "soft" }, t("sync.list", { id: String(list.id) }), list.workspace && ` · ${list.workspace}`))))
    : h("p", { class: "soft" }, t("compare.no_list")));
  let turn = 0;
  input.addEventListener("input", async () => {
    const mine = (turn += 1);
    await new Promise((resolve) => setTimeout(resolve, REST_MS));
    const typed = read(input.value);
    if (mine !== turn || signal.aborted) return;
    out.replaceChildren();
    inputField.fail("");
    if (!typed) return found.replaceChildren();
    const own = typed.id === sync.list.id && typed.id !== undefined;
    if (typed.wrong || own) {
      found.replaceChildren();
      return inputField.fail(own ? t("compare.own") : t(`list.wrong_${typed.wrong}`));
    }
    if (!typed.name) return offer([typed]);
    try {
      const { lists } = await get(`/lists?search=${encodeURIComponent(typed.name)}`, { signal });
      if (mine !== turn) return;
      const others = (lists ?? []).filter((list) => list.id !== sync.list.id);
      // A number may be the name of one list and the ID of another.
      if (typed.id && !others.some((list) => list.id === typed.id)) others.unshift({ id: typed.id });
      say(t("compare.found", { count: others.length }));
      offer(others);
    } catch (error) {
      if (!signal.aborted && mine === turn) out.replaceChildren(problem(error));
    }
  });

  return h("div", null,
    h("p", null, h("a", { href: `#/syncs/${id}` }, t("runs.back"))),
    h("h1", null, t("compare.title")),
    h("p", { class: "soft" }, t("sync.title", { audience: sync.audience_name, list: sync.list.name })),
    h("p", null, t("compare.what")), viewerNotice(),
    h("div", { class: "narrow" }, inputField),
    found, out, outcome);
}

async function follow(id, outcome, signal) {
  outcome.replaceChildren(h("p", { class: "soft", role: "status" }, t("compare.reading")));
  try {
    await poll(async () => {
      const found = await get(`/comparisons/${encodeURIComponent(id)}`, { signal });
      if (signal.aborted) return true;
      if (found.status === "reading") return false;
      outcome.replaceChildren(found.status === "done" ? result(found) : h("p", { class: "bad" }, t("compare.failed"), " ", whyIs(found)));
      return true;
    }, 2_000, signal);
  } catch (error) {
    if (!signal.aborted) outcome.replaceChildren(problem(error));
  }
}

/** When either list was looked at: what changed between the two is in one of them only. */
const times = ({ as_of: theirs, ours_as_of: ours }) => [
  theirs && [t("compare.theirs_as_of", { time: date(theirs) }), " "],
  ours && t("compare.ours_as_of", { time: date(ours) }),
];

function result(found) {
  const { both, only_there: there, only_here: here, explained = [] } = found;
  const row = (key, count) => [h("dt", null, t(`compare.${key}`)), h("dd", { "data-count": key }, t("unit.people", { count: count ?? 0 }))];
  return h("div", { class: "card" },
    h("h2", null, t("compare.with", { list: found.list_name })),
    h("p", { class: "soft" }, times(found)),
    h("dl", { class: "facts" }, row("both", both), row("only_there", there), row("only_here", here)),
    explained.length > 0 && table(t("compare.explained"), [
      { label: t("compare.where"), head: true, cell: ({ side }) => t(`compare.${side}`) },
      { label: t("compare.why"), cell: ({ code, sentence }) => (has(`compare.code.${code}`) ? t(`compare.code.${code}`) : h("span", { lang: "en" }, sentence)) },
      { label: t("funnel.column.count"), n: true, cell: ({ count }) => number(count) },
    ], explained),
    found.url && fileLink(found));
}
