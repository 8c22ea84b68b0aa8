// Who did what, and when.

import { getPage, send } from "./api.js";
import { date, empty, h } from "./dom.js";
import { action, more, saveFile, table } from "./parts.js";
import { has, t } from "./words.js";

/** A file of more pages than this is fetched by other means; rows of each. */
const PAGES = 200;
const ROWS = 500;

export async function page(_params, { signal }) {
  const { rows, next } = await getPage("/audit", { signal });
  const out = h("div");
  const all = table(t("audit.table"), [
    { label: t("audit.at"), head: true, cell: ({ at }) => date(at) },
    { label: t("audit.who"), cell: ({ who }) => who },
    { label: t("audit.what"), cell: ({ what }) => (has(`audit.what.${what}`) ? t(`audit.what.${what}`) : h("code", null, what)) },
    { label: t("audit.subject"), cell: subject },
    { label: t("audit.detail"), cell: ({ detail }) => details(detail) },
  ], rows);
  return h("div", null,
    h("h1", null, t("audit.title")),
    h("p", null, t("audit.about")),
    rows.length > 0 && h("div", { class: "buttons" }, action(t("audit.download"), async () => {
      const { text, whole } = await csv(signal);
      saveFile("audit.csv", text, "text/csv");
      if (!whole) out.replaceChildren(h("p", { class: "notice warn", role: "status" }, t("audit.cut", { rows: PAGES * ROWS })));
    }, { out, changes: false })), out,
    rows.length ? [all, more(next, async (path) => {
      const found = await getPage(path, { signal });
      all.add(found.rows);
      return found.next;
    })] : empty(t("audit.none")));
}

const subject = ({ what, subject: id }) =>
  id && (what?.startsWith("sync.") ? h("a", { href: `#/syncs/${encodeURIComponent(id)}` }, id) : id);

/** What was asked for, member by member; nothing in it is personal. */
const details = (detail) =>
  detail && Object.keys(detail).length > 0 && h("ul", { class: "plain" }, Object.entries(detail).map(([key, value]) =>
    h("li", null, `${key}: `, h("code", null, typeof value === "string" ? value : JSON.stringify(value)))));

/** The pages as one file, and whether that is all of them; the API puts the head of the columns on the first page alone. */
async function csv(signal) {
  let [text, path] = ["", `/audit?format=csv&limit=${ROWS}`];
  for (let n = 0; path && n < PAGES; n++) {
    const { response, text: page } = await send("GET", path, { signal });
    text += page;
    path = /<([^>]*)>\s*;\s*rel="?next"?/.exec(response.headers.get("link") ?? "")?.[1] ?? null;
  }
  return { text, whole: !path };
}
