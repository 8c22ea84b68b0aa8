// What must be set up at Marketo and at Adobe, how it stands, and who can mend it.

import { get } from "./api.js";
import { date, empty, h, number } from "./dom.js";
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

/** Who can mend a row, in our words. */
const WHO = {
  operator: ["subscription", "hipaa", "bucket", "snapshot"],
  marketo_org: ["ims_organisation"],
  marketo_operator: ["marketo_credentials"],
  marketo: ["cookie_sync", "marketo_ip_allowlist", "marketo_read_lead", "marketo_read_write_lead", "marketo_read_activity",
    "marketo_read_asset", "marketo_read_write_asset", "marketo_quota", "marketo_ecids"],
  developer: ["adobe_credentials"],
  manager: ["audience_manager_library"],
  platform: ["experience_platform_library", "experience_platform_folders"],
  destination: ["last_file", "id_type", "stream"],
  website: ["tag_seen"],
  website_dns: ["tag_cookies"],
};

/** Times of a row as people read them. */
const readable = (values) =>
  Object.fromEntries(Object.entries(values ?? {}).map(([key, value]) => [key, /^\d{4}-\d\d-\d\dT/.test(value) ? date(value) : value ?? "–"]));

/** A sentence of a row in the language of the screen where we have it, else the API's own. */
export const words = (row, name) => {
  const english = h("span", { lang: "en" }, row[name]);
  const { code, values } = row;
  const say = (key) => (has(key) ? t(key, readable(values)) : null);
  if (name === "who") return say(`setup.who.${Object.keys(WHO).find((who) => WHO[who].includes(code))}`) ?? english;
  if (name !== "means") return say(`setup.${code}.${name}`) ?? english;
  const { reason } = values ?? {};
  return say(`setup.${code}.${reason}`) ?? say(`setup.any.${reason}`) ?? english;
};

/** Marketo's API users by their calls of today; operators alone are told. */
const users = ({ values }) => values?.users?.length > 0 && [h("dt", null, t("setup.users")),
  h("dd", null, h("ul", { class: "plain" }, values.users.map(({ user, calls }) => h("li", null, user, " · ", number(calls)))))];

function one(row) {
  const fact = (name) => row[name] && [h("dt", null, t(`setup.column.${name}`)), h("dd", null, words(row, name))];
  return h("div", { class: "card check", "data-code": row.code, "data-status": row.status },
    h("div", { class: "head" }, h("h3", null, words(row, "title")), tag(LOOK[row.status] ?? "soft", t(`setup.status.${row.status}`))),
    h("dl", { class: "facts" }, row.tried !== "nothing" && fact("tried"), fact("means"), users(row), row.status !== "ok" && [fact("who"), fact("where")]));
}

