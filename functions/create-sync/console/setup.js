// What must be set up at Marketo and at Adobe, how it stands, and who can mend it.

import { get } from "./api.js";
import { date, empty, h } from "./dom.js";
import { action, tag } from "./parts.js";
import { has, t } from "./words.js";

const AREAS = ["subscription", "marketo", "adobe", "feeds", "tag"];
const LOOK = { ok: "good", not_ok: "bad", not_seen_yet: "warn", not_used: "soft" };

export async function page(_params, { signal }) {
  const box = h("div");
  const out = h("div");
  const show = async (fresh) => box.replaceChildren(rows(await get(fresh ? "/setup?fresh=1" : "/setup", { signal })));
  await show();
  return h("div", null,
    h("h1", null, t("setup.title")),
    h("p", null, t("setup.what")),
    h("div", { class: "buttons" }, action(t("setup.again"), () => show(true), { out, changes: false })), out, box);
}

function rows({ checked_at, rows: all }) {
  const areas = [...AREAS, ...new Set(all.map(({ area }) => area).filter((area) => !AREAS.includes(area)))];
  const count = (status) => all.filter((row) => row.status === status).length;
  return h("div", null,
    h("p", { class: "soft" }, t("setup.checked"), " ", date(checked_at), " · ",
      Object.keys(LOOK).map((status) => t(`setup.count.${status}`, { count: count(status) })).join(" · ")),
    all.length === 0 && empty(t("setup.none")),
    areas.map((area) => {
      const mine = all.filter((row) => row.area === area);
      return mine.length > 0 && h("section", null, h("h2", null, has(`setup.area.${area}`) ? t(`setup.area.${area}`) : area), mine.map(one));
    }));
}

/** A sentence in the language of the screen where we have it, else the API's own. */
const words = (row, name) => {
  const key = `setup.${row.code}.${name}`;
  return has(key) ? t(key, row.values ?? {}) : h("span", { lang: "en" }, row[name]);
};

function one(row) {
  const fact = (name) => row[name] && [h("dt", null, t(`setup.column.${name}`)), h("dd", null, words(row, name))];
  return h("div", { class: "card check", "data-code": row.code, "data-status": row.status },
    h("div", { class: "head" }, h("h3", null, words(row, "title")), tag(LOOK[row.status] ?? "soft", t(`setup.status.${row.status}`))),
    h("dl", { class: "facts" }, fact("tried"), fact("means"), row.status !== "ok" && [fact("who"), fact("where")]));
}

