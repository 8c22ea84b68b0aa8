// The runs of a sync in the last 90 days.

import { get, getPage } from "./api.js";
import { date, duration, empty, h, number } from "./dom.js";
import { said } from "./figures.js";
import { more, soft, table } from "./parts.js";
import { has, t } from "./words.js";

export async function page({ id }, { signal }) {
  const path = `/syncs/${encodeURIComponent(id)}`;
  const [{ rows, next }, sync] = await Promise.all([getPage(`${path}/runs`, { signal }), soft(get(path, { signal }))]);
  const all = table(t("runs.table"), columns(), rows);
  return h("div", null,
    h("p", null, h("a", { href: `#/syncs/${id}` }, t("runs.back"))),
    h("h1", null, t("runs.title")),
    sync.value && h("p", { class: "soft" }, t("sync.title", { audience: sync.value.audience_name, list: sync.value.list.name })),
    h("p", null, t("runs.what")),
    rows.length ? [all, more(next, async (path) => {
      const found = await getPage(path, { signal });
      all.add(found.rows);
      return found.next;
    })] : empty(t("runs.none")));
}

const cause = (name) => (has(`cause.${name}`) ? t(`cause.${name}`) : name);

/** All causes of a run, the first one first. */
const causes = ({ cause: first, causes: all }) => {
  const names = [...new Set([first, ...(all ?? []).map((one) => one.cause ?? one)])].filter((name) => typeof name === "string");
  return names.map(cause).join(", ");
};

const failures = ({ failures: all }) =>
  all?.length > 0 && h("details", null, h("summary", null, t("runs.failures", { count: all.reduce((sum, { count }) => sum + (count ?? 1), 0) })),
    h("ul", null, all.map(({ code, count, request_id, sentence }) => h("li", null,
      t("funnel.code", { code, count: count ?? 1 }), " ", said(code, sentence), " ",
      request_id && [t("failures.request_id"), " ", h("code", null, request_id)]))));

/** Made anew for each page: the language may have changed. */
const columns = () => [
  { label: t("runs.started"), head: true, cell: ({ started_at, ended_at }) => [date(started_at), !ended_at && [" ", h("em", null, t("runs.running"))]] },
  { label: t("runs.cause"), cell: causes },
  { label: t("runs.added"), n: true, cell: ({ added }) => number(added) },
  { label: t("runs.removed"), n: true, cell: ({ removed }) => number(removed) },
  { label: t("runs.refused"), n: true, cell: ({ refused }) => number(refused) },
  { label: t("runs.held"), n: true, cell: ({ held }) => number(held) },
  { label: t("runs.calls"), n: true, cell: ({ calls }) => number(calls) },
  { label: t("runs.duration"), cell: ({ duration_ms: ms }) => (typeof ms === "number" ? duration(Math.max(1, Math.round(ms / 1_000))) : "–") },
  { label: t("runs.reasons"), cell: failures },
];
